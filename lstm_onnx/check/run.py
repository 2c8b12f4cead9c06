"""`check` itself: every rule on one file, in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from ..errors import ConfigError, FileError, ModelError, ProviderError
from ..files import readable_file
from ..runtime.providers import PROVIDERS, cuda_unavailable
from ..story import Story
from . import bombs, files, lengths, operators, providers, sizes, weights
from .dynamic import Ran, on_provider, unopened
from .graph import ONNX_ERRORS, Graph, inferred
from .report import REEXPORT, CheckReport, Finding, failed, strictly, words
from .rules import catalogue, find
from .static import dynamic_axes, metadata, states_paired, valid_onnx
from .subject import Subject, small_constants

Look = Callable[[Subject], Iterable[Finding]]
_BOMB = "resource-bomb"
_DOUBLE = "float64-on-cpu"
_LOOKS: tuple[tuple[str, Look], ...] = (
    ("external-data", files.external_data),
    ("unknown-operator", files.unknown_operator),
    ("contrib-operator", files.contrib_operator),
    (_BOMB, bombs.resource_bomb),
    ("initializer-input", files.initializer_input),
    ("training-mode", files.training_mode),
    ("random-operator", files.random_operator),
    ("frozen-slice", sizes.frozen_slice),
    ("unnamed-axes", sizes.unnamed_axes),
    ("loose-states", operators.loose_states),
    ("h0-without-c0", operators.one_state),
    ("lengths-type", lengths.lengths_type),
    ("lengths-constant", lengths.lengths_constant),
    ("lengths-ignored", lengths.lengths_ignored),
    ("layout", operators.layout),
    ("weight-shapes", weights.weight_shapes),
    ("attributes", operators.attributes),
)
"""What reads the file alone, by the rule that a damaged graph is told under."""
_CUDA_LOOKS: tuple[tuple[str, Look], ...] = (
    ("opset-on-cuda", providers.opset_on_cuda),
    ("variant-on-cuda", providers.variant_on_cuda),
)
"""What says in advance where nodes go; a session on CUDA has proven it."""
_TOLD_ALWAYS = ("valid-onnx", "metadata", "dynamic-axes", "states-paired", "provider", "runnable")


def check(
    path: str | os.PathLike[str],
    *,
    provider: str = "auto",
    require: bool = False,
    strict: bool = False,
    ignore: Sequence[str] = (),
) -> CheckReport:
    """Check an ONNX file: ours by what its metadata promises, others by what their graph shows.

    Args:
        path: the .onnx file.
        provider: "cpu"; "cuda", strictly; or "auto", CUDA where a GPU can be used and else CPU.
        require: every single node has to be on the provider, also those on shapes that ONNX Runtime
            keeps on the CPU by design; the report lists where each one is.
        strict: warnings fail the check, too.
        ignore: ids or names of rules that are left out.

    Raises:
        FileError: the file is missing, empty, a folder or otherwise unreadable.
        ModelError: its content is not an ONNX model at all.
        ProviderError: the provider is unknown or is not there.
        ConfigError: `ignore` names no rule.
        MissingDependencyError: no usable ONNX Runtime is installed.
    """
    left_out = frozenset(find(text).name for text in ignore)
    _require_provider(provider)
    model = _read(path)
    file = os.fspath(path)
    subject, findings = _read_rules(file, model, provider)
    if any(finding.rule == _BOMB for finding in findings) and _BOMB not in left_out:
        ran = unopened(provider, f"not tried: the file asks for too much ({_BOMB})")
    else:
        ran = on_provider(file, provider, require=require)
    findings += _on_machine(replace(subject, provider=ran.provider), asked=provider, ran=ran)
    # The session's words for what the graph has told already.
    told = {finding.rule for finding in findings}
    findings += [item for item in ran.findings if item.rule != _DOUBLE or _DOUBLE not in told]
    kept = [item for item in findings if item.rule not in left_out]
    heard = {item.rule for item in findings} | set(_TOLD_ALWAYS)
    return CheckReport(
        file,
        ran.provider,
        tuple(strictly(item) if strict else item for item in kept),
        silent=tuple(rule.name for rule in catalogue() if rule.name not in heard),
        ignored=tuple(dict.fromkeys(item.rule for item in findings if item.rule in left_out)),
        placements=ran.placements,
        required=require,
    )


def _read_rules(file: str, model: ModelProto, provider: str) -> tuple[Subject, list[Finding]]:
    """The rules that open no session."""
    findings = [valid_onnx(file)]
    story: Story | None = None
    try:
        story = Story.from_metadata({entry.key: entry.value for entry in model.metadata_props})
        findings.append(metadata(story, model.producer_name))
    except ConfigError as error:
        findings.append(failed("metadata", "", str(error)))
    # Before shapes are inferred, for which large weights are dropped.
    constants = small_constants(model)
    findings += _guarded("non-finite-weights", lambda: weights.stored_numbers(file, model))
    magnitudes = providers.int8_magnitudes(model)
    declared = ModelProto()
    declared.CopyFrom(model)
    try:
        graph = Graph(inferred(model))
    except ONNX_ERRORS as error:
        findings.append(failed("dynamic-axes", "", f"shapes cannot be inferred: {words(error)}"))
        graph = Graph(model)
    else:
        findings += _guarded("dynamic-axes", lambda: dynamic_axes(graph, story or Story()))
    findings += _guarded("states-paired", lambda: states_paired(graph, story))
    subject = Subject(file, declared, graph, story, provider, constants, magnitudes)
    for rule, look in _LOOKS:
        findings += _guarded(rule, lambda look=look: look(subject))  # type: ignore[misc]
    return subject, findings


def _on_machine(subject: Subject, *, asked: str, ran: Ran) -> list[Finding]:
    """The rules that depend on where the model runs."""
    looks: list[tuple[str, Look]] = [("bfloat16", providers.precision), ("int8-saturation", providers.int8_saturation)]
    proven = ran.provider == "cuda" and bool(ran.placements)
    if asked != "cpu":
        looks += [("loop-on-cuda", providers.loop_on_cuda), *(() if proven else _CUDA_LOOKS)]
    return [finding for rule, look in looks for finding in _guarded(rule, lambda look=look: look(subject))]  # type: ignore[misc]


def _guarded(rule: str, findings: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """A rule's findings; a graph too damaged to walk (names that are not text) fails it."""
    try:
        return list(dict.fromkeys(findings()))
    except (*ONNX_ERRORS, RecursionError) as error:
        return [failed(rule, "", f"the graph is damaged: {words(error)}")]


def _require_provider(provider: str) -> None:
    if provider not in PROVIDERS:
        raise ProviderError(f'provider "{provider}" is unknown; it must be one of {", ".join(PROVIDERS)}')
    reason = cuda_unavailable() if provider == "cuda" else None
    if reason is not None:
        raise ProviderError(f"CUDA cannot be used: {reason}")


def _read(path: str | os.PathLike[str]) -> ModelProto:
    """The model without its external data."""
    found = readable_file(path, "an .onnx file")
    if not found.is_file():
        raise FileError(f"{path}: is no regular file; expected an .onnx file")
    try:
        model = onnx.load_model(str(found), format="protobuf", load_external_data=False)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path}: is not an ONNX model, or only a part of one: {words(error)}") from error
    # protobuf reads many a random byte as fields it does not know.
    if not model.graph.node or not model.opset_import:
        lacking = "nodes" if not model.graph.node else "operator set (opset_import)"
        raise ModelError(f"{path}: is not an ONNX model that can run: it has no {lacking}; {REEXPORT}")
    return model

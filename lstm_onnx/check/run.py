"""`check` itself: every rule on one file, in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from ..errors import ConfigError, FileError, ModelError, ProviderError
from ..files import readable_file, require_utf8
from ..runtime.providers import PROVIDERS, cuda_unavailable
from ..story import Story
from . import bombs, files, lengths, operators, providers, sizes, static, streams, weights
from .graph import ONNX_ERRORS
from .report import REEXPORT, CheckReport, Finding, failed, skipped, strictly, words
from .rules import catalogue, find
from .session import Ran, on_provider, unopened
from .subject import Subject

Look = Callable[[Subject], Iterable[Finding]]
_CRASH, _BOMB, _METADATA, _DOUBLE = "crashing-node", "resource-bomb", "metadata", "float64-on-cpu"
_LOOKS: Mapping[tuple[str, ...], Look] = {
    ("valid-onnx",): static.valid_onnx,
    ("dynamic-axes", "frozen-literal", "state-batch"): static.dynamic_axes,
    ("states-paired",): static.states_paired,
    ("not-streamable",): streams.not_streamable,
    ("external-data",): files.external_data,
    ("unknown-operator",): files.unknown_operator,
    ("contrib-operator",): files.contrib_operator,
    ("initializer-input",): files.initializer_input,
    ("non-finite-weights", "doubled-weights"): weights.stored_numbers,
    ("training-mode",): files.training_mode,
    ("random-operator",): files.random_operator,
    ("frozen-slice",): sizes.frozen_slice,
    ("unnamed-axes",): sizes.unnamed_axes,
    ("loose-states", "lost-state"): operators.loose_states,
    ("h0-without-c0",): operators.one_state,
    ("lengths-type",): lengths.lengths_type,
    ("lengths-constant",): lengths.lengths_constant,
    ("lengths-ignored",): lengths.lengths_ignored,
    ("ignored-input",): lengths.ignored_inputs,
    ("layout",): operators.layout,
    ("weight-shapes",): weights.weight_shapes,
    ("attributes",): operators.attributes,
    ("clip",): operators.clip,
    ("activation-numbers",): operators.activation_numbers,
}
"""What reads the file alone, by the rules that it tells; the first one tells that the graph is damaged."""
_ON_MACHINE: Mapping[tuple[str, ...], Look] = {
    ("bfloat16", _DOUBLE, "float16-on-cpu"): providers.precision,
    ("int8-saturation",): providers.int8_saturation,
}
"""What depends on where the model was opened."""
_ON_CUDA: Mapping[tuple[str, ...], Look] = {("loop-on-cuda",): providers.loop_on_cuda}
_FORECAST: Mapping[tuple[str, ...], Look] = {
    ("opset-on-cuda",): providers.opset_on_cuda,
    ("variant-on-cuda",): providers.variant_on_cuda,
}
"""What says in advance where nodes go; a session on CUDA has proven it."""


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
    file, model = os.fspath(path), _read(path)
    found = _guarded(_CRASH, lambda: bombs.crashing_node(model))
    dangers = list(found)  # of which nobody can want to be the victim, whatever is ignored
    found += _guarded(_BOMB, lambda: bombs.resource_bomb(file, model))
    tried = {_CRASH, _BOMB}
    if dangers or (found and _BOMB not in left_out):
        why = f"not tried: the file is not safe to open ({found[0].rule})"
        ran = unopened(provider, why)
        found += [skipped(rule, why) for rule in ("valid-onnx", "dynamic-axes")]
    else:
        story = _story(model, found)
        subject = Subject.of(file, model, story, provider)
        found += _seen(_LOOKS, subject, tried)
        ran = on_provider(file, provider, require=require, batches=_batches(subject))
        found += _seen(_depending(provider, ran), replace(subject, provider=ran.provider), tried)
    # The session says once more, of the whole model, what the graph has told of its nodes.
    double_told = any(item.rule == _DOUBLE for item in found)
    found += [item for item in ran.findings if not (double_told and item.rule == _DOUBLE)]
    found.sort(key=lambda item: item.id)
    return CheckReport(
        file,
        ran.provider,
        tuple(strictly(item) if strict else item for item in found if item.rule not in left_out),
        silent=tuple(rule.name for rule in catalogue() if rule.name in tried - {item.rule for item in found}),
        ignored=tuple(dict.fromkeys(item.rule for item in found if item.rule in left_out and item.told)),
        placements=ran.placements,
        required=require,
    )


def _seen(looks: Mapping[tuple[str, ...], Look], subject: Subject, tried: set[str]) -> list[Finding]:
    """What the rules find; their names are added to `tried`."""
    found: list[Finding] = []
    for rules, look in looks.items():
        tried.update(rules)
        found += _guarded(rules[0], lambda look=look: look(subject))  # type: ignore[misc]
    return found


def _depending(asked: str, ran: Ran) -> Mapping[tuple[str, ...], Look]:
    """The rules that depend on where the model runs, or may run."""
    if asked == "cpu":
        return _ON_MACHINE
    proven = ran.provider == "cuda" and bool(ran.placements)
    return {**_ON_MACHINE, **_ON_CUDA, **({} if proven else _FORECAST)}


def _story(model: ModelProto, found: list[Finding]) -> Story | None:
    """What the metadata says, None where it is damaged; what there is to say of it is added to `found`."""
    try:
        story = Story.from_metadata({entry.key: entry.value for entry in model.metadata_props})
    except ConfigError as error:
        found.append(failed(_METADATA, "", str(error)))
        return None
    found.append(static.metadata(story, model))
    return story


def _guarded(rule: str, findings: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """A rule's findings; a graph too damaged to walk (names that are not text) fails it."""
    try:
        return list(dict.fromkeys(findings()))
    except (*ONNX_ERRORS, RecursionError) as error:
        # Also where what the rule finds would be no more than a warning.
        return [replace(failed(rule, "", f"the graph is damaged: {words(error)}"), severity="error")]


def _batches(subject: Subject) -> Mapping[str, str]:
    try:
        return subject.graph.batches
    except (*ONNX_ERRORS, RecursionError):
        return {}  # a damaged graph, which the rules that walk it have told


def _require_provider(provider: str) -> None:
    if provider not in PROVIDERS:
        raise ProviderError(f'provider "{provider}" is unknown; it must be one of {", ".join(PROVIDERS)}')
    reason = cuda_unavailable() if provider == "cuda" else None
    if reason is not None:
        raise ProviderError(f"CUDA cannot be used: {reason}")


def _read(path: str | os.PathLike[str]) -> ModelProto:
    """The model without its external data."""
    found = readable_file(path, "an .onnx file")
    require_utf8(found)
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

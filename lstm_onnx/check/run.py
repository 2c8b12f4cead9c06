"""Every rule on one file, in turn.  It reads and opens the file: see `isolated` for who calls it in a child."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from ..atomic_io import readable_file, require_utf8
from ..errors import ConfigError, FileError, ModelError, ProviderError
from ..isolation.stages import share, stage
from ..metadata import Metadata
from ..runtime.providers import PROVIDERS, cuda_unavailable
from . import bombs
from .context import Subject
from .graph import ONNX_ERRORS
from .report import REEXPORT, Examined, Finding, failed, skipped, words
from .rules import files, lengths, operators, providers, sizes, streams, weights
from .rules import structure as static
from .session import Ran, on_provider, unopened, used

Look = Callable[[Subject], Iterable[Finding]]
_BOMB, _METADATA, _DOUBLE = "resource-bomb", "metadata", "float64-on-cpu"
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


def examine(path: str, provider: str, require: bool, ignore: Sequence[str]) -> dict[str, Any]:
    """All that the rules find in a file, JSON-ready; what is known on the way is shared with a parent process.

    Args:
        path, provider, require: as in `check`.
        ignore: names of rules; a bomb that is ignored is opened.

    Returns:
        Of an `Examined` its fields.

    Raises:
        FileError, ModelError, ProviderError, MissingDependencyError: see `check`.
    """
    stage("reading the file")
    _require_provider(provider)
    file, model = os.fspath(path), _read(path)
    share(Examined(used(provider)).to_dict())
    stage("shape inference")
    found = _guarded(_BOMB, lambda: bombs.resource_bomb(file, model))
    tried = {_BOMB}
    share(Examined(used(provider), tuple(found), (_BOMB,)).to_dict())
    if found and _BOMB not in ignore:
        why = f"not tried: the file is not safe to open ({found[0].rule})"
        ran = unopened(provider, why)
        found += [skipped(rule, why) for rule in ("valid-onnx", "dynamic-axes")]
    else:
        metadata = _story(model, found)
        share(Examined(used(provider), tuple(found[-1:])).to_dict())
        subject = Subject.of(file, model, metadata, provider)
        found += _seen(_LOOKS, subject, tried)
        ran = on_provider(file, provider, require=require, batches=_batches(subject))
        stage("the rules on providers")
        found += _seen(_depending(provider, ran), replace(subject, provider=ran.provider), tried)
    # The session says once more, of the whole model, what the graph has told of its nodes.
    double_told = any(item.rule == _DOUBLE for item in found)
    found += [item for item in ran.findings if not (double_told and item.rule == _DOUBLE)]
    return Examined(ran.provider, tuple(found), (*tried, "crashing-node"), ran.placements).to_dict()


def _seen(looks: Mapping[tuple[str, ...], Look], subject: Subject, tried: set[str]) -> list[Finding]:
    """What the rules find; their names are added to `tried`."""
    found: list[Finding] = []
    for rules, look in looks.items():
        stage("onnx's checker" if look is static.valid_onnx else f"the rule {rules[0]}")
        told = _guarded(rules[0], lambda look=look: look(subject))  # type: ignore[misc]
        tried.update(rules)
        found += told
        share(Examined(subject.provider, tuple(told), rules).to_dict())
    return found


def _depending(asked: str, ran: Ran) -> Mapping[tuple[str, ...], Look]:
    """The rules that depend on where the model runs, or may run."""
    if asked == "cpu":
        return _ON_MACHINE
    proven = ran.provider == "cuda" and bool(ran.placements)
    return {**_ON_MACHINE, **_ON_CUDA, **({} if proven else _FORECAST)}


def _story(model: ModelProto, found: list[Finding]) -> Metadata | None:
    """What the metadata says, None where it is damaged; what there is to say of it is added to `found`."""
    try:
        metadata = Metadata.from_metadata({entry.key: entry.value for entry in model.metadata_props})
    except ConfigError as error:
        found.append(failed(_METADATA, "", str(error)))
        return None
    found.append(static.metadata(metadata, model))
    return metadata


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

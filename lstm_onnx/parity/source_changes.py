"""Finds differences between a source and a file, as after a change of the source since the export."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import ConfigError
from ..exporter.sources.source import LSTMSource, ModuleSource, Source
from ..generation_spec import Generation
from ..input_spec import InputSpec
from ..runtime import Model
from ..spec import ExportOptions
from ..symbolic_dims import renamed
from .converted.drift import precision_of
from .modules.inputs import forward_outputs


def inputs_with_axes_of(source: ModuleSource, model: Model) -> tuple[tuple[InputSpec, ...], list[str]]:
    """The inputs that a source describes, with the file's names of axes, and a note for each name that differs.

    Raises:
        ConfigError: the source and the file do not agree on which axes have the same size.
    """
    names = _axis_names(source, model)
    notes = [
        f"the axis {theirs} of the file is named {own} in {source.name}"
        for own, theirs in names.items()
        if own != theirs
    ]
    return tuple(_with_axes(spec, names) for spec in source.inputs) if notes else source.inputs, notes


def _axis_names(source: ModuleSource, model: Model) -> dict[str, str]:
    """The file's name for each axis that the source names."""
    in_file = {spec.name: spec.shape for spec in model.metadata.inputs}
    names: dict[str, str] = {}
    for spec in source.inputs:
        shape = in_file.get(spec.name, ())
        for own, theirs in zip(spec.shape, shape, strict=False):
            if not (_is_axis(own) and _is_axis(theirs)):
                continue
            if names.setdefault(str(own), str(theirs)) != theirs or list(names.values()).count(str(theirs)) > 1:
                raise ConfigError(
                    f"{source.name}: {spec.name} has the axes {_shown(spec.shape)}, but in {model.path} "
                    f"{_shown(shape)}: they do not agree on which axes of the inputs have the same size",
                    hint="export the file again",
                )
    return names


def _is_axis(dim: int | str) -> bool:
    return isinstance(dim, str) and dim.isidentifier()


def _shown(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _with_axes(spec: InputSpec, names: Mapping[str, str]) -> InputSpec:
    shape = tuple(renamed(dim, names) if isinstance(dim, str) else dim for dim in spec.shape)
    high = renamed(spec.high, names) if isinstance(spec.high, str) else spec.high
    return replace(spec, shape=shape, high=high)


def interface_problems(source: Source, model: Model) -> list[str]:
    """The inputs, outputs and options of generation that a source has but a file from lstm-onnx does not."""
    if not model.metadata.versions:
        return []
    if isinstance(source, LSTMSource):
        missing = source.options.lengths and "lengths" not in model.inputs
        return [f"{source.name} asks for the input lengths, but the file has none"] if missing else []
    if model.metadata.generation is not None:  # its outputs are not those of the step
        return _other_generation(source, model.metadata.generation.generation)
    asked, names = source.options.output_names, forward_outputs(model)
    if asked is None or set(asked) == set(names):
        return []
    return [f"{source.name} names the outputs {', '.join(asked)}, but the file {', '.join(names)}"]


def _other_generation(source: ModuleSource, theirs: Generation) -> list[str]:
    own = source.options.generation
    if own is None:
        return []
    names = ["input", "output", "top_k", "stop_token", "stop_output", "padding"]
    names += ["choose"] if own.choose is not None else []
    names += ["stop_above"] if own.stop_output is not None else []
    different = ((name, getattr(own, name), getattr(theirs, name)) for name in names)
    return [
        f"{source.name} generates with {name} {asked}, but the file with {found}"
        for name, asked, found in different
        if asked != found
    ]


def renamed_outputs(source: Any, own: Sequence[str], model: Model) -> list[str]:
    """A note on outputs whose names in the module, such as by a dict, differ from those in the file.

    Args:
        source: the nn.Module, or a loaded source, which may have the file's names.
        own: the module's names.
        model: the file, in which no output has the module's name for another output.
    """
    names = forward_outputs(model)
    asked = source.options.output_names if isinstance(source, ModuleSource) else None
    pairs = [(one, theirs) for one, theirs in zip(own, names, strict=True) if one.split(".")[0] != "output"]
    if asked is not None or set(own) == set(names) or all(one == theirs for one, theirs in pairs):
        return []
    changed = ", ".join(f"{one} is {theirs}" for one, theirs in pairs if one != theirs)
    return [f"the file's names of outputs differ from the module's, so they were compared in order: {changed}"]


def changed_options(source: Source, model: Model) -> list[str]:
    """A note on the options that a source sets but with which a file from lstm-onnx was not exported, if any."""
    differing = list(_differing(source, model)) if model.metadata.options is not None else []
    if not differing:
        return []
    return [f"{source.name} has {' and '.join(differing)}, but the file was exported with other options"]


def _differing(source: Source, model: Model) -> Iterator[str]:
    """Each such option that is not at its default, as written in a .toml."""
    exported = model.metadata.options or ExportOptions()
    options = source.options if isinstance(source, LSTMSource) else source.options.export
    for name in ("opset", "projection", "target"):
        value = getattr(options, name)
        if value not in (getattr(ExportOptions, name), getattr(exported, name)):
            yield f"{name} = {json.dumps(value)}"
    made = model.metadata.quantization
    if options.precision not in (None, _precision(model)):
        yield f"precision = {json.dumps(options.precision)}"
    elif options.precision == "int8" and made is not None:
        for name in ("layers", "kernel"):
            if getattr(options, name) != getattr(made, name):
                yield f"{name} = {json.dumps(getattr(options, name))}"
    if isinstance(source, ModuleSource):
        yield from _differing_in_module(source, model)


def _differing_in_module(source: ModuleSource, model: Model) -> Iterator[str]:
    options, metadata = source.options, model.metadata
    if options.states == "explicit" and not metadata.states:
        yield 'states = "explicit"'
    if options.chunk not in (None, metadata.streaming_or_default.chunk):
        yield f"chunk = {options.chunk}"
    if options.generation is not None and metadata.generation is None:
        yield "a table [generate]"
    names = _axis_names(source, model)
    for axis, (low, high) in source.limits.items():
        least, most = metadata.axis_limits.get(names.get(axis, axis), (1, None))
        if low < least or (most is not None and (high is None or high > most)):
            yield f"limits = {{ {axis} = {[low] if high is None else [low, high]} }}"


def _precision(model: Model) -> str:
    """The precision of the file's weights, as in `export`."""
    dtypes = [info.dtype.name for info in (*model.inputs.values(), *model.outputs.values()) if info.dtype is not None]
    return precision_of(model) or next((name for name in dtypes if name.startswith("float")), "")

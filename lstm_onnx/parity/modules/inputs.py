"""The inputs that a module is verified on: their specs, and arguments that its forward accepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ...errors import ConfigError, ExportError
from ...exporter.call.arguments import Arguments, bind_arguments
from ...exporter.call.metadata import call_from_json
from ...exporter.call.structure import Call
from ...exporter.functional.example_inputs import find_example_inputs
from ...input_spec import InputSpec, axes
from ...runtime import Model
from ..own_states import file_only

BATCH, TIME = 2, 3
"""Sizes that distinguish the axes of batch and of time."""


def find_arguments(
    model: Model, module: nn.Module, inputs: Sequence[InputSpec], example_inputs: Any, seed: int
) -> tuple[tuple[InputSpec, ...], Arguments]:
    """The specs of the inputs, and arguments that the module's forward accepts.

    Raises:
        ConfigError: neither the file nor the caller describes the inputs.
    """
    metadata = model.metadata
    if example_inputs is not None:
        found = bind_arguments(module, example_inputs, None)
        specs = tuple(metadata.inputs) or tuple(_with_axis_names(spec, model) for spec in found.specs())
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        return specs, replace(found, tensors={name: tensor.to(device) for name, tensor in found.tensors.items()})
    specs = _with_lengths(inputs, metadata.inputs) or tuple(metadata.inputs)
    if not specs:
        raise ConfigError(f"{model.path}: its metadata does not describe its inputs; pass example_inputs")
    call: Call | None = None
    replaced: tuple[str, ...] = ()
    if metadata.call is not None and {spec.name for spec in specs} == {spec.name for spec in metadata.inputs}:
        try:
            call, replaced = call_from_json(metadata.call, module)
        except ConfigError as error:
            raise ConfigError(f"{model.path}: {error.message}", hint=error.hint) from error
    try:
        return specs, find_example_inputs(module, specs, seed=seed, limits=metadata.axis_limits, call=call)
    except ExportError as error:
        missing = f"; the class {', '.join(replaced)} was not found in the module's code" if replaced else ""
        names = ", ".join(spec.name for spec in specs)
        raise ExportError(
            f"{error} (with the inputs that the metadata of {model.path} describes, {names}{missing}; "
            "is it this module's file? if so, pass example_inputs)"
        ) from error


def _with_lengths(inputs: Sequence[InputSpec], known: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """`inputs` with the ranges of lengths that only the exporter knows, from 1 to an axis: without, they are 0 or 1.

    No other range of a file is used, since a narrow one could hide what is wrong with it.
    """
    axes = {dim for spec in inputs for dim in spec.shape}
    lengths = {spec.name: spec for spec in known if spec.low == 1 and isinstance(spec.high, str) and spec.high in axes}
    return tuple(
        replace(spec, low=1, high=lengths[spec.name].high)
        if spec.low is None and spec.name in lengths and lengths[spec.name].dtype == spec.dtype
        else spec
        for spec in inputs
    )


def _with_axis_names(spec: InputSpec, model: Model) -> InputSpec:
    """An example's input with the axis names of a file that is not from lstm-onnx."""
    info = model.inputs.get(spec.name)
    if info is None or len(info.shape) != len(spec.shape):
        return spec
    dims = zip(info.shape, spec.shape, strict=True)
    shape = tuple(theirs if isinstance(theirs, str) and theirs.isidentifier() else own for theirs, own in dims)
    return replace(spec, shape=shape)


def require_same_inputs(model: Model, found: Arguments) -> None:
    """Check that the file and the module's forward have the same inputs.

    Raises:
        ConfigError: they differ.
    """
    forward = set(found.tensors)
    file = set(model.inputs) - (set(model.metadata.states) - forward) - file_only(model.metadata)
    if forward != file:
        raise ConfigError(
            f"{model.path}: takes {', '.join(sorted(file))}, and the module {', '.join(sorted(forward))}; "
            "is the file this module's?"
        )


def with_zero_and_one(
    specs: tuple[InputSpec, ...], runs: Callable[[tuple[InputSpec, ...]], bool]
) -> tuple[InputSpec, ...]:
    """`specs` with integers that were all 0 or all 1 in the example drawn from both, where the module runs on that.

    In a sequence of equal tokens the direction in which it is read has no effect.
    """
    both = tuple(
        replace(spec, low=0, high=1) if spec.low == spec.high and spec.low in (0, 1) and axes([spec]) else spec
        for spec in specs
    )
    return both if both == specs or runs(both) else specs


def forward_outputs(model: Model) -> tuple[str, ...]:
    """The outputs that forward returns, including states that it returns itself."""
    own = {spec.name for spec in model.metadata.inputs}
    added = {after for name, after in model.metadata.states.items() if name not in own}
    return tuple(name for name in model.outputs if name not in added)

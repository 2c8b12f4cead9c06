"""The metadata of an exported module: its inputs, its pairs of states, and what identifies its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from onnx import helper

from ..errors import ExportError
from ..input_spec import InputSpec
from ..metadata import Metadata, Origin
from ..onnxgraph.nodes import Walk
from ..onnxgraph.write import digest
from ..symbolic_dims import names_in
from .call.arguments import Arguments
from .call.metadata import call_to_json
from .functional.attribute_states import state_name
from .functional.functional_module import FunctionalModule
from .kept_digest import kept_digest
from .lowering.explicit_states import ExposedStates, one_if_equal
from .lowering.lower import OpaqueCall
from .lowering.rename import Dims, TracedGraph
from .module_options import ModuleOptions
from .write import VERSIONS

_REORDERING = ("Cast", "Identity", "Gather", "GatherND", "GatherElements", "TopK", "Reshape", "Squeeze", "Flatten")
"""Operators between an input of lengths and the recurrent operator: modules that sort their sequences themselves, by
index_select, indexing or gather, or take their lengths as a column.
"""
_ARITHMETIC = (
    *("Add", "Sub", "Mul", "Div", "Floor", "Ceil", "Round", "Neg", "Clip", "Max", "Min", "Mod"),
    *("Unsqueeze", "Concat"),
)
"""Others: modules that compute the lengths after a convolution or a pooling; a spare row beside chosen ones."""


def module_metadata(
    functional: FunctionalModule,
    graph: TracedGraph,
    calls: list[OpaqueCall],
    exposed: ExposedStates,
    carried: Mapping[str, str],
    options: ModuleOptions,
) -> Metadata:
    """The metadata of a traced module, before its trials.

    Args:
        functional: the module.
        graph: its graph, with opaque calls.
        calls: those.
        exposed: the states that ``states="explicit"`` made inputs and outputs.
        carried: the states that are arguments and results of the forward.
        options: how it is exported.
    """
    states = {**_attribute_states(functional, graph), **exposed.states}
    for name, after in carried.items():
        states.setdefault(name, after)
    initial = dict(exposed.initial)
    for attribute in functional.attribute_states:
        for name, tensor in zip(attribute.input_names, attribute.initial or (), strict=False):
            if name in states and bool(tensor.any()):
                initial[name] = one_if_equal(tensor.detach().cpu().numpy(), graph.dims[name])
    return Metadata(
        options=options.export,
        states=states,
        versions={**VERSIONS, "torch": torch.__version__.split("+")[0]},
        digest=parameter_digest(functional),
        inputs=_input_specs(functional.arguments, graph, calls, options.input_specs),
        initial=initial,
        origins={name: Origin(*source) for name, source in exposed.sources.items()},
        loop_states=tuple(exposed.loop_states),
        call=call_to_json(functional.arguments.call),
    )


def parameter_digest(functional: FunctionalModule) -> str:
    """SHA-256 of a module's parameters and buffers, without those in which it keeps state."""
    states = {state_name(attribute.key) for attribute in functional.attribute_states}
    inner = functional.stateful.inner
    return kept_digest(inner, state_digest({k: v for k, v in inner.state_dict().items() if k not in states}))


def state_digest(state: Mapping[str, Any]) -> str:
    """SHA-256 of the tensors in a state dict."""
    return digest(
        {
            name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().to_dense().numpy()
            for name, tensor in state.items()
            if isinstance(tensor, torch.Tensor)
        }
    )


def _attribute_states(functional: FunctionalModule, graph: TracedGraph) -> dict[str, str]:
    """The states that the module keeps in attributes and reads."""
    states = {name: after for name, after in functional.states.items() if name in graph.inputs}
    for name, after in states.items():
        graph.dims[name] = _dims_of_successor(graph.dims[name], graph.dims[after])
    return states


def _dims_of_successor(dims: Dims, after: Dims) -> Dims:
    """A state's axes, dynamic only where those of its next value are: a cache of two steps has always two."""
    if len(dims) != len(after):
        return dims
    return tuple(end if isinstance(end, int) else dim for dim, end in zip(dims, after, strict=True))


def _input_specs(
    arguments: Arguments, graph: TracedGraph, calls: list[OpaqueCall], replacements: tuple[InputSpec, ...] | None
) -> tuple[InputSpec, ...]:
    """The inputs with the axes' final names; the range of lengths is from 1 to their sequences' time axis."""
    lengths, indices = _length_axes(graph, calls), _cast_to_integers(graph)
    specs = []
    for spec in replacements or arguments.specs():
        dims = zip(graph.dims[spec.name], spec.shape, strict=True)
        named = replace(spec, shape=tuple(dim if dim != "" else size for dim, size in dims))
        if (replacements is None or spec.low is None) and spec.name in lengths:
            named = replace(named, **_length_range(named, arguments.tensors[spec.name], lengths[spec.name]))
        elif replacements is None and spec.name in indices:
            named = replace(named, **_whole_range(named, arguments.tensors[spec.name]))
        specs.append(named)
    return tuple(specs)


def _length_range(spec: InputSpec, example: torch.Tensor, axis: str) -> dict[str, Any]:
    """From 1, or 0 if the example has it, to the axis' size; of shares of it from the example's smallest to 1."""
    if np.dtype(spec.dtype).kind in "iu":
        if np.dtype(spec.dtype).itemsize == 1:
            most = np.iinfo(spec.dtype).max
            raise ExportError(f"{spec.name} holds lengths as {spec.dtype}, which counts to {most} steps; pass int64")
        return {"low": int(bool((example > 0).all())), "high": axis}
    least, largest = float(example.min()), float(example.max())
    return {"low": least, "high": 1.0} if np.dtype(spec.dtype).kind == "f" and 0 < least <= largest <= 1 else {}


def _whole_range(spec: InputSpec, example: torch.Tensor) -> dict[str, Any]:
    """That of an example of whole numbers, for floats that the module turns into integers, such as an index."""
    if spec.low is not None or not example.numel() or not bool((example == example.round()).all()):
        return {}
    return {"low": int(example.min()), "high": int(example.max()), "whole": True}


def _cast_to_integers(graph: TracedGraph) -> set[str]:
    """The float inputs that the graph turns into integers as they are."""
    casts = [node for node in graph.nodes.nodes if node.op_type == "Cast" and node.input[0] in graph.inputs]
    kinds = [(str(node.input[0]), graph.types[node.output[0]]) for node in casts]
    return {
        name
        for name, kind in kinds
        if helper.tensor_dtype_to_np_dtype(kind).kind in "iu"
        and helper.tensor_dtype_to_np_dtype(graph.types[name]).kind == "f"
    }


def _length_axes(graph: TracedGraph, calls: list[OpaqueCall]) -> dict[str, str]:
    """The inputs that are sequence lengths, each with the name of the input axis whose steps it counts.

    Lengths may be computed from an input, as after a convolution with a stride; the axis is the one from which the
    number of steps is computed.  Those that are shares of the steps are floats.
    """
    known = {dim for name in graph.inputs for dim in graph.dims[name] if isinstance(dim, str) and dim.isidentifier()}
    axes: dict[str, str] = {}
    for call in calls:
        value = _length_input(graph, call.value(3))
        dims = graph.dims.get(call.value(0), ())
        time = dims[1 if call.batch_first else 0] if dims else 1
        names = names_in(time) & known if isinstance(time, str) else set()
        if value is not None and len(names) == 1:
            axes.setdefault(value, next(iter(names)))
    return axes


def _length_input(graph: TracedGraph, lengths: str) -> str | None:
    """The only input from which lengths are computed, entry by entry; None where there is none.

    It is a row or a column, or all its axes are dynamic, as of the words' lengths in each sentence; of a table with a
    fixed number of columns others may be no lengths.
    """
    producers = graph.producers
    walk, found = Walk([lengths]), []
    for value in walk:
        if value in graph.inputs:
            dims = graph.dims[value]
            if sum(dim != 1 for dim in dims) == 1 or (dims and all(isinstance(dim, str) for dim in dims)):
                found.append(value)
        elif value in producers and producers[value].op_type in _REORDERING:
            walk.add(producers[value].input[:1])
        elif value in producers and producers[value].op_type in _ARITHMETIC:
            walk.add(producers[value].input)
    return found[0] if len(found) == 1 else None

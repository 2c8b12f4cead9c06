"""Adds the nodes that end a sequence, by a token or by an output of the step.

Sequences that have ended are still computed with the rest of their batch, but their results are replaced.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, TypeProto, helper

from ..generation_spec import Generation
from ..onnxgraph.builder import Nodes
from .choose import last_step
from .layout import Layout

DONE, NEXT_DONE = "generate/stop/done", "generate/stop/next_done"
"""The values that say which sequences had ended before a step, and which have after it."""
COUNT, NEXT_COUNT = "generate/stop/count", "generate/stop/next_count"
"""The values with the number of steps of each sequence, including the one that ended it."""
STOPS_AT = "generate/stop/token/"
"""The prefix of the initializers that hold tokens that end a sequence."""
GO_ON = "generate/step/go_on"


def stop_constant(token: int) -> str:
    """The name of the initializer for a token that ends a sequence."""
    return f"{STOPS_AT}{token}"


def done(nodes: Nodes, rank: int, batch: int) -> str:
    """Which sequences had ended before this step, to be broadcast to a value of this rank and batch axis."""
    if rank == 1:
        return DONE
    name = f"{DONE}/{rank}_{batch}"
    if name not in {node.name for node in nodes.nodes}:
        axes = nodes.integers(*(axis for axis in range(rank) if axis != batch))
        nodes.one("Unsqueeze", DONE, axes, name=name)
    return name


def padded(
    nodes: Nodes, generation: Generation, value: str, place: tuple[int, int], dtype: np.dtype[np.generic]
) -> str:
    """A value for sequences that continue, with padding for those that have ended.

    Args:
        nodes: the nodes of the loop's body.
        generation: the settings, which have the padding.
        value: the value that a step generates.
        place: its rank and its batch axis.
        dtype: its dtype.
    """
    padding = nodes.constant("generate/stop/padding", np.array(generation.padding, dtype))
    return nodes.one("Where", done(nodes, *place), padding, value, name="generate/stop/chosen")


def stop_flag(nodes: Nodes, kind: TypeProto, layout: Layout) -> str:
    """Whether the step's stop output ends each sequence, bool ``(batch,)``, by the last time step if it has several.

    Args:
        nodes: of the loop's body.
        kind: the output's type.
        layout: the step's axes.
    """
    generation, time = layout.step.generation, layout.step.time_axis
    value = str(generation.stop_output)
    dims = [dim.dim_param or dim.dim_value for dim in kind.tensor_type.shape.dim]
    if time is not None and isinstance(layout.fed.shape[time], str) and layout.fed.shape[time] in dims:
        value = last_step(nodes, value, dims.index(str(layout.fed.shape[time])), "generate/stop/last")
    row = nodes.one("Reshape", value, nodes.integers(-1), name="generate/stop/flag")
    element = kind.tensor_type.elem_type
    if element == TensorProto.BOOL:
        return row
    limit = np.array(generation.stop_above, helper.tensor_dtype_to_np_dtype(element))
    return nodes.one("Greater", row, nodes.constant("generate/stop/above", limit), name="generate/stop/is_above")


def add_stop(nodes: Nodes, tokens: Sequence[int], value: str, flag: str) -> None:
    """Count the step for each sequence that continues; compute which ones end with it, and whether any is left.

    Args:
        nodes: of the loop's body.
        tokens: what ends a sequence.
        value: the tokens of this step, ``(batch, 1)``, where there are `tokens`.
        flag: what else ends one, bool ``(batch,)``; "" where nothing does.
    """
    going = nodes.one("Not", DONE, name="generate/stop/going")
    one = nodes.one("Cast", going, name="generate/stop/one", to=TensorProto.INT64)
    nodes.one("Add", COUNT, one, name=NEXT_COUNT)
    ended = nodes.one("Identity", DONE, name="generate/stop/before")
    flags = [flag] if flag else []
    for number in tokens:
        wanted = nodes.constant(stop_constant(number), np.array([[number]], np.int64))
        equal = nodes.one("Equal", value, wanted, name=f"generate/stop/is/{number}")
        flags.append(nodes.one("Reshape", equal, nodes.integers(-1), name=f"generate/stop/row/{number}"))
    for index, each in enumerate(flags):
        ended = nodes.one("Or", ended, each, name=f"generate/stop/or/{index}")
    nodes.one("Identity", ended, name=NEXT_DONE)
    left = nodes.one("Not", ended, name="generate/stop/left")
    number_left = nodes.one("Cast", left, name="generate/stop/left_number", to=TensorProto.INT32)
    most = nodes.one("ReduceMax", number_left, name="generate/stop/any_left", keepdims=0)
    nodes.one("Cast", most, name=GO_ON, to=TensorProto.BOOL)

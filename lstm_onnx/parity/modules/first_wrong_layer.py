"""The first recurrent layer of a module's file that is wrong.

The final states of every layer with a name from lstm-onnx become outputs of a copy of the file, and are compared with
those of the module's layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import helper

from ...errors import InputError, LSTMOnnxError, RunError
from ...exporter.opaque.operators import RecurrentModule
from ...runtime import Model
from ...spec import LSTMSpec
from ..criterion import compare
from ..expected import Arrays
from ..mutants import Edit, folder_of, opened, read_graph

_NAME = re.compile(r"(?:(?P<path>.+)/)?l(?P<layer>\d+)/(?:LSTM|GRU|RNN|Scan)")
_CALL = re.compile(r"(?:^|/)call(?P<number>\d+)$")
_DIRECTIONS = ("forward", "reverse")


@dataclass(frozen=True)
class Place:
    """A layer of a recurrent module: its path, layer and, if bidirectional, direction."""

    path: str
    layer: int
    direction: str | None


@dataclass(frozen=True)
class _Exposed:
    """A final state of the file: its module, call, layer and state, and the names of its outputs."""

    path: str
    call: int
    layer: int
    state: int
    names: tuple[str, ...]


def first_wrong_layer(
    model: Model,
    feeds: Arrays,
    native: Mapping[str, RecurrentModule],
    float64: Mapping[str, RecurrentModule],
    dtype: str,
) -> Place | None:
    """The first layer, in the file's order, whose final states do not pass.

    Args:
        model: the file, open.
        feeds: its inputs.
        native: the recurrent modules by path, after a run on the same inputs in the native precision.
        float64: the same in float64.
        dtype: the model's.

    Returns:
        None where all are right, or the file's layers are not found by their names.
    """
    graph = read_graph(model)
    exposed = list(_expose(Edit(graph, folder_of(model)), float64, dtype))
    if not exposed:
        return None
    try:
        actual = opened(model, graph).run(feeds)
    except (LSTMOnnxError, InputError, RunError):
        return None
    for item in exposed:
        spec = float64[item.path].spec
        states = _rows(actual, item.names, spec.num_directions)
        pair = [sites[item.path].calls[item.call].final[item.state] for sites in (native, float64)]
        torch_states = [tensor.detach().cpu().double().numpy() for tensor in pair]
        for direction in range(spec.num_directions):
            row = item.layer * spec.num_directions + direction
            scale = max(1.0, float(np.abs(torch_states[1]).max(initial=0.0)))
            one, reference = (array[row] for array in torch_states)
            result = compare("state", states[direction], one, reference, dtype=dtype, scale=scale)
            if not result.passed:
                return Place(item.path, item.layer, _DIRECTIONS[direction] if spec.num_directions == 2 else None)
    return None


def _rows(actual: Arrays, names: Sequence[str], directions: int) -> list[np.ndarray]:
    """``(batch, features)`` for each direction, from one output with both or one output each."""
    if len(names) == directions and directions > 1:
        return [actual[name][0] for name in names]
    return list(actual[names[0]])


def _expose(edit: Edit, sites: Mapping[str, RecurrentModule], dtype: str) -> Iterator[_Exposed]:
    """Add the final states to the graph's outputs, layer by layer, c before h."""
    for operator in edit.layers:
        found = _place(operator.node.name, sites)
        if found is None:
            continue
        path, call, layer = found
        spec = sites[path].spec
        if call >= len(sites[path].calls) or operator.hidden_size != spec.hidden_size:
            continue
        states = ("h", "c") if spec.has_cell else ("h",)
        folded = isinstance(spec, LSTMSpec) and spec.proj_size > 0 and not operator.scan
        for state in reversed(states):
            if folded and state == "h":
                continue  # the operator's h is before the projection
            names = tuple(edit.named_final(operator, state))
            for name in names:
                if not edit.is_output(name):
                    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
                    edit.graph.output.append(helper.make_tensor_value_info(name, kind, None))
            yield _Exposed(path, call, layer, states.index(state), names)


def _place(name: str, sites: Mapping[str, RecurrentModule]) -> tuple[str, int, int] | None:
    """Module path, index of the call, and layer of a node with a name from the exporter."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    path, call = match["path"] or "", 0
    repeated = _CALL.search(path)
    if repeated and path.replace("/", ".") not in sites:
        path, call = path[: repeated.start()], int(repeated["number"]) - 1
    own = next((each for each in sites if each.replace(".", "/") == path), None)
    return None if own is None else (own, call, int(match["layer"]))

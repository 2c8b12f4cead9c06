"""Converts a single LSTM, GRU or RNN operator of any file to an nn.LSTM, nn.GRU or nn.RNN, or says why it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto
from torch import nn

from ..errors import ModelError
from ..exporter.kept_digest import keep_folds
from ..exporter.weights import GATE_ORDER, Array, LayerWeights
from ..onnxgraph import node_name
from ..onnxgraph.recurrent import (
    DEFAULT_ACTIVATIONS,
    GATES,
    INITIAL_C,
    INITIAL_H,
    PEEPHOLES,
    SEQUENCE_LENS,
    activations_of,
    input_of,
)
from ..spec import DTYPES, GRUSpec, LSTMSpec, RecurrentSpec, RNNSpec, direction_suffixes
from .graph import FileGraph, attribute_values, new_layer, torch_array
from .program import RecurrentStep


def operator_layer(graph: FileGraph, node: NodeProto) -> tuple[RecurrentSpec, dict[str, Array], RecurrentStep]:
    """The sizes and the state dict of an operator's module, and its call, whose path is "".

    Raises:
        ModelError: torch's modules cannot compute the same; the message says why.
    """
    attributes = attribute_values(node)
    problems = list(_problems(graph, node, attributes))
    if problems:
        raise ModelError(f"{node_name(node)} ({node.op_type}) has no equivalent in PyTorch: {'; '.join(problems)}")
    W, R = (graph.arrays[input_of(node, index)] for index in (1, 2))  # noqa: N806
    B = graph.arrays[input_of(node, 3)] if input_of(node, 3) else None  # noqa: N806
    direction = attributes.get("direction", "forward")
    sizes: dict[str, Any] = {
        "input_size": W.shape[2],
        "hidden_size": R.shape[2],
        "bias": B is not None,
        "bidirectional": direction == "bidirectional",
        "dtype": str(W.dtype),
    }
    spec = spec_of(node, str(node.op_type), sizes)
    step = RecurrentStep(
        "",
        input_of(node, 0),
        input_of(node, INITIAL_H),
        input_of(node, INITIAL_C) if node.op_type == "LSTM" else "",
        input_of(node, SEQUENCE_LENS),
        tuple([*node.output, "", "", ""][:3]),
        operator=True,
        reverse=direction == "reverse",
        layout=attributes.get("layout", 0),
    )
    return spec, state_of_layers(spec, [LayerWeights(W, R, B, None)]), step


def spec_of(node: NodeProto, op_type: str, sizes: dict[str, Any], *, proj_size: int = 0) -> RecurrentSpec:
    """The arguments of the nn.LSTM, nn.GRU or nn.RNN that a node computes; `sizes` are those common to all three."""
    if op_type == "RNN":
        return RNNSpec(**sizes, nonlinearity=(activations_of(node) or ["tanh"])[0].lower())
    return GRUSpec(**sizes) if op_type == "GRU" else LSTMSpec(**sizes, proj_size=proj_size)


def _problems(graph: FileGraph, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    computed = [
        kind for index, kind in ((1, "W"), (2, "R"), (3, "B")) if input_of(node, index) not in (*graph.arrays, "")
    ]
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    if computed:
        yield f"its {', '.join(computed)} {'are' if len(computed) > 1 else 'is'} computed, not stored in the file"
    elif str(graph.arrays[input_of(node, 1)].dtype) not in DTYPES:
        yield f"its weights are {graph.arrays[input_of(node, 1)].dtype}"
    else:
        shapes = [graph.arrays[input_of(node, index)].shape for index in (1, 2, 3) if input_of(node, index)]
        hidden = int(attributes.get("hidden_size") or (shapes[1] or (0,))[-1])
        rows = GATES[str(node.op_type)] * hidden
        fitting = [(directions, rows, (shapes[0] or (0,))[-1]), (directions, rows, hidden), (directions, 2 * rows)]
        if shapes != fitting[: len(shapes)]:
            sizes = ", ".join(map(str, shapes))
            yield f"its weights have the shapes {sizes}, and not {', '.join(map(str, fitting[: len(shapes)]))}"
    wanted = DEFAULT_ACTIVATIONS[str(node.op_type)]
    given = [value.lower() for value in activations_of(node)]
    relu = node.op_type == "RNN" and given == ["relu"] * directions
    if given and not relu and tuple(given) != wanted * directions:
        yield f"its activations are {', '.join(given)}, but torch's are {', '.join(wanted)}"
    if attributes.get("clip"):
        yield f"it clips at {attributes['clip']:g}"
    if attributes.get("input_forget"):
        yield "its input and forget gates are coupled (input_forget)"
    if node.op_type == "LSTM" and (peepholes := input_of(node, PEEPHOLES)):
        stored = graph.arrays.get(peepholes)
        if stored is None or np.any(stored):
            yield "it has peepholes"
    if node.op_type == "GRU" and not attributes.get("linear_before_reset"):
        yield "its reset gate acts on h before the product with R (linear_before_reset = 0), but torch's acts after it"


def state_of_layers(spec: RecurrentSpec, layers: Sequence[LayerWeights]) -> dict[str, Array]:
    """The state dict of an nn.LSTM, nn.GRU or nn.RNN: the inverse of `exporter.weights.layer_weights`."""
    order = GATE_ORDER[spec.op_type]

    def in_torch_order(rows: Array) -> Array:
        gates = np.split(rows, spec.gates)
        return np.concatenate([gates[order.index(gate)] for gate in range(spec.gates)])

    state: dict[str, Array] = {}
    for number, layer in enumerate(layers):
        for direction, suffix in enumerate(direction_suffixes(spec.bidirectional)):
            at = f"l{number}{suffix}"
            state[f"weight_ih_{at}"] = in_torch_order(layer.W[direction])
            state[f"weight_hh_{at}"] = in_torch_order(layer.R[direction])
            if layer.B is not None:
                bias_ih, bias_hh = np.split(layer.B[direction], 2)
                state[f"bias_ih_{at}"], state[f"bias_hh_{at}"] = in_torch_order(bias_ih), in_torch_order(bias_hh)
            if layer.W_hr is not None:
                state[f"weight_hr_{at}"] = layer.W_hr[direction]
    return state


def recurrent_module(spec: RecurrentSpec, state: Mapping[str, Array], folds: Sequence[Array] = ()) -> nn.Module:
    """An nn.LSTM, nn.GRU or nn.RNN in eval mode; the caller's random state is left as it was.

    Args:
        spec: its sizes.
        state: its parameters.
        folds: the stored products of a file with folded projections (see `kept_digest.keep_folds`).
    """
    kinds: Mapping[type[RecurrentSpec], type[nn.Module]] = {LSTMSpec: nn.LSTM, GRUSpec: nn.GRU, RNNSpec: nn.RNN}
    arguments: dict[str, Any] = {name: getattr(spec, name) for name in spec.__dataclass_fields__}
    module = new_layer(kinds[type(spec)], **arguments)
    module.load_state_dict({name: torch_array(array) for name, array in state.items()})
    keep_folds(module, state, folds)
    return module.eval()

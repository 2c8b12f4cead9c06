"""A single LSTM, GRU or RNN operator of any file as an nn.LSTM, nn.GRU or nn.RNN; or what torch has no module for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import NodeProto

from ..errors import ModelError
from ..exporter.weights import Array, LayerWeights
from ..onnxgraph.recurrent import DEFAULT_ACTIVATIONS, INITIAL_C, INITIAL_H, PEEPHOLES, SEQUENCE_LENS, input_of
from ..spec import DTYPES, GRUSpec, LSTMSpec, RecurrentSpec, RNNSpec
from .graph import FileGraph, attribute_values
from .program import RecurrentStep
from .recurrent_weights import state_of_layers


def operator_layer(graph: FileGraph, node: NodeProto) -> tuple[RecurrentSpec, dict[str, Array], RecurrentStep]:
    """The sizes and the state dict of an operator's module, and its call, whose path is "".

    Raises:
        ModelError: torch's modules compute something else; the message says what.
    """
    name = str(node.name) or str(next(iter(node.output), ""))
    attributes = attribute_values(node)
    problems = list(_problems(graph, node, attributes))
    if problems:
        raise ModelError(f"{name} ({node.op_type}) has no form in PyTorch: {'; '.join(problems)}")
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
    spec: RecurrentSpec
    if node.op_type == "RNN":
        spec = RNNSpec(**sizes, nonlinearity=attributes.get("activations", ["tanh"])[0].lower())
    else:
        spec = LSTMSpec(**sizes) if node.op_type == "LSTM" else GRUSpec(**sizes)
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


def _problems(graph: FileGraph, node: NodeProto, attributes: dict[str, Any]) -> Iterator[str]:
    computed = [
        kind for index, kind in ((1, "W"), (2, "R"), (3, "B")) if input_of(node, index) not in (*graph.arrays, "")
    ]
    if computed:
        yield f"its {', '.join(computed)} {'are' if len(computed) > 1 else 'is'} computed, and not stored in the file"
    elif str(graph.arrays[input_of(node, 1)].dtype) not in DTYPES:
        yield f"its weights are {graph.arrays[input_of(node, 1)].dtype}"
    wanted = DEFAULT_ACTIVATIONS[str(node.op_type)]
    given = [value.lower() for value in attributes.get("activations", [])]
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    relu = node.op_type == "RNN" and given == ["relu"] * directions
    if given and not relu and tuple(given) != wanted * directions:
        yield f"its activations are {', '.join(given)}, and torch's are {', '.join(wanted)}"
    if attributes.get("clip"):
        yield f"it clips at {attributes['clip']:g}"
    if attributes.get("input_forget"):
        yield "its input and forget gates are coupled (input_forget)"
    if node.op_type == "LSTM" and (peepholes := input_of(node, PEEPHOLES)):
        stored = graph.arrays.get(peepholes)
        if stored is None or np.any(stored):
            yield "it has peepholes"
    if node.op_type == "GRU" and not attributes.get("linear_before_reset"):
        yield "its reset gate acts on h before the product with R (linear_before_reset = 0), and torch's after it"

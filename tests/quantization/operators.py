"""Models of one recurrent operator, with every kind of input that it may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True)
class Case:
    """An operator: its sizes, what it has beside X, W and R, and how large its weights are."""

    op_type: str
    directions: int = 1
    inputs: int = 24
    hidden: int = 20
    lengths: bool = False
    states: bool = True
    bias: bool = True
    reverse: bool = False
    reset_after: bool = True
    activations: tuple[str, ...] = ()
    gain: float = 1.0
    peepholes: bool = False

    def model(self, seed: int = 0, **attributes: Any) -> onnx.ModelProto:
        rng = np.random.default_rng(seed)
        gates, size = GATES[self.op_type], self.hidden

        def drawn(*shape: int) -> np.ndarray:
            return (rng.uniform(-1, 1, shape) * self.gain / np.sqrt(size)).astype(np.float32)

        weights = {
            "W": drawn(self.directions, gates * size, self.inputs),
            "R": drawn(self.directions, gates * size, size),
            "B": drawn(self.directions, 2 * gates * size),
        }
        cell = self.op_type == "LSTM"
        names = ["x", "W", "R", "B" if self.bias else "", "lengths" if self.lengths else ""]
        names += ["h0", *(["c0"] if cell else [])] if self.states else []
        if self.peepholes:
            weights["P"] = drawn(self.directions, 3 * size)
            names += [""] * (7 - len(names)) + ["P"]
        direction = "bidirectional" if self.directions == 2 else "reverse" if self.reverse else "forward"
        keywords: dict[str, Any] = {"hidden_size": size, "direction": direction, **attributes}
        if self.op_type == "GRU":
            keywords["linear_before_reset"] = int(self.reset_after)
        if self.activations:
            keywords["activations"] = list(self.activations) * self.directions
        state = [self.directions, "batch", size]
        outputs = {"y": ["time", *state], "hn": state, **({"cn": state} if cell else {})}
        node = helper.make_node(self.op_type, names, list(outputs), name="layer", **keywords)
        kind = TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info("x", kind, ["time", "batch", self.inputs])]
        states = [name for name in names if name in ("h0", "c0")]
        inputs += [helper.make_tensor_value_info(name, kind, [self.directions, "batch", size]) for name in states]
        if self.lengths:
            inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]))
        return model_of([node], inputs, outputs, {name: weights[name] for name in names if name in weights})

    def feeds(self, time: int, batch: int, seed: int = 1) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        feeds = {"x": rng.standard_normal((time, batch, self.inputs)).astype(np.float32)}
        if self.states:
            for name in ("h0", "c0") if self.op_type == "LSTM" else ("h0",):
                feeds[name] = rng.uniform(-1, 1, (self.directions, batch, self.hidden)).astype(np.float32)
        if self.lengths:
            feeds["lengths"] = rng.integers(1, time + 1, batch).astype(np.int32)
        return feeds


CASES = [
    Case("LSTM"),
    Case("LSTM", 2, lengths=True),
    Case("LSTM", reverse=True, lengths=True, gain=3),
    Case("LSTM", states=False, bias=False, gain=0.3),
    Case("LSTM", 2, states=False, lengths=True),
    Case("LSTM", inputs=3, hidden=33, activations=("Sigmoid", "Relu", "Tanh")),
    Case("LSTM", 2, lengths=True, gain=2, peepholes=True),
    Case("GRU"),
    Case("GRU", 2, lengths=True, reset_after=False),
    Case("GRU", reverse=True, states=False),
    Case("GRU", reset_after=False, bias=False, gain=2),
    Case("RNN"),
    Case("RNN", 2, lengths=True),
    Case("RNN", states=False, activations=("Relu",), gain=0.5),
]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Mapping[str, Sequence[int | str | None]],
    weights: dict[str, np.ndarray],
    opset: int = 18,
) -> onnx.ModelProto:
    """A model of float32 outputs."""
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), results, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(path: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, path)
    return path

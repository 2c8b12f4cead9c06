"""Models for the runtime's tests: exported without torch, and one from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.exporter.weights import validate_state_dict
from lstm_onnx.runtime import Model, load
from lstm_onnx.spec import ExportOptions, LSTMSpec

INPUT, HIDDEN = 4, 5


def drawn_state(spec: LSTMSpec, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    state = {name: rng.uniform(-0.6, 0.6, shape) for name, shape in spec.parameter_shapes().items()}
    return validate_state_dict(spec, state, where="drawn")


def exported(path: Path, *, options: ExportOptions | None = None, seed: int = 0, **sizes: Any) -> tuple[LSTMSpec, dict]:
    """Write an LSTM of 4 inputs and 5 hidden units, or of `sizes`; give its spec and parameters."""
    spec = LSTMSpec(**{"input_size": INPUT, "hidden_size": HIDDEN, **sizes})
    state = drawn_state(spec, seed)
    export_lstm(spec, options or ExportOptions(), state, path)
    return spec, state


def model_of(folder: Path, *, options: ExportOptions | None = None, **sizes: Any) -> Model:
    """Such a model, open on the CPU."""
    path = folder / "model.onnx"
    exported(path, options=options, **sizes)
    return load(path, provider="cpu")


def accumulator(path: Path, *, axis: str | None = "batch", metadata: dict[str, str] | None = None) -> Path:
    """A stateful model as others write them: y = scale * x + state, stateN = y; `axis` names the batch."""
    shape = [axis, 3]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["scale"], ["factor"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["x", "factor"], ["scaled"]),
            helper.make_node("Add", ["scaled", "state"], ["y"]),
            helper.make_node("Add", ["y", "zero"], ["stateN"]),
        ],
        "accumulator",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("scale", TensorProto.INT64, []),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("stateN", TensorProto.FLOAT, shape),
        ],
        [numpy_helper.from_array(np.zeros((), np.float32), "zero")],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def centred_rows(path: Path) -> Path:
    """A stateful model of another tool whose rows affect each other: y = x - x's mean over the batch + state."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axis"], ["mean"]),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Add", ["centred", "state"], ["y"]),
        helper.make_node("Identity", ["y"], ["stateN"]),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in names]
        for names in (("x", "state"), ("y", "stateN"))
    )
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(np.array([0]), "axis")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"lstm_onnx.states": '{"state": "stateN"}'})
    onnx.save(model, path)
    return path


def randoms(*shape: int, seed: int = 1, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


class Unreachable:
    """In a session's place: proves that an input was refused before ONNX Runtime saw it."""

    def run(self, *_: Any) -> None:
        raise AssertionError("ONNX Runtime was reached")


def lookup(path: Path, *, found: bool = False) -> Model:
    """y = table[x] + state; numbers over 9 fail in ONNX Runtime.  `found` adds an output as long as x has zeros."""
    batch = [("x", TensorProto.INT64, ["batch", 1]), ("state", TensorProto.FLOAT, ["batch", 2])]
    nodes = [
        helper.make_node("Squeeze", ["x", "axes"], ["flat"]),
        helper.make_node("Gather", ["table", "flat"], ["row"]),
        helper.make_node("Add", ["row", "state"], ["y"]),
        helper.make_node("Identity", ["y"], ["stateN"]),
    ]
    ends = [("y", TensorProto.FLOAT, ["batch", 2]), ("stateN", TensorProto.FLOAT, ["batch", 2])]
    if found:
        nodes += [
            helper.make_node("Equal", ["x", "nought"], ["zero"]),
            helper.make_node("NonZero", ["zero"], ["where"]),
        ]
        ends += [("where", TensorProto.INT64, [2, None])]
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info(*item) for item in batch],
        [helper.make_tensor_value_info(*item) for item in ends],
        [
            numpy_helper.from_array(np.arange(20, dtype=np.float32).reshape(10, 2), "table"),
            numpy_helper.from_array(np.array([1]), "axes"),
            numpy_helper.from_array(np.array(0), "nought"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets)), path)
    return load(path, "cpu", states={"state": "stateN"})


def bits(state: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state.items()}

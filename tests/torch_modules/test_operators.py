"""Operators of any file compute what ONNX Runtime computes, and what torch has no form for is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import lstm_onnx
from lstm_onnx.metadata import Metadata
from tests.repairs.loops import FEATURES, loop_file

RNG = np.random.default_rng(7)
X, Y = RNG.standard_normal((2, 3, 4)).astype(np.float32), RNG.standard_normal((2, 3, 4)).astype(np.float32)
IMAGE = RNG.standard_normal((2, 4, 5, 6)).astype(np.float32)
PLACES = np.array([[0, -1, 2], [1, 1, 0]], np.int64)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(-0.5, 0.5, shape).astype(np.float32)


CASES: tuple[tuple[str, int, list[Any], list[Any], dict[str, Any]], ...] = (
    # Operator, operator set, inputs, constants after them, attributes.
    *((name, 18, [X, Y], [], {}) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean")),
    *((name, 18, [X], [], {}) for name in ("Abs", "Exp", "Neg", "Relu", "Sigmoid", "Tanh", "Erf", "Floor", "Softplus")),
    *((name, 18, [X], [], {}) for name in ("HardSigmoid", "HardSwish", "Selu", "Elu", "LeakyRelu", "Sign", "Ceil")),
    *((f"Reduce{name}", 18, [X], [ints(1)], {}) for name in ("Mean", "Sum", "Max", "Min", "L2", "L1", "Prod")),
    *((f"Reduce{name}", 13, [X], [], {"axes": [0, 2], "keepdims": 0}) for name in ("Mean", "Max", "LogSumExp")),
    *((name, 18, [X], [], {"axis": 1}) for name in ("Softmax", "LogSoftmax", "ArgMax", "ArgMin")),
    ("ReduceMean", 18, [-10 * PLACES], [ints(1)], {}),
    ("Softmax", 11, [X], [], {"axis": 1}),
    ("Gelu", 20, [X], [], {"approximate": "tanh"}),
    ("Clip", 18, [X], [np.float32(-0.3), np.float32(0.4)], {}),
    ("Clip", 10, [X], [], {"min": -0.2}),
    ("Pow", 18, [X], [np.float32(2)], {}),
    ("Mod", 18, [PLACES], [ints(2)], {}),
    ("Where", 18, [X > 0, X, Y], [], {}),
    ("Cast", 18, [X], [], {"to": TensorProto.INT32}),
    ("Transpose", 18, [X], [], {"perm": [2, 0, 1]}),
    ("Reshape", 18, [X], [ints(0, -1)], {}),
    ("Flatten", 18, [IMAGE], [], {"axis": 2}),
    ("Squeeze", 18, [X[:1]], [ints(0)], {}),
    ("Unsqueeze", 18, [X], [ints(0, -1)], {}),
    ("Unsqueeze", 11, [X], [], {"axes": [1]}),
    ("Slice", 18, [X], [ints(0, 1), ints(2**62, -1), ints(1, 2)], {}),
    ("Slice", 18, [X], [ints(-1), ints(-(2**62)), ints(1), ints(-1)], {}),
    ("Slice", 18, [IMAGE], [ints(5), ints(0), ints(3), ints(-2)], {}),
    *(
        ("Slice", 18, [X], [ints(first), ints(last), ints(2), ints(-1)], {})
        for first, last in ((-9, -9), (-1, 2**63 - 1))
    ),
    ("NonZero", 18, [], [np.int64(2)], {}),
    ("Where", 18, [], [np.True_, np.int64(1), ints(2, 3)], {}),
    ("Gather", 18, [X, PLACES], [], {"axis": 1}),
    ("Gather", 18, [X], [np.int64(-1)], {"axis": 2}),
    ("GatherElements", 18, [X[0], PLACES[:, :1].repeat(2, 0)[:3]], [], {"axis": 1}),
    ("GatherND", 18, [X, PLACES[:, :2] % 2], [], {}),
    ("ScatterND", 18, [X, ints(1).reshape(1, 1), Y[:1]], [], {}),
    ("Expand", 18, [X[:1]], [ints(2, 1, 4)], {}),
    ("Tile", 18, [X], [ints(1, 2, 1)], {}),
    ("Split", 18, [X], [ints(1, 3)], {"axis": 2}),
    ("Concat", 18, [X, Y], [], {"axis": 1}),
    ("Pad", 18, [X], [ints(0, 1, 0, 0, 2, 1)], {}),
    ("Pad", 18, [X], [ints(0, 0, 2, 0, 0, 1)], {"mode": "reflect"}),
    ("Pad", 18, [IMAGE], [ints(0, 0, 0, 2, 0, 0, 0, 1)], {"mode": "reflect"}),
    ("Pad", 18, [X], [ints(1, 0, 0, 1, 0, 0)], {"mode": "edge"}),
    ("OneHot", 18, [PLACES], [ints(4), np.array([0, 1], np.float32)], {}),
    ("Trilu", 18, [X], [np.int64(1)], {"upper": 0}),
    ("CumSum", 18, [X], [np.int64(1)], {"reverse": 1, "exclusive": 1}),
    ("TopK", 18, [X], [ints(2)], {"axis": 2}),
    ("TopK", 9, [X], [], {"axis": 2, "k": 2}),
    *(("TopK", 18, [np.arange(600).reshape(3, 200) % 3], [ints(150)], {"largest": most}) for most in (0, 1)),
    *((name, 18, [X > 0], [np.True_], {}) for name in ("And", "Or", "Xor")),
    *((name, 18, [], [np.float64(1 / 3), np.float64(0.1)], {}) for name in ("Add", "Div", "Max")),
    ("CumSum", 18, [PLACES.astype(np.int32)], [np.int64(1)], {}),
    *((f"Reduce{name}", 18, [PLACES.astype(np.int32)], [ints(1)], {}) for name in ("Sum", "Prod")),
    ("ReverseSequence", 18, [X.transpose(1, 0, 2), ints(2, 3)], [], {}),
    ("MatMul", 18, [X], [weights(4, 5)], {}),
    ("Gemm", 18, [X[0]], [weights(5, 4), weights(5)], {"transB": 1}),
    ("Gemm", 18, [X[0]], [weights(4, 5), weights(5)], {"alpha": 0.5, "beta": 2.0}),
    ("Einsum", 18, [X, Y], [], {"equation": "bij,bkj->bik"}),
    ("Conv", 18, [IMAGE], [weights(6, 2, 3, 3), weights(6)], {"group": 2, "pads": [1, 0, 1, 0], "strides": [2, 1]}),
    ("Conv", 18, [X], [weights(2, 3, 2)], {"pads": [1, 0]}),
    ("ConvTranspose", 18, [X], [weights(3, 2, 3)], {"pads": [1, 0], "strides": [2]}),
    ("MaxPool", 18, [IMAGE], [], {"kernel_shape": [2, 3], "pads": [0, 1, 0, 1], "strides": [2, 2]}),
    ("AveragePool", 18, [IMAGE], [], {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("GlobalAveragePool", 18, [IMAGE], [], {}),
    ("BatchNormalization", 18, [IMAGE], [weights(4), weights(4), weights(4), weights(4) ** 2], {}),
    ("InstanceNormalization", 18, [IMAGE], [weights(4), weights(4)], {}),
    ("LayerNormalization", 18, [X], [weights(4), weights(4)], {"epsilon": 1e-3}),
    ("PRelu", 18, [X], [weights(4)], {}),
    ("GatherND", 18, [IMAGE, ints(1, 0, 2, 1, 0, 0, 1, 1).reshape(2, 4, 1)], [], {"batch_dims": 2}),
    ("CumSum", 18, [np.float32([[1e9, 1, 3], [np.inf, 2, 0]])], [np.int64(0)], {"exclusive": 1}),
    ("LpNormalization", 18, [np.float32([[3, 4], [0, 0]])], [], {}),
    ("Pow", 18, [PLACES], [np.float32(0.5)], {}),
    ("Clip", 18, [X, np.array(-0.2, np.float32)], [np.float32(0.4)], {}),
    ("Where", 18, [X > 0], [np.float64(0.1), np.float64(0.3)], {}),
    ("Range", 18, [], [np.float64(0.1), np.float64(1), np.float64(0.3)], {}),
    ("Shape", 18, [X], [], {"start": 1}),
    ("Dropout", 18, [X], [np.float32(0.5), np.False_], {}),
    *((f"Reduce{name}", 18, [X], [ints()], {"noop_with_empty_axes": 1}) for name in ("L1", "Sum", "SumSquare")),
)
UNSUPPORTED_FORMS: tuple[tuple[str, int, list[Any], list[Any], dict[str, Any], str], ...] = (
    ("ConvTranspose", 18, [X], [weights(3, 2, 3)], {"output_shape": [10], "strides": [2]}, "output_shape"),
    ("BatchNormalization", 15, [IMAGE], [weights(4)] * 4, {"training_mode": 1}, "training_mode = 1"),
    ("BatchNormalization", 8, [IMAGE], [weights(4, 5, 6)] * 4, {"spatial": 0}, "spatial = 0"),
    ("ScatterND", 18, [X, ints(1).reshape(1, 1), Y[:1]], [], {"reduction": "mul"}, "reduction = mul"),
    ("AveragePool", 19, [IMAGE], [], {"kernel_shape": [2, 2], "dilations": [2, 2]}, "dilations"),
    ("AveragePool", 18, [IMAGE], [], {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1]}, "different padding at the start"),
    ("MaxPool", 18, [X], [], {"kernel_shape": [2], "pads": [0, 1], "ceil_mode": 1}, "different padding at the start"),
    ("Conv", 18, [X], [weights(2, 3, 2)], {"auto_pad": "SAME_UPPER"}, "auto_pad = SAME_UPPER"),
    ("LayerNormalization", 18, [X], [weights(4)], {}, "the output Mean or InvStdDev"),
    ("Dropout", 18, [X], [np.float32(0.5), np.True_], {}, "training_mode = 1"),
    ("Cast", 18, [X], [], {"to": TensorProto.STRING}, "to = string"),
)


def file_of(
    path: Path, op_type: str, opset: int, inputs: list[Any], constants: list[Any], attributes: dict[str, Any]
) -> Path:
    """A file of one node; inputs are named x0, x1 and so on, constants k0, k1."""
    names = [f"x{index}" for index in range(len(inputs))]
    stored = [f"k{index}" for index in range(len(constants))]
    outputs = (
        ["y", "z"] if op_type in ("TopK", "Split") or (op_type == "LayerNormalization" and not attributes) else ["y"]
    )
    node = helper.make_node(op_type, [*names, *stored], outputs, **attributes)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, inputs, strict=True)
    ]
    graph = helper.make_graph(
        [node],
        "one",
        values,
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in zip(stored, constants, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


@pytest.mark.parametrize(("op_type", "opset", "inputs", "constants", "attributes"), CASES)
def test_an_operator_computes_what_onnx_runtime_does(
    tmp_path: Path, op_type: str, opset: int, inputs: list[Any], constants: list[Any], attributes: dict[str, Any]
):
    path = file_of(tmp_path / "m.onnx", op_type, opset, inputs, constants, attributes)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {f"x{index}": array for index, array in enumerate(inputs)})
    result = lstm_onnx.to_torch(path)(*map(torch.from_numpy, inputs))
    found = list(result.values()) if isinstance(result, dict) else [result]
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.shape == theirs.shape
        assert str(mine.dtype) == f"torch.{theirs.dtype}"
        np.testing.assert_allclose(mine.detach().numpy(), theirs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("op_type", "opset", "inputs", "constants", "attributes", "form"), UNSUPPORTED_FORMS)
def test_a_form_of_an_operator_without_a_translation_is_named(
    tmp_path: Path, op_type: str, opset: int, inputs: list[Any], constants: list[Any], attributes: Any, form: str
):
    path = file_of(tmp_path / "m.onnx", op_type, opset, inputs, constants, attributes)
    with pytest.raises(lstm_onnx.ModelError, match=f"the operator {op_type} with {form}.* has no translation"):
        lstm_onnx.to_torch(path)


@pytest.mark.parametrize(
    ("op_type", "opset", "size", "constants", "attributes"),
    [
        ("Squeeze", 18, 2, [ints(0)], {}),
        ("Gather", 18, 2, [ints(-3, 0)], {}),
        ("Gather", 18, 2, [ints(2, 0)], {}),
        ("Split", 13, 3, [], {}),
        ("Pad", 18, 3, [ints(3, 0, 0, 0)], {"mode": "reflect"}),
    ],
)
def test_sizes_that_onnx_runtime_refuses_are_refused(
    tmp_path: Path, op_type: str, opset: int, size: int, constants: list[Any], attributes: dict[str, Any]
):
    x = np.zeros((size, 4), np.float32)
    fits = np.zeros((4 if size > 2 else 1, 4), np.float32) if op_type != "Gather" else np.zeros((3, 4), np.float32)
    path = file_of(tmp_path / "m.onnx", op_type, opset, [fits], constants, attributes)
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    session.run(None, {"x0": fits})
    lstm_onnx.to_torch(path)(torch.from_numpy(fits))
    with pytest.raises(Exception, match="Non-zero status code"):
        session.run(None, {"x0": x})
    with pytest.raises((lstm_onnx.InputError, IndexError)):
        lstm_onnx.to_torch(path)(torch.from_numpy(x))


def test_sizes_below_zero_are_divided_towards_zero(tmp_path: Path):
    """The last (1 - time) / 2 steps, which are one of four."""
    nodes = [
        helper.make_node("Shape", ["x"], ["time"], start=1, end=2),
        helper.make_node("Sub", ["one", "time"], ["less"]),
        helper.make_node("Div", ["less", "two"], ["half"]),
        helper.make_node("Slice", ["x", "half", "end", "one"], ["y"]),
    ]
    stored = [numpy_helper.from_array(ints(value), name) for name, value in (("one", 1), ("two", 2), ("end", 99))]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, "time"))
    graph = helper.make_graph(nodes, "g", [value], [helper.make_empty_tensor_value_info("y")], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "m.onnx")
    assert lstm_onnx.to_torch(tmp_path / "m.onnx")(torch.zeros(2, 4)).shape == (2, 1)


@pytest.mark.parametrize(("shape", "steps"), [((3, 2), 0), ((None, 2), 0), ((None, 2), 4)])
def test_a_loop_of_no_steps_gives_what_onnx_runtime_gives_or_is_refused(
    tmp_path: Path, shape: tuple[int | None, ...], steps: int
):
    made = {"i": (TensorProto.INT64, ()), "c": (TensorProto.BOOL, ()), "s": (TensorProto.FLOAT, (3, 2))}
    inputs = [helper.make_tensor_value_info(name, *kind) for name, kind in made.items()]
    outputs = [helper.make_tensor_value_info("c1", TensorProto.BOOL, ())]
    outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("s1", "each")]
    nodes = [helper.make_node("Identity", ["c"], ["c1"]), helper.make_node("Add", ["s", "s"], ["s1"])]
    nodes.append(helper.make_node("Identity", ["s1"], ["each"]))
    loop = helper.make_node("Loop", ["n", "", "x"], ["y", "all"], body=helper.make_graph(nodes, "b", inputs, outputs))
    outer = {"n": (TensorProto.INT64, ()), "x": (TensorProto.FLOAT, (3, 2))}
    given = [helper.make_tensor_value_info(name, *kind) for name, kind in outer.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in ("y", "all")]
    graph = helper.make_graph([loop], "g", given, results)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"n": np.array(steps), "x": X[0, :, :2]})
    module, given = lstm_onnx.to_torch(tmp_path / "m.onnx"), (torch.tensor(steps), torch.from_numpy(X[0, :, :2]))
    if not steps and None in shape:
        with pytest.raises(lstm_onnx.InputError, match="a Loop has no steps to run"):
            module(*given)
        return
    found = module(*given)
    for mine, theirs in zip(found.values(), wanted, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs)


def test_a_scan_of_no_steps_is_refused(tmp_path: Path):
    value = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, (2,)) for name in ("s", "x", "s1", "y")}
    nodes = [helper.make_node("Add", ["s", "x"], ["s1"]), helper.make_node("Identity", ["s1"], ["y"])]
    body = helper.make_graph(nodes, "b", [value["s"], value["x"]], [value["s1"], value["y"]])
    scan = helper.make_node("Scan", ["s", "xs"], ["last", "ys"], body=body, num_scan_inputs=1)
    given = [value["s"], helper.make_tensor_value_info("xs", TensorProto.FLOAT, ("t", 2))]
    results = [helper.make_empty_tensor_value_info(name) for name in ("last", "ys")]
    model = helper.make_model(helper.make_graph([scan], "g", given, results), ir_version=8)
    model.opset_import[0].version = 18
    onnx.save(model, tmp_path / "m.onnx")
    module = lstm_onnx.to_torch(tmp_path / "m.onnx")
    assert module(torch.ones(2), torch.ones(3, 2))["last"].tolist() == [4.0, 4.0]
    with pytest.raises(lstm_onnx.InputError, match="xs has no steps"):
        module(torch.ones(2), torch.ones(0, 2))


def test_a_state_whose_size_follows_from_no_input_is_refused(tmp_path: Path):
    shapes = {"x": ("batch", 3), "s": (None, 3)}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "s"], ["y"])], "g", values, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, Metadata(states={"s": "y"}).to_metadata())
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(lstm_onnx.ModelError, match="the axis 0 of the state s is not known from the other inputs"):
        lstm_onnx.to_torch(tmp_path / "m.onnx")


def layer_file(path: Path, op_type: str, *, lengths: bool = False, states: bool = False, **attributes: Any) -> Path:
    """A recurrent operator of 3 features and 4 hidden units, as other tools write it."""
    gates, directions = (
        {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type],
        2 if attributes.get("direction") == "bidirectional" else 1,
    )
    stored = {
        "W": weights(directions, gates * 4, 3),
        "R": weights(directions, gates * 4, 4),
        "B": weights(directions, gates * 8),
        **({"P": weights(directions, 12)} if attributes.pop("peepholes", False) else {}),
    }
    initial = [name for name in ("h", "c") if states and (name == "h" or op_type == "LSTM")]
    inputs = ["x", "W", "R", "B", "lengths" if lengths else "", *(initial or [""] * (2 if op_type == "LSTM" else 1))]
    inputs += ["P"] if "P" in stored else []
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op_type == "LSTM" else 2]
    attributes = {"hidden_size": 4, **attributes}
    node = helper.make_node(op_type, inputs, outputs, "/encoder/rnn/" + op_type, **attributes)
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("t", "b", 3))]
    given += [helper.make_tensor_value_info("lengths", TensorProto.INT32, ("b",))] if lengths else []
    given += [helper.make_tensor_value_info(name, TensorProto.FLOAT, (directions, "b", 4)) for name in initial]
    graph = helper.make_graph(
        [node],
        "layer",
        given,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("op_type", "options"),
    [
        ("LSTM", {"direction": "reverse", "lengths": True, "states": True}),
        ("LSTM", {"direction": "bidirectional", "lengths": True}),
        ("LSTM", {"activations": ["Sigmoid", "Tanh", "Tanh"]}),
        ("GRU", {"linear_before_reset": 1, "states": True, "direction": "bidirectional"}),
        ("GRU", {"linear_before_reset": 1, "direction": "reverse"}),
        ("RNN", {"activations": ["Relu"], "lengths": True, "states": True}),
    ],
)
def test_a_recurrent_operator_becomes_torchs_module(tmp_path: Path, op_type: str, options: dict[str, Any]):
    path = layer_file(tmp_path / "m.onnx", op_type, **options)
    module = lstm_onnx.to_torch(path)
    assert type(module.get_submodule("encoder.rnn")) is getattr(nn, op_type)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for value in session.get_inputs():
        shape = [{"t": 5, "b": 2}.get(dim, dim) for dim in value.shape]
        feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
    if "lengths" in feeds:
        feeds["lengths"] = np.array([3, 5], np.int32)
    wanted = session.run(None, feeds)
    found = module(*(torch.from_numpy(feeds[value.name]) for value in session.get_inputs()))
    for mine, theirs in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs, atol=2e-6)


@pytest.mark.parametrize(
    ("op_type", "options", "message"),
    [
        ("RNN", {"hidden_size": 5}, r"the shapes \(1, 4, 3\), \(1, 4, 4\), \(1, 8\), and not \(1, 5, 3\)"),
        ("LSTM", {"peepholes": True}, "it has peepholes"),
        ("LSTM", {"clip": 3.0}, "it clips at 3"),
        ("LSTM", {"input_forget": 1}, "coupled"),
        ("LSTM", {"activations": ["HardSigmoid", "Tanh", "Tanh"]}, "its activations are hardsigmoid, tanh, tanh"),
        ("GRU", {}, "linear_before_reset = 0"),
    ],
)
def test_a_layer_that_torch_has_not_is_refused_by_name(tmp_path: Path, op_type: str, options: Any, message: str):
    path = layer_file(tmp_path / "m.onnx", op_type, **options)
    with pytest.raises(
        lstm_onnx.ModelError, match=f"m.onnx: /encoder/rnn/{op_type} .* has no equivalent in PyTorch: .*{message}"
    ):
        lstm_onnx.to_torch(path)


def test_operators_without_a_translation_are_named_together(tmp_path: Path):
    nodes = [helper.make_node("Det", ["x"], ["y"], "d"), helper.make_node("Hardmax", ["x"], ["z"], "h")]
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 2))]
    outputs = [helper.make_empty_tensor_value_info(name) for name in ("y", "z")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", values, outputs)), tmp_path / "m.onnx")
    with pytest.raises(lstm_onnx.ModelError, match=r"Det \(d\) has no translation; the operator Hardmax \(h\)"):
        lstm_onnx.to_torch(tmp_path / "m.onnx")


def test_an_int8_file_is_refused_with_the_way_out(tmp_path: Path):
    lstm_onnx.export(nn.LSTM(64, 64), tmp_path / "m.onnx", precision="int8")
    with pytest.raises(lstm_onnx.ModelError, match="convert the float32 file from which this int8 file was made"):
        lstm_onnx.to_torch(tmp_path / "m.onnx")


def test_what_is_no_model_is_refused(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(lstm_onnx.ModelError, match="is not an ONNX model"):
        lstm_onnx.to_torch(tmp_path / "m.onnx")
    with pytest.raises(lstm_onnx.FileError):
        lstm_onnx.to_torch(tmp_path / "none.onnx")


def test_the_states_of_a_repaired_file_are_optional(tmp_path: Path):
    lstm_onnx.repair(loop_file(tmp_path / "a.onnx", "gru"), tmp_path / "b.onnx", trial=False)
    module = lstm_onnx.to_torch(tmp_path / "b.onnx")
    x = torch.randn(2, 5, FEATURES, generator=torch.Generator().manual_seed(0))
    wanted = lstm_onnx.load(tmp_path / "a.onnx", provider="cpu").run({"x": x.numpy()})["y"]
    assert torch.allclose(module(x), torch.from_numpy(wanted), atol=1e-5)
    first, states = module(x[:, :2], states={})
    second, _ = module(x[:, 2:], states=states)
    assert torch.allclose(torch.cat([first, second], 1), module(x), atol=1e-6)
    with pytest.raises(lstm_onnx.ConfigError, match="does not give the file's state"):
        lstm_onnx.verify(module, tmp_path / "b.onnx", example_inputs=(x,))

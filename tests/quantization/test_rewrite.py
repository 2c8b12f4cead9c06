"""Which nodes become int8: constants by scope, reasons for those that stay, names, metadata, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import lstm_onnx
from lstm_onnx.errors import ConfigError, ModelError
from lstm_onnx.onnxgraph import load_inlined
from lstm_onnx.quantization import quantize
from lstm_onnx.quantization.rewrite import quantize_model
from lstm_onnx.spec import ExportOptions
from tests.quantization.operators import Case, model_of, saved
from tests.runtime.models import exported

pytestmark = pytest.mark.sweep(9)


def kept(path: Path, model: onnx.ModelProto) -> dict[str, str]:
    saved(path, model)
    return quantize_model(load_inlined(path), path).kept


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"clip": 3.0}, "it has clip = 3.0"),
        ({"input_forget": 1}, "it has input_forget = 1"),
        ({"layout": 1}, "it has layout = 1"),
        ({"activations": ["Sigmoid", "Softsign", "Tanh"]}, "its activations are Sigmoid, Softsign, Tanh"),
    ],
)
def test_an_operator_that_stays_float32_has_a_reason(attributes: dict, reason: str, tmp_path: Path):
    assert kept(tmp_path / "m.onnx", Case("LSTM").model(**attributes)) == {"layer": reason}


def test_computed_weights_and_other_dtypes(tmp_path: Path):
    model = Case("LSTM").model()
    model.graph.node[0].input.append("P")
    model.graph.input.append(helper.make_tensor_value_info("P", TensorProto.FLOAT, [1, 60]))
    assert kept(tmp_path / "m.onnx", model) == {"layer": "its peepholes are computed"}
    model = Case("LSTM").model()
    model.graph.node[0].input[1] = "doubled"
    model.graph.node.insert(0, helper.make_node("Add", ["W", "W"], ["doubled"], name="double"))
    assert kept(tmp_path / "m.onnx", model) == {"layer": "its weights are computed"}
    model = Case("LSTM").model()
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.zeros((1, 80), np.float32), "B"))
    assert kept(tmp_path / "m.onnx", model) == {"layer": "its biases have shape (1, 80)"}
    model = Case("LSTM").model()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((1, 80, 24), np.inf, np.float32), "W"))
    assert kept(tmp_path / "m.onnx", model) == {"layer": "a weight is not finite"}
    for index, name in enumerate("WR"):
        model = Case("LSTM").model()
        model.graph.initializer[index].CopyFrom(numpy_helper.from_array(np.float32(1), name))
        assert kept(tmp_path / "m.onnx", model)["layer"].startswith("its weights have shapes")


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Loop", ["three", "", "W"], ["z"], name="without a body"),
        helper.make_node(
            "Loop",
            ["three", "", "W"],
            ["z"],
            name="its own input",
            body=helper.make_graph(
                [helper.make_node("Identity", ["a"], ["a"])],
                "body",
                [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "ics"],
                [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "ca"],
            ),
        ),
        helper.make_node("Gather", [], ["z"], name="without inputs"),
        helper.make_node("Scan", ["x"], ["z"], name="without a body", num_scan_inputs=1),
    ],
    ids=lambda node: f"{node.op_type} {node.name}",
)
def test_a_file_against_onnxs_rules_is_refused(node: onnx.NodeProto, tmp_path: Path):
    model = Case("LSTM").model()
    model.graph.node.append(node)
    saved(tmp_path / "m.onnx", model)
    with pytest.raises(ModelError, match="ONNX Runtime cannot open it"):
        quantize(tmp_path / "m.onnx", tmp_path / "int8.onnx")


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (helper.make_node("Relu", ["x"], ["linear/abs"], name="relu"), "linear/abs"),
        (helper.make_node("Relu", ["x"], ["M/scale"], name="relu"), "M/scale"),
        (helper.make_node("Add", ["x", "int8/float32/1"], ["hidden"], name="add"), "int8/float32/1"),
        (helper.make_node("Relu", ["x"], ["hidden"], name="linear/MatMulInteger"), "linear/MatMulInteger"),
    ],
)
def test_names_that_the_file_has_already_are_refused(first: onnx.NodeProto, name: str, tmp_path: Path):
    # A constant of that name would be another one, and what reads it wrong without a word.
    weights = {"M": np.eye(32, 36, dtype=np.float32)}
    if name in first.input:
        weights[name] = np.array(5, np.float32)
    nodes = [first, helper.make_node("MatMul", [first.output[0], "M"], ["y"], name="linear")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32])
    path = saved(tmp_path / "m.onnx", model_of(nodes, [x], {"y": ["batch", 36]}, weights))
    with pytest.raises(ModelError, match=f"has a value or a node named {name}, a name that its int8"):
        quantize(path, tmp_path / "q.onnx")


def test_factors_that_are_nearly_equal_have_constants_of_their_own(tmp_path: Path):
    weights = {name: np.full(shape, 0.5, np.float32) for name, shape in (("M", (32, 36)), ("b", (36,)))}
    nodes = [
        helper.make_node("Gemm", ["x", "M", "b"], [name], name=name, alpha=factor, beta=factor)
        for name, factor in (("y", 0.1), ("z", float(np.nextafter(np.float32(0.1), np.float32(1)))))
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32])
    path = saved(tmp_path / "m.onnx", model_of(nodes, [x], {name: ["batch", 36] for name in "yz"}, weights))
    assert quantize(path, tmp_path / "q.onnx").proof.compared == 2


@pytest.mark.parametrize(("kernel", "stays"), [("MatMulInteger", True), ("MatMulNBits", False)])
def test_sums_that_may_leave_32_bits_stay_float32(kernel: str, stays: bool, tmp_path: Path):
    features = 300_000
    weights = {"M": np.full((features, 1), 0.01, np.float32), "N": np.eye(32, 36, dtype=np.float32)}
    nodes = [helper.make_node("MatMul", [x, m], [y], name=y) for x, m, y in (("x", "M", "y"), ("v", "N", "z"))]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", features), ("v", 32))
    ]
    model = model_of(nodes, inputs, {"y": ["batch", 1], "z": ["batch", 36]}, weights)
    result = quantize(saved(tmp_path / "m.onnx", model), tmp_path / "q.onnx", kernel=kernel)
    assert ("y" in result.kept) == stays
    ones = {"x": np.ones((1, features), np.float32), "v": np.ones((1, 32), np.float32)}
    y = lstm_onnx.load(tmp_path / "q.onnx", "cpu", threads=1).run(ones)["y"]
    np.testing.assert_allclose(y, 3000, rtol=1e-3)  # by integers alone it was -2368


def test_a_weight_that_the_caller_may_replace_is_no_constant(tmp_path: Path):
    model = Case("LSTM").model()
    model.graph.input.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, [1, 80, 24]))
    assert kept(tmp_path / "m.onnx", model) == {"layer": "its weights are computed"}


def test_an_input_that_has_a_value_and_that_nothing_reads_keeps_it(tmp_path: Path):
    model = Case("LSTM").model()
    model.graph.input.append(helper.make_tensor_value_info("unread", TensorProto.FLOAT, [1]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "unread"))
    quantize(saved(tmp_path / "m.onnx", model), tmp_path / "q.onnx")
    assert "unread" in {tensor.name for tensor in onnx.load(tmp_path / "q.onnx").graph.initializer}


@pytest.mark.parametrize("turned", [False, True])
def test_two_bodies_may_use_one_name_for_two_weights(turned: bool, tmp_path: Path):
    rng = np.random.default_rng(0)

    def branch(name: str, turned: bool = False) -> onnx.GraphProto:
        stored = "turned" if turned else "matrix"
        matrix = numpy_helper.from_array(rng.standard_normal((40, 40)).astype(np.float32), stored)
        nodes = [helper.make_node("Transpose", ["turned"], ["matrix"])] if turned else []
        nodes.append(helper.make_node("MatMul", ["x", "matrix"], [f"{name}_out"], name=f"{name}_product"))
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph(nodes, name, [], [out], [matrix])

    branches = {"then_branch": branch("a", turned), "else_branch": branch("b")}
    node = helper.make_node("If", ["which"], ["y"], name="if", **branches)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 40]),
        helper.make_tensor_value_info("which", TensorProto.BOOL, []),
    ]
    path = saved(tmp_path / "m.onnx", model_of([node], inputs, {"y": ["batch", 40]}, {}))
    done = quantize_model(load_inlined(path), path)
    assert done.quantized == ()
    with pytest.raises(ModelError, match="has no layer to quantize"):
        quantize(path, tmp_path / "q.onnx")


def test_nodes_without_names_get_their_own(tmp_path: Path):
    model = Case("GRU").model()
    model.graph.node[0].name = ""
    path = saved(tmp_path / "m.onnx", model)
    assert quantize(path, tmp_path / "q.onnx").quantized == ("GRU",)
    onnx.checker.check_model(onnx.load(tmp_path / "q.onnx"), full_check=True)


@pytest.mark.parametrize("opset", [13, 14, 17, 18, 21])
def test_opsets(opset: int, tmp_path: Path):
    model = Case("LSTM", 2, lengths=True).model()
    model.opset_import[0].version = opset
    path = saved(tmp_path / "m.onnx", model)
    assert quantize(path, tmp_path / "q.onnx").proof.compared == 1
    onnx.checker.check_model(onnx.load(tmp_path / "q.onnx"), full_check=True)


def test_an_old_opset_and_an_int8_file_are_refused(tmp_path: Path):
    model = Case("LSTM").model()
    model.opset_import[0].version = 11
    path = saved(tmp_path / "old.onnx", model)
    with pytest.raises(ModelError, match="has opset 11, and int8 layers need 13"):
        quantize(path, tmp_path / "q.onnx")
    path = saved(tmp_path / "m.onnx", Case("LSTM").model())
    quantize(path, tmp_path / "q.onnx")
    with pytest.raises(ModelError, match="is already int8"):
        quantize(tmp_path / "q.onnx", tmp_path / "again.onnx")


def test_options_and_paths(tmp_path: Path):
    path = saved(tmp_path / "m.onnx", Case("LSTM").model())
    with pytest.raises(ConfigError, match="layers = 'most' is not possible"):
        quantize(path, tmp_path / "q.onnx", layers="most")
    with pytest.raises(lstm_onnx.LSTMOnnxError):
        quantize(path, path)
    assert onnx.load(path) == Case("LSTM").model()
    exported(tmp_path / "float64.onnx", options=ExportOptions(projection="fold"), dtype="float64")
    with pytest.raises(ModelError, match=r"has no layer to quantize \(l0/LSTM: its weights are float64\)"):
        quantize(tmp_path / "float64.onnx", tmp_path / "q.onnx")
    # A Scan, as for ONNX Runtime's CPU provider.
    lstm_onnx.export(nn.LSTM(4, 5).double(), tmp_path / "scan.onnx")
    with pytest.raises(ModelError, match=r'its weights are float64: export it with precision="float32"'):
        quantize(tmp_path / "scan.onnx", tmp_path / "q.onnx")


def test_only_recurrent_layers(tmp_path: Path):
    exported(tmp_path / "m.onnx", input_size=20, hidden_size=40, proj_size=30)
    names = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", layers="recurrent").quantized
    assert set(names) == {"l0/input_gates", "l0/forward/recurrent_gates", "l0/forward/new_h"}
    model = Case("LSTM", inputs=40).model()
    model.graph.node.insert(0, helper.make_node("MatMul", ["raw", "matrix"], ["x"], name="before"))
    model.graph.input[0].name = "raw"
    matrix = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(matrix, "matrix"))
    path = saved(tmp_path / "n.onnx", model)
    assert quantize(path, tmp_path / "q.onnx", layers="recurrent").quantized == ("layer",)
    assert set(quantize(path, tmp_path / "q.onnx").quantized) == {"layer", "before"}


def test_metadata_stays_and_says_int8(tmp_path: Path):
    exported(tmp_path / "m.onnx")
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx")
    before, after = (
        {item.key: item.value for item in onnx.load(tmp_path / name).metadata_props} for name in ("m.onnx", "q.onnx")
    )
    assert json.loads(after.pop("lstm_onnx.quantization")) == {"kernel": "MatMulInteger", "layers": "all"}
    assert before.pop("lstm_onnx.checksum") != after.pop("lstm_onnx.checksum")
    options = [json.loads(entries.pop("lstm_onnx.export")) for entries in (before, after)]
    assert options[1] == {**options[0], "precision": "int8"}
    assert after == before


def test_weights_beside_the_file(tmp_path: Path):
    model = Case("LSTM").model()
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    done = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx")
    assert done.source_bytes > 4 * 80 * 44
    (tmp_path / "m.data").unlink()
    with pytest.raises(lstm_onnx.LSTMOnnxError, match=r"m\.data"):
        quantize(tmp_path / "m.onnx", tmp_path / "r.onnx")
    assert not (tmp_path / "r.onnx").exists()


def test_weights_in_constant_nodes_are_not_kept_beside_their_integers(tmp_path: Path):
    model = Case("LSTM", inputs=64, hidden=64).model()
    for tensor in list(model.graph.initializer):
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], name=tensor.name, value=tensor))
    del model.graph.initializer[:]
    path = saved(tmp_path / "m.onnx", model)
    done = quantize(path, tmp_path / "q.onnx")
    assert done.num_bytes < 0.4 * done.source_bytes
    assert not any(node.op_type == "Constant" for node in onnx.load(tmp_path / "q.onnx").graph.node)


class _Stepped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0])  # type: ignore[no-any-return]


def test_what_a_file_says_of_chunks_is_not_carried_over_where_another_tool_has_changed_it(tmp_path: Path):
    lstm_onnx.export(_Stepped().eval(), tmp_path / "m.onnx", example_inputs=torch.zeros(2, 5, 8), states="explicit")
    own = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx")
    assert lstm_onnx.load(own.path).metadata.not_streamable == ""
    model = onnx.load(tmp_path / "m.onnx")
    model.doc_string = "changed"
    onnx.save(model, tmp_path / "changed.onnx")
    changed = lstm_onnx.load(quantize(tmp_path / "changed.onnx", tmp_path / "c.onnx").path)
    assert changed.metadata.not_streamable is None
    assert changed.metadata.batch_mixes is None
    changed.stream()  # which compares chunks

"""Inspection: what lstm-onnx wrote, and what others made."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from lstm_onnx.errors import ModelError
from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.inspect import Inspection, inspect
from lstm_onnx.spec import ExportOptions, LSTMSpec

if TYPE_CHECKING:
    from pathlib import Path

F, H = 3, 5
FLOPS = 2 * 4 * H * (F + H) + 4 * H + 9 * H
"""Of one direction of a plain LSTM with biases."""


def exported(folder: Path, options: ExportOptions | None = None, **sizes: Any) -> tuple[LSTMSpec, Inspection]:
    spec = LSTMSpec(**sizes)
    random = np.random.default_rng(3)
    state = {name: random.standard_normal(shape).astype(spec.dtype) for name, shape in spec.parameter_shapes().items()}
    export_lstm(spec, options or ExportOptions(), state, folder / "m.onnx")
    return spec, inspect(folder / "m.onnx")


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def weights(directions: int = 1) -> dict[str, np.ndarray]:
    return {
        "W": floats(directions, 4 * H, F),
        "R": floats(directions, 4 * H, H),
        "B": floats(directions, 8 * H),
        "P": floats(directions, 3 * H),
    }


def lstm(*inputs: str, outputs: tuple[str, ...] = ("Y",), **attributes: Any) -> NodeProto:
    return helper.make_node("LSTM", inputs or ("X", "W", "R", "B"), outputs, **{"hidden_size": H, **attributes})


def graph(nodes: list[NodeProto], names: str = "WRB", inputs: tuple[str, ...] = ("X",)) -> GraphProto:
    """A graph with the weights that `names` asks for; inputs of three dynamic axes."""
    return helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["t", None, F]) for name in inputs],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights().items() if name in names],
    )


def inspected(folder: Path, contents: GraphProto, **keywords: Any) -> Inspection:
    model = helper.make_model(contents, opset_imports=[helper.make_opsetid("", 18)], **keywords)
    (folder / "other.onnx").write_bytes(model.SerializeToString())
    return inspect(folder / "other.onnx")


# What lstm-onnx writes


def test_plain_export(tmp_path: Path) -> None:
    spec, result = exported(tmp_path, input_size=F, hidden_size=H)
    (only,) = result.lstms
    assert (only.name, only.kind, only.direction) == ("l0/LSTM", "LSTM", "forward")
    assert (only.input_size, only.hidden_size, only.proj_size, only.bias) == (F, H, 0, True)
    assert (only.states, only.lengths, only.dtype, only.notes) == (("h0", "c0"), None, "float32", ())
    assert only.parameters == result.parameters == spec.num_parameters
    assert only.bytes == result.bytes == spec.num_bytes
    assert only.flops_per_step == result.flops_per_step == FLOPS == 385
    assert result.file_bytes == (tmp_path / "m.onnx").stat().st_size
    assert (result.opset, result.states, result.metadata.spec) == (18, {"h0": "hn", "c0": "cn"}, spec)
    assert result.producer.startswith("lstm-onnx")
    assert [str(value) for value in result.inputs][:2] == [
        f"input float32 (time, batch, {F})",
        f"h0 float32 (1, batch, {H})",
    ]
    assert [value.name for value in result.outputs] == ["output", "hn", "cn"]
    assert result.other_ops == {"Squeeze": 1}


def test_stacked_bidirectional_export_with_lengths(tmp_path: Path) -> None:
    sizes = {"input_size": F, "hidden_size": H, "num_layers": 2, "bidirectional": True, "batch_first": True}
    spec, result = exported(tmp_path, ExportOptions(lengths=True), **sizes)
    assert [(lstm.direction, lstm.input_size, lstm.lengths) for lstm in result.lstms] == [
        ("bidirectional", F, "lengths"),
        ("bidirectional", 2 * H, "lengths"),
    ]
    assert all(lstm.states == ("h0", "c0") for lstm in result.lstms)
    assert result.lstms[0].flops_per_step == 2 * FLOPS
    assert sum(lstm.parameters for lstm in result.lstms) == result.parameters == spec.num_parameters


def test_no_bias_and_float16(tmp_path: Path) -> None:
    spec, result = exported(tmp_path, input_size=F, hidden_size=H, bias=False, dtype="float16")
    (only,) = result.lstms
    assert (only.bias, only.dtype, only.bytes) == (False, "float16", spec.num_bytes)
    assert only.flops_per_step == FLOPS - 4 * H


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [False, True])
def test_scan_export(tmp_path: Path, bidirectional: bool, lengths: bool) -> None:
    sizes = {"input_size": F, "hidden_size": H, "proj_size": 2, "num_layers": 2, "bidirectional": bidirectional}
    spec, result = exported(tmp_path, ExportOptions(lengths=lengths), **sizes)
    count = spec.num_directions
    assert [(lstm.name, lstm.kind) for lstm in result.lstms] == [("l0/Scan", "Scan"), ("l1/Scan", "Scan")]
    first, second = result.lstms
    assert first.direction == ("bidirectional" if bidirectional else "forward")
    assert (first.input_size, first.hidden_size, first.proj_size, first.bias) == (F, H, 2, True)
    assert second.input_size == 2 * count
    assert {lstm.states for lstm in result.lstms} == {("h0", "c0")}
    assert first.lengths == second.lengths == ("lengths" if lengths else None)
    # torch's two biases are one sum in the file: 4H numbers fewer for each direction and layer.
    summed = 2 * count * 4 * H
    assert sum(lstm.parameters for lstm in result.lstms) == result.parameters == spec.num_parameters - summed
    assert first.flops_per_step == count * (2 * 4 * H * (F + 2) + 4 * H + 9 * H + 2 * 2 * H)
    assert "Sigmoid" not in result.other_ops  # the body is the LSTM's own


def test_scan_without_bias_has_the_spec_s_parameters(tmp_path: Path) -> None:
    spec, result = exported(tmp_path, input_size=F, hidden_size=H, proj_size=2, bias=False)
    assert result.lstms[0].parameters == result.parameters == spec.num_parameters
    assert not result.lstms[0].bias


@pytest.mark.parametrize("bidirectional", [False, True])
def test_folded_export_counts_what_is_computed(tmp_path: Path, bidirectional: bool) -> None:
    sizes = {"input_size": F, "hidden_size": H, "proj_size": 2, "bidirectional": bidirectional}
    spec, result = exported(tmp_path, ExportOptions(projection="fold"), **sizes)
    (only,) = result.lstms
    assert (only.kind, only.hidden_size, only.proj_size, only.states) == ("LSTM", H, 2, ("h0", "c0"))
    assert only.flops_per_step == spec.num_directions * (FLOPS + 2 * 2 * H)
    grown = spec.num_directions * (4 * H * (H - 2) + 2 * H)  # R to 4H x H, and pinv(W_hr)
    assert only.parameters == result.parameters == spec.num_parameters + grown
    assert any("fold" in note for note in only.notes)


# What others make


def test_unnamed_node_with_zero_states(tmp_path: Path) -> None:
    result = inspected(tmp_path, graph([lstm(outputs=("", "Y", ""), direction="reverse")]))
    (only,) = result.lstms
    assert (only.name, only.direction, only.states, only.lengths) == ("Y", "reverse", (), None)
    assert result.inputs[0].axes == ("t", None, F)
    assert str(result.outputs[0]) == "Y float32 of unknown shape"
    assert result.to_dict()["metadata"] is None
    assert result.states == {}


def test_weights_as_constant_nodes_and_behind_casts(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["W"], value=numpy_helper.from_array(weights()["W"]))
    half = helper.make_node("Constant", [], ["R16"], value=numpy_helper.from_array(weights()["R"].astype(np.float16)))
    cast = helper.make_node("Cast", ["R16"], ["R"], to=TensorProto.FLOAT)
    result = inspected(tmp_path, graph([constant, half, cast, lstm()], names="B"))
    (only,) = result.lstms
    assert (only.input_size, only.hidden_size, only.dtype) == (F, H, "float32")
    assert only.parameters == result.parameters == 4 * H * (F + H + 2)
    assert only.bytes == 4 * 4 * H * (F + 2) + 2 * 4 * H * H
    assert result.other_ops == {"Cast": 1}


def test_computed_weights_are_said_not_guessed(tmp_path: Path) -> None:
    relu = [helper.make_node("Relu", [f"raw_{name}"], [name]) for name in "WR"]
    result = inspected(tmp_path, graph([*relu, lstm()], names="B", inputs=("X", "raw_W", "raw_R")))
    (only,) = result.lstms
    assert (only.input_size, only.hidden_size, only.parameters, only.flops_per_step) == (None, H, 8 * H, 0)
    assert "W, R computed in the graph" in only.notes[0]
    assert "sizes" in only.notes[1]
    assert str(result).splitlines()[-2].endswith("; the FLOPs of its LSTMs are not counted")


def test_states_are_followed_through_shape_operators(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["state"], ["a"], perm=[1, 0, 2]),
        helper.make_node("Split", ["a"], ["b", "c"]),
        helper.make_node("Concat", ["b", "extra"], ["bb"], axis=0),
        helper.make_node("Cast", ["n"], ["lens"], to=TensorProto.INT32),
        lstm("X", "W", "R", "B", "lens", "bb", "c"),
    ]
    (only,) = inspected(tmp_path, graph(nodes, inputs=("X", "state", "extra", "n"))).lstms
    assert only.states == ("state", "extra")
    assert only.lengths == "n"


def test_computed_states_and_lengths(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Tanh", ["X"], ["h"]),
        helper.make_node("ReduceSum", ["X"], ["n"]),
        lstm("X", "W", "R", "B", "n", "h", "h"),
    ]
    (only,) = inspected(tmp_path, graph(nodes)).lstms
    assert (only.states, only.lengths) == ((), "")
    assert only.notes == ("initial states are computed in the graph (Tanh)",)


def test_a_cycle_ends(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Identity", ["b"], ["a"]),
        lstm("X", "a", "R", "B", "b", "a", "b"),
    ]
    (only,) = inspected(tmp_path, graph(nodes)).lstms
    assert (only.states, only.input_size) == ((), None)


def test_foreign_operators_are_other_operators(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GRU", ["X"], ["Y"], domain="my.ops"),
        helper.make_node("LSTM", ["X"], ["Z"], domain="my.ops"),
        helper.make_node("Scan", ["X"], ["S"], name="l0/Scan", body=graph([]), num_scan_inputs=1),
    ]
    result = inspected(tmp_path, graph(nodes))
    assert result.lstms == ()
    assert result.other_ops == {"Scan": 1, "my.ops.GRU": 1, "my.ops.LSTM": 1}
    assert "no LSTM, GRU or RNN in this file" in str(result)


def test_lstm_within_if_reads_the_outer_graph(tmp_path: Path) -> None:
    inner = helper.make_graph([lstm("X", "W", "R", "B", "", "h", "c")], "then", [], [])
    other = helper.make_graph([helper.make_node("Relu", ["X"], ["Z"])], "else", [], [])
    node = helper.make_node("If", ["on"], ["Y"], then_branch=inner, else_branch=other)
    result = inspected(tmp_path, graph([node], inputs=("X", "h", "c", "on")))
    (only,) = result.lstms
    assert (only.input_size, only.hidden_size, only.states) == (F, H, ("h", "c"))
    assert result.other_ops == {"If": 1, "Relu": 1}


def test_lstm_within_loop_takes_states_from_the_node(tmp_path: Path) -> None:
    names = ("i", "cond", "h_in", "c_in")
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    body = helper.make_graph([lstm("X", "W", "R", "B", "", "h_in", "c_in")], "body", infos, [])
    node = helper.make_node("Loop", ["trips", "", "h", "c"], ["Y", "c_end"], body=body)
    (only,) = inspected(tmp_path, graph([node], inputs=("X", "trips", "h", "c"))).lstms
    assert only.states == ("h", "c")


def test_lstm_within_a_model_function(tmp_path: Path) -> None:
    call = helper.make_node("Encoder", ["X", "W", "R", "B"], ["Y"], domain="mine")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Encoder", ["X", "W", "R", "B"], ["Y"], [lstm()], opsets[:1])
    model = helper.make_model(graph([call]), opset_imports=opsets, functions=[function])
    (tmp_path / "f.onnx").write_bytes(model.SerializeToString())
    (only,) = inspect(tmp_path / "f.onnx").lstms
    assert (only.input_size, only.hidden_size, only.parameters) == (F, H, 4 * H * (F + H + 2))


def test_notes_name_what_torch_does_not_have(tmp_path: Path) -> None:
    node = lstm(
        *("X", "W", "R", "B", "", "", "", "P"),
        clip=3.0,
        layout=1,
        input_forget=1,
        activations=["Sigmoid", "Relu", "Tanh"],
    )
    (only,) = inspected(tmp_path, graph([node], names="WRBP")).lstms
    notes = " | ".join(only.notes)
    for word in ("peepholes", "clip 3", "layout=1", "input_forget", "Relu"):
        assert word in notes
    assert only.parameters == 4 * H * (F + H + 2) + 3 * H
    assert only.flops_per_step == FLOPS + 6 * H


def test_default_activations_are_not_noted(tmp_path: Path) -> None:
    node = lstm(activations=["sigmoid", "TANH", "Tanh"], layout=0)
    assert inspected(tmp_path, graph([node])).lstms[0].notes == ()


def test_quantized_lstm(tmp_path: Path) -> None:
    inputs = ["X", "W8", "R8", "B", "", "", "", "", "ws", "wz", "rs", "rz"]
    node = helper.make_node("DynamicQuantizeLSTM", inputs, ["Y"], domain="com.microsoft", hidden_size=H)
    contents = graph([node], names="B")
    for name, shape in (("W8", (1, F, 4 * H)), ("R8", (1, H, 4 * H))):
        contents.initializer.append(numpy_helper.from_array(np.ones(shape, np.int8), name))
    (only,) = inspected(tmp_path, contents).lstms
    assert (only.kind, only.input_size, only.hidden_size, only.dtype) == ("DynamicQuantizeLSTM", F, H, "int8")
    assert only.bytes == 4 * H * (F + H) + 4 * 8 * H
    assert only.flops_per_step == FLOPS


def test_initializers_among_the_inputs_are_weights(tmp_path: Path) -> None:
    contents = graph([lstm()])
    contents.input.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, weights()["W"].shape))
    assert [value.name for value in inspected(tmp_path, contents, ir_version=3).inputs] == ["X"]


def test_external_data_is_counted_unread_and_missed(tmp_path: Path) -> None:
    model = helper.make_model(graph([lstm()]), opset_imports=[helper.make_opsetid("", 18)])
    path = tmp_path / "big.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="big.data", size_threshold=0)
    data = tmp_path / "big.data"
    result = inspect(path)
    assert result.lstms[0].parameters == 4 * H * (F + H + 2)
    assert result.file_bytes == path.stat().st_size + data.stat().st_size
    assert not any("external" in note for note in result.notes)
    data.unlink()
    result = inspect(path)
    assert result.lstms[0].hidden_size == H
    assert "big.data" in result.notes[0]
    assert "missing" in str(result)


def test_external_data_outside_the_folder_is_not_looked_at(tmp_path: Path) -> None:
    contents = graph([lstm()])
    contents.initializer[0].data_location = TensorProto.EXTERNAL
    contents.initializer[0].external_data.add(key="location", value="../other.onnx")
    result = inspected(tmp_path, contents)
    assert "outside" in result.notes[0]
    assert result.file_bytes == (tmp_path / "other.onnx").stat().st_size


def test_attributes_of_the_wrong_type_are_no_crash(tmp_path: Path) -> None:
    node = helper.make_node(
        "LSTM", ["X", "W", "R"], ["Y"], hidden_size=[1, 2], direction=4, clip="x", activations=1, layout=[1]
    )
    (only,) = inspected(tmp_path, graph([node])).lstms
    assert (only.hidden_size, only.direction) == (H, "4")


def test_recursive_functions_are_refused(tmp_path: Path) -> None:
    call = helper.make_node("Loop", ["X"], ["Y"], domain="mine")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Loop", ["X"], ["Y"], [call], opsets)
    model = helper.make_model(graph([call]), opset_imports=opsets, functions=[function])
    (tmp_path / "f.onnx").write_bytes(model.SerializeToString())
    code = f"from lstm_onnx.inspect import inspect; print(inspect({str(tmp_path / 'f.onnx')!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ModelError" in done.stderr, done.returncode


def test_functions_that_multiply_are_refused(tmp_path: Path) -> None:
    """2^40 nodes out of 3 kB."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    functions = []
    for depth in range(40):
        kind = {"op_type": f"F{depth - 1}", "domain": "mine"} if depth else {"op_type": "Neg"}
        calls = [helper.make_node(kind["op_type"], [x], [y], domain=kind.get("domain")) for x, y in ("xv", "vy")]
        functions.append(helper.make_function("mine", f"F{depth}", ["x"], ["y"], calls, opsets))
    call = helper.make_node("F39", ["X"], ["Y"], domain="mine")
    model = helper.make_model(graph([call]), opset_imports=opsets, functions=functions)
    (tmp_path / "f.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="expand to more than 100000 nodes when inlined"):
        inspect(tmp_path / "f.onnx")


# The reports


def test_reports(tmp_path: Path) -> None:
    spec, result = exported(tmp_path, ExportOptions(lengths=True), input_size=F, hidden_size=H)
    tree = json.loads(json.dumps(result.to_dict()))
    assert tree["lstms"][0]["states"] == ["h0", "c0"]
    assert tree["metadata"]["spec"]["hidden_size"] == spec.hidden_size
    assert tree["inputs"][0]["axes"] == ["time", "batch", F]
    text = str(result)
    for word in ("l0/LSTM", "h0 <- hn", "385", "lengths", "opset 18", str(result.metadata.digest)):
        assert word in text

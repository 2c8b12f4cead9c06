"""A graph's recurrent layers are found, and edits change what they say and no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.parity.mutants.graph_edit import Edit, known_shapes
from tests.module_files import module_file

from .bases import base


def _graph(nodes: list[onnx.NodeProto], **initializers: np.ndarray) -> onnx.ModelProto:
    """x float (2, 3) to y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_the_layers_of_operators_are_found() -> None:
    edit = Edit(base("stacked").graph)
    assert [site.name for site in edit.layers] == ["l0/LSTM", "l1/LSTM"]
    for layer, site in enumerate(edit.layers):
        assert (site.op_type, site.gates, site.directions, site.hidden_size, site.scan) == ("LSTM", 4, 2, 8, False)
        assert [port.value for port in (*site.W, *site.R, *site.B)] == [f"l{layer}/{name}" for name in "WRB"]
        assert site.W_hr == ()
        assert site.lengths is not None
        assert site.lengths.value == "lengths"
        assert site.y == [f"l{layer}/LSTM/Y"]
        assert [port.value for port in site.initial("h")] == [f"h0/{layer}"]
        assert [port.value for port in site.final("c")] == [f"l{layer}/LSTM/Y_c"]


def test_the_layers_of_scans_are_found() -> None:
    edit = Edit(base("scan").graph)
    assert [site.name for site in edit.layers] == ["l0/Scan", "l1/Scan"]
    site = edit.layers[1]
    assert (site.op_type, site.gates, site.directions, site.hidden_size, site.scan) == ("LSTM", 4, 2, 8, True)
    assert [port.value for port in site.R] == ["l1/R_forward", "l1/R_reverse"]
    assert [port.value for port in site.W_hr] == ["l1/W_hr_forward", "l1/W_hr_reverse"]
    assert [port.value for port in (*site.W, *site.B)] == ["l1/W", "l1/B"]
    assert site.lengths is not None
    assert [port.value for port in site.initial("c")] == ["c0/2", "c0/3"]
    assert len(site.final("h")) == len(site.y) == 2
    assert edit.fold(site) == ((), ())


def test_a_fold_is_found_with_what_is_around_it() -> None:
    edit = Edit(base("fold").graph)
    unproject, project = edit.fold(edit.layers[0])
    assert [port.value for port in unproject] == ["l0/W_hr_pinv"]
    assert {port.value for port in project} == {"l0/W_hr"}
    assert {port.node.name for port in project} == {"l0/project", "l0/project_hn"}


def test_gru_rnn_and_nothing_else() -> None:
    sites = Edit(onnx.load(module_file("packed_gru_and_lstm"))).layers
    assert {(site.op_type, site.gates) for site in sites} == {("GRU", 3), ("LSTM", 4)}
    custom = _graph([helper.make_node("LSTM", ["x", "w", "r"], ["y"], domain="other", hidden_size=1)])
    assert Edit(custom).layers == []
    without_size = _graph([helper.make_node("LSTM", ["x", "w", "r"], ["y"])])
    assert Edit(without_size).layers == []
    scan = _graph([helper.make_node("Scan", ["x"], ["y"], num_scan_inputs=1, body=_body())])
    assert Edit(scan).layers == []


def _body() -> onnx.GraphProto:
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, [3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [3])
    return helper.make_graph([helper.make_node("Relu", ["row"], ["out"])], "body", [row], [out])


def _masked(operator: str) -> list[onnx.NodeProto]:
    kept = helper.make_node(operator, ["one", "x"], ["kept"])
    return [kept, helper.make_node("Mul", ["none", "kept"], ["v"])]


@pytest.mark.parametrize(
    ("nodes", "zero"),
    [
        ([helper.make_node("Expand", ["none", "shape"], ["v"])], True),
        ([helper.make_node("Expand", ["one", "shape"], ["v"])], False),
        ([helper.make_node("ConstantOfShape", ["shape"], ["v"])], True),
        (
            [helper.make_node("ConstantOfShape", ["shape"], ["v"], value=helper.make_tensor("", 1, [1], [2.0]))],
            False,
        ),
        ([helper.make_node("Split", ["none"], ["v", "other"], num_outputs=2)], True),
        ([helper.make_node("Gather", ["none", "shape"], ["v"])], True),  # zeros(layers, batch, hidden)[layer]
        ([helper.make_node("Gather", ["one", "shape"], ["v"])], False),
        ([helper.make_node("Concat", ["none", "none"], ["v"], axis=0)], True),
        ([helper.make_node("Concat", ["none", "one"], ["v"], axis=0)], False),
        ([helper.make_node("Mul", ["one", "none"], ["v"])], True),
        ([helper.make_node("Mul", ["one", "one"], ["v"])], False),
        ([helper.make_node("Mul", ["none", "infinite"], ["v"])], False),  # NaN
        ([helper.make_node("Where", ["chosen", "none", "none"], ["v"])], True),
        ([helper.make_node("Where", ["chosen", "none", "one"], ["v"])], False),
        (_masked("Sub"), True),  # zeros * (1 - done)
        (_masked("Div"), False),  # zeros * (1 / done)
        ([helper.make_node("Identity", ["x"], ["v"])], False),
    ],
)
def test_zeros_are_known_through_changes_of_shape(nodes: list[onnx.NodeProto], zero: bool) -> None:
    model = _graph(
        [*nodes, helper.make_node("Add", ["v", "x"], ["y"])],
        none=np.zeros((2, 3), np.float32),
        one=np.ones((2, 3), np.float32),
        chosen=np.ones((2, 3), bool),
        infinite=np.array([np.inf], np.float32),
        shape=np.array([2, 3], np.int64),
    )
    assert Edit(model).is_zero("v") is zero


def test_a_constant_is_what_is_written_and_not_what_follows_from_it() -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    model = _graph(
        [
            helper.make_node("Identity", ["w"], ["same"]),
            helper.make_node("Transpose", ["w"], ["turned"]),
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(weights)),
            helper.make_node("Add", ["x", "same"], ["y"]),
        ],
        w=weights,
    )
    edit = Edit(model)
    for name in ("w", "same", "c"):
        np.testing.assert_array_equal(edit.constant(name), weights)
    for name in ("turned", "x", "nowhere"):
        assert edit.constant(name) is None


def test_external_weights_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(onnx.load(base("plain").path), path, save_as_external_data=True, location="m.data", size_threshold=100)
    graph = onnx.load(path, load_external_data=False)
    expected = Edit(base("plain").graph)
    edit = Edit(graph, str(tmp_path))
    for port, other in zip(edit.layers[0].W, expected.layers[0].W, strict=True):
        np.testing.assert_array_equal(edit.constant(port.value), expected.constant(other.value))


def test_what_is_put_in_is_computed() -> None:
    from lstm_onnx.runtime.providers import open_session

    model = _graph(
        [helper.make_node("Relu", ["x"], ["mid"], name="a"), helper.make_node("Neg", ["mid"], ["y"], name="b")]
    )
    edit = Edit(model)
    edit.wrap_output("y", "Mul", np.float32(10))
    edit.node("Add", "mid", "mid")
    edit.sort()
    onnx.checker.check_model(model, full_check=True)
    session, _ = open_session(model.SerializeToString(), "cpu", 1)
    x = np.array([[1, -1, 2], [0, 3, -4]], np.float32)
    np.testing.assert_array_equal(session.run(["y"], {"x": x})[0], -10 * np.maximum(x, 0))


def test_nodes_are_sorted_and_a_circle_is_left() -> None:
    chain = [helper.make_node("Relu", [a], [b], name=b) for a, b in (("b", "y"), ("a", "b"), ("x", "a"))]
    model = _graph(chain)
    Edit(model).sort()
    assert [node.name for node in model.graph.node] == ["a", "b", "y"]
    circle = _graph([helper.make_node("Add", ["y", "x"], ["z"]), helper.make_node("Relu", ["z"], ["y"])])
    Edit(circle).sort()
    assert len(circle.graph.node) == 2


@pytest.mark.parametrize("name", ["plain", "stacked", "scan", "fold"])
def test_sorting_a_sorted_graph_changes_nothing(name: str) -> None:
    model = onnx.load(base(name).path)
    Edit(model).sort()
    assert {node.name for node in model.graph.node} == {node.name for node in base(name).graph.graph.node}
    onnx.checker.check_model(model, full_check=True)


def test_origins_go_through_shapes_and_linear_maps_alone() -> None:
    edit = Edit(base("scan").graph)
    first, second = edit.layers
    assert set(first.y) <= edit.origins(second.x)
    assert "input" in edit.origins(first.x)
    assert "input" not in edit.origins(second.x)  # the layer in between is not looked through


def test_known_shapes_leave_weights_out_and_know_sizes_that_are_fixed() -> None:
    shapes = known_shapes(onnx.load(module_file("cell_after_lstm")))
    edit = Edit(onnx.load(module_file("cell_after_lstm")), "", shapes)
    sequence, step = edit.layers[:2]
    assert edit.size(step.x, 0) == 1
    assert edit.size(sequence.x, 0) is None
    assert edit.size("nowhere", 0) is None
    broken = _graph([helper.make_node("Relu", ["x"], ["y"])])
    assert known_shapes(broken)
    del broken.opset_import[:]
    assert known_shapes(broken) == {}


@pytest.mark.parametrize("state", ["h", "c"])
def test_final_states_are_named_where_nobody_wanted_them(state: str) -> None:
    graph = onnx.load(module_file("packed_marked_padding"))
    edit = Edit(graph)
    names = edit.named_final(edit.layers[0], state)
    assert names == [f"lstm/l0/LSTM/final_{state}"]
    assert names[0] in edit.layers[0].node.output
    assert edit.named_final(edit.layers[0], state) == names


def test_readers_are_found_in_inner_graphs() -> None:
    edit = Edit(base("scan forward").graph)
    inside: Callable[[onnx.NodeProto], bool] = lambda node: node.name.endswith("recurrent_gates")  # noqa: E731
    assert any(inside(node) for node in edit.readers("l0/R"))
    assert edit.used("l0/R")
    assert not edit.used("")
    assert edit.used("hn")


def test_the_last_step_of_an_open_axis_is_one_step() -> None:
    graph = onnx.load(module_file("rolled_out"))
    edit = Edit(graph, "", known_shapes(graph))
    assert [edit.size(site.x, 0) for site in edit.layers] == [None, 1, 1, 1]
    end = next(node for node in graph.graph.node if node.op_type == "Slice").input[2]
    for tensor in graph.graph.initializer:
        if tensor.name == end:
            tensor.CopyFrom(numpy_helper.from_array(np.array([5], np.int64), end))
    edit = Edit(graph, "", known_shapes(graph))
    assert [edit.size(site.x, 0) for site in edit.layers] == [None] * 4

"""Reading graphs: scopes within scopes, shapes, and where values come from."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from lstm_onnx.onnxgraph import Scope, Tensor, node_label, node_name, shape_of, shown, value_of


def info(name: str, *shape: int | str | None, elem_type: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, elem_type, shape)


def graph(nodes: list[NodeProto], inputs=(), outputs=(), constants=()) -> GraphProto:
    return helper.make_graph(nodes, "g", list(inputs), list(outputs), list(constants))


def constant(name: str, *shape: int):
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


@pytest.fixture
def nested() -> Scope:
    """A Loop whose body uses its own input, the outer graph's value and a tensor of its own."""
    body = graph(
        [
            helper.make_node("Mul", ["carried", "outer"], ["product"]),
            helper.make_node("Add", ["product", "w"], ["next"]),
            helper.make_node("Shape", ["next"], ["size"]),
        ],
        inputs=[
            info("i", elem_type=TensorProto.INT64),
            info("on", elem_type=TensorProto.BOOL),
            info("carried", "n", 3),
        ],
        outputs=[info("on2", elem_type=TensorProto.BOOL), info("next", "n", 3)],
        constants=[constant("w", 3)],
    )
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"]),
        helper.make_node("MatMul", ["turned", "m"], ["outer"]),
        helper.make_node("Shape", ["y"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Loop", ["count", "go", "h"], ["last"], body=body),
    ]
    inputs = [info("x", 3, "n"), info("y", "n"), info("h", "n", 3), info("count"), info("go")]
    return Scope.of(graph(nodes, inputs, [info("last", "n", 3)], [constant("m", 3, 3)]))


def inner(scope: Scope) -> Scope:
    _, body = scope.walk()
    return body


def test_a_walk_visits_every_graph_and_each_knows_the_top(nested: Scope):
    body = inner(nested)
    assert (body.parent, body.top, nested.top) == (nested, nested, nested)
    assert body.caller is not None
    assert body.caller.op_type == "Loop"


def test_shapes_and_dtypes_are_seen_from_within(nested: Scope):
    body = inner(nested)
    assert body.shape("x") == (3, "n")
    assert body.shape("w") == (3,)
    assert nested.shape("w") is None
    assert nested.shape("turned") is None
    assert (body.dtype("x"), body.dtype("i"), body.dtype("turned"), body.dtype("none")) == (
        "float32",
        "int64",
        "unknown",
        "unknown",
    )
    assert body.producer("turned").op_type == "Transpose"
    assert body.producer("x") is None


def test_a_source_is_followed_through_what_moves_data(nested: Scope):
    assert inner(nested).source("outer") == ("x", {"MatMul", "Transpose"})
    assert nested.source("last") == ("last", set())
    assert nested.source("x") == ("x", set())


def test_data_sources_leave_out_what_gives_its_shape_alone(nested: Scope):
    assert nested.data_sources("zeros") == set()
    assert nested.data_sources("outer") == {"x"}
    assert inner(nested).data_sources("carried") == {"count", "go", "h"}
    assert nested.data_sources("last") == {"count", "go", "h", "x"}
    assert inner(nested).data_sources("size") == set()


def test_a_cycle_ends():
    nodes = [helper.make_node("Identity", ["a"], ["b"]), helper.make_node("Identity", ["b"], ["a"])]
    scope = Scope.of(graph(nodes))
    assert scope.data_sources("a") == set()
    assert scope.source("a")[0] in ("a", "b")


def test_shapes_for_people():
    assert shown(("batch", None, 4)) == "(batch, ?, 4)"
    assert shown(None) == "of unknown shape"
    assert str(value_of(info("x", "time", None, 4))) == "x float32 (time, ?, 4)"
    assert shape_of(helper.make_tensor_value_info("x", TensorProto.FLOAT, None).type) is None
    assert value_of(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)).dtype == "sequence"


def test_a_node_without_a_name_is_called_by_what_it_makes():
    node = helper.make_node("LSTM", ["x", "w", "r"], ["", "h"])
    assert (node_name(node), node_label(node)) == ("h", "LSTM that makes h")
    node.name = "encoder"
    assert node_name(node) == node_label(node) == "encoder"


def test_tensors_are_their_sizes():
    tensor = Tensor.of(constant("w", 2, 3))
    assert (tensor.dims, tensor.size, tensor.num_bytes, tensor.is_weight) == ((2, 3), 6, 24, True)
    packed = Tensor((3,), TensorProto.INT4)
    assert packed.num_bytes == 2


def test_data_sources_are_seen_through_bodies_within_bodies():
    """An If in an If, whose branches compute from a value of the model around both, or return it as it is."""

    def branch(name: str, *nodes: NodeProto) -> GraphProto:
        return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(name, 1, [2])])

    def choose(output: str, then: GraphProto, other: GraphProto) -> NodeProto:
        return helper.make_node("If", ["which"], [output], then_branch=then, else_branch=other)

    deepest = choose("inner", branch("a", helper.make_node("Neg", ["x"], ["a"])), branch("y"))
    outer = choose("out", branch("inner", deepest), branch("b", helper.make_node("Abs", ["y"], ["b"])))
    inputs = [helper.make_tensor_value_info(name, 1, [2]) for name in ("x", "y")]
    inputs.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
    graph = helper.make_graph([outer], "g", inputs, [helper.make_tensor_value_info("out", 1, [2])])
    assert Scope.of(graph).data_sources("out") == {"x", "y", "which"}


def test_a_value_comes_through_the_branches_of_an_if():
    """As torch.onnx writes a squeeze of an axis of unknown size, on the way from a state to its operator."""
    branches = {
        "then_branch": graph([helper.make_node("Squeeze", ["part"], ["taken"])], outputs=[info("taken")]),
        "else_branch": graph([helper.make_node("Identity", ["other"], ["kept"])], outputs=[info("kept")]),
    }
    nodes = [
        helper.make_node("Slice", ["state", "from", "to"], ["part"]),
        helper.make_node("If", ["is_one"], ["start"], **branches),
        helper.make_node("Relu", ["start"], ["computed"]),
    ]
    scope = Scope.of(graph(nodes, [info("state", 2, "n", 3), info("other", "n", 3)]))
    inputs, computed = scope.origins("start")
    assert (sorted(inputs), computed) == (["other", "state"], [])
    assert scope.origins("computed") == ([], ["Relu"])

"""Shape inference by onnx: right where the model is well-formed, and alive where it is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from string import ascii_letters

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from lstm_onnx.check.graph import Graph
from lstm_onnx.check.inference import bare, has_negative_dims, inferred
from lstm_onnx.onnxgraph import shape_of

from .models import STACKED, export


def value(name: str, *shape: int | str | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(
    *nodes: NodeProto, inputs: tuple[onnx.ValueInfoProto, ...], opset: int = 18, **stored: object
) -> ModelProto:
    tensors = [numpy_helper.from_array(np.array(array), name) for name, array in stored.items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), [value("y", None, None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(kind: str, *inputs: str, outputs: tuple[str, ...] = ("y",), **attributes: object) -> NodeProto:
    return helper.make_node(kind, inputs, outputs, kind.lower(), **attributes)


def untyped(kind: str, **attributes: object) -> ModelProto:
    """Its input is what an operator makes that nobody knows."""
    strange = helper.make_node("Strange", ["x"], ["u"], domain="com.example")
    made = model_of(strange, node(kind, "u", **attributes), inputs=(value("x", "n", 2),), opset=20)
    made.opset_import.append(helper.make_opsetid("com.example", 1))
    return made


def in_a_body(model: ModelProto) -> ModelProto:
    """All of its nodes within both branches of an If."""
    body = helper.make_graph(
        list(model.graph.node), "body", [], list(model.graph.output), list(model.graph.initializer)
    )
    choice = helper.make_node("If", ["on"], ["y"], "choice", then_branch=body, else_branch=body)
    inputs = (*model.graph.input, value("on", kind=TensorProto.BOOL))
    made = model_of(choice, inputs=inputs)
    made.opset_import.MergeFrom(model.opset_import[1:])
    return made


DEADLY: dict[str, Callable[[], ModelProto]] = {
    "EyeLike of no type": lambda: untyped("EyeLike"),
    "RegexFullMatch of no type": lambda: untyped("RegexFullMatch", pattern="a"),
    "GatherND of a negative size": lambda: model_of(
        node("GatherND", "x", "i"), inputs=(value("x", "n", 2, 3), value("i", 3, -1, kind=TensorProto.INT64))
    ),
    "Split that miscounts": lambda: model_of(
        node("Split", "x", outputs=("y", "a", "b"), num_outputs=2), inputs=(value("x", "n", 2),)
    ),
    "Pad with too many inputs": lambda: model_of(node("Pad", *"xxxxxx"), inputs=(value("x", 2, 3),)),
    "more numbers than there is room for": lambda: model_of(
        node("Cast", "n", outputs=("c",), to=TensorProto.INT64),
        node("Unsqueeze", "c", "one"),
        inputs=(value("n", 2**33, kind=TensorProto.INT32),),
        one=[1],
    ),
    "joined without end": lambda: model_of(
        *(
            helper.make_node("Concat", [before, before], [after], axis=0)
            for before, after in pairwise(["strange", *ascii_letters[:34], "y"])
        ),
        inputs=(value("x", 1),),
    ),
}


def test_what_would_end_the_process_does_not(tmp_path: Path):
    """In a process of its own, with little memory, as it might be ended."""
    for name, make in DEADLY.items():
        (tmp_path / f"{name}.onnx").write_bytes(make().SerializeToString())
        (tmp_path / f"{name}, in a body.onnx").write_bytes(in_a_body(make()).SerializeToString())
    paths = sorted(tmp_path.glob("*.onnx"))
    code = (
        "import resource, sys, onnx\n"
        "from lstm_onnx.check.inference import bare, inferred\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n"
        "for path in sys.argv[1:]:\n"
        "    inferred(bare(onnx.load(path)))\n"
        "    print(path, flush=True)\n"
    )
    command = [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == list(map(str, paths)), done.stderr
    assert done.returncode == 0


def test_a_well_formed_model_loses_nothing(tmp_path: Path):
    model = onnx.load_model(export(tmp_path, STACKED))
    before = model.SerializeToString()
    copy = bare(model)
    assert copy.graph.node == model.graph.node
    expected = onnx.shape_inference.infer_shapes(model, data_prop=True)
    assert inferred(copy).graph.value_info == expected.graph.value_info
    assert inferred(copy).graph.output == expected.graph.output
    assert model.SerializeToString() == before
    assert not has_negative_dims(model)


def test_large_weights_are_left_behind_and_small_ones_kept(tmp_path: Path):
    model = onnx.load_model(export(tmp_path, {"input_size": 100, "hidden_size": 100}))
    copy = bare(model)
    assert copy.ByteSize() < 10_000 < model.ByteSize()
    for tensor, kept in zip(model.graph.initializer, copy.graph.initializer, strict=True):
        assert (tensor.name, tensor.dims, tensor.data_type) == (kept.name, kept.dims, kept.data_type)
        assert (kept == tensor) is (tensor.ByteSize() <= 2**16)


def test_computed_shapes_follow_with_data_propagation_alone():
    model = model_of(
        node("Shape", "x", outputs=("s",)),
        node("Reshape", "flat", "s"),
        inputs=(value("x", "n", 3), value("flat", "m")),
    )  # fmt: skip
    shapes = [shape_of(inferred(bare(model), data_prop=prop).graph.output[0].type) for prop in (True, False)]
    assert shapes[0] == ("n", 3)
    assert shapes[1] is not None
    assert shapes[1] != shapes[0]


def test_negative_sizes_are_open_ones():
    """As some exporters write them, and as ONNX Runtime reads them."""
    model = model_of(node("Relu", "x"), inputs=(value("x", -1, 3),))
    assert has_negative_dims(model)
    copy = bare(model)
    assert shape_of(copy.graph.input[0].type) == (None, 3)
    assert shape_of(model.graph.input[0].type) == (-1, 3)
    shaped = Graph(inferred(copy))
    rows, columns = shape_of(shaped.outputs["y"]) or (0, 0)
    assert (isinstance(rows, int), columns) == (False, 3)


def test_a_split_that_counts_right_is_kept():
    right = node("Split", "x", outputs=("y", "a"), num_outputs=2)
    assert not crashes(right)
    assert not crashes(node("Split", "x", outputs=("y", "a"), num_outputs=3))  # which onnx refuses by itself
    assert not crashes(node("Split", "x", "sizes", outputs=("y", "a", "b")))
    assert crashes(node("Split", "x", outputs=("y", "a", "b"), num_outputs=2))
    assert bare(model_of(right, inputs=(value("x", "n", 2),))).graph.node[0] == right


def test_functions_are_kept_safe_too():
    function = helper.make_function(
        "f",
        "F",
        ["x"],
        ["y"],
        [node("Split", "x", outputs=("y", "a", "b"), num_outputs=2)],
        [helper.make_opsetid("", 18)],
    )
    model = model_of(helper.make_node("F", ["x"], ["y"], domain="f"), inputs=(value("x", "n", 2),))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("f", 1))
    copy = bare(model)
    assert [len(item.node) for item in (copy.functions[0], model.functions[0])] == [0, 1]

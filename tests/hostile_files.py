"""Files of a few bytes that end or hang whoever opens them, as onnx 1.23 and ONNX Runtime 1.31 are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

FLOAT, HALF, INT64, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.UINT8


def one_node(
    kind: str,
    inputs: list[str],
    *,
    given: dict[str, tuple[int, list[Any]]] | None = None,
    stored: dict[str, np.ndarray] | None = None,
    outputs: tuple[str, ...] = ("y",),
    opset: int = 20,
    **attributes: Any,
) -> ModelProto:
    """A model of one node; `given` are its inputs' types and shapes."""
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, list(outputs), "n", **attributes)],
        "g",
        [helper.make_tensor_value_info(name, *what) for name, what in (given or {}).items()],
        [onnx.ValueInfoProto(name=outputs[0])],
        [numpy_helper.from_array(array, name) for name, array in (stored or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _untyped(kind: str, **attributes: Any) -> ModelProto:
    """Its input is what an operator makes that nobody knows."""
    model = one_node(kind, ["u"], given={"x": (FLOAT, ["n", 2])}, **attributes)
    model.graph.node.insert(0, helper.make_node("Strange", ["x"], ["u"], domain="com.example"))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def _in_a_body(model: ModelProto) -> ModelProto:
    """All nodes within both branches of an If."""
    body = helper.make_graph(list(model.graph.node), "body", [], list(model.graph.output), model.graph.initializer)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.append(helper.make_node("If", ["on"], ["y"], "choice", then_branch=body, else_branch=body))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "on"))
    return model


EMPTY = np.zeros(0, np.int64)
ENDING: dict[str, Callable[[], ModelProto]] = {
    "RandomNormal of scale 0": lambda: one_node("RandomNormal", [], scale=0.0, shape=[3]),
    "RandomNormalLike of scale 0": lambda: one_node("RandomNormalLike", ["x"], given={"x": (HALF, [])}, scale=0.0),
    "RandomUniform, low above high": lambda: one_node("RandomUniform", [], low=2.0, high=1.0, shape=[3]),
    "RandomUniformLike, low above high": lambda: one_node(
        "RandomUniformLike", ["x"], given={"x": (FLOAT, [2])}, low=2.0, high=1.0
    ),
    "Max with an input of no name": lambda: one_node("Max", ["x", ""], given={"x": (UINT8, [4, 1])}),
    "Min with an input of no name": lambda: one_node("Min", ["x", ""], given={"x": (UINT8, [4, 1])}),
    "GatherND of negative batch_dims": lambda: one_node(
        "GatherND", ["x", "i"], given={"x": (FLOAT, [2, 3])}, stored={"i": EMPTY}, batch_dims=-1
    ),
    "OneHot of an empty depth": lambda: one_node(
        "OneHot", ["x", "d", "v"], given={"x": (FLOAT, [1, 3])}, stored={"d": EMPTY, "v": np.array([0, 1])}
    ),
    "Split that miscounts": lambda: one_node(
        "Split", ["x"], given={"x": (FLOAT, [6])}, outputs=("y", "a", "b"), num_outputs=2
    ),
    "EyeLike of no type": lambda: _untyped("EyeLike"),
    "RegexFullMatch of no type": lambda: _untyped("RegexFullMatch", pattern="a"),
    "GatherND of a negative size": lambda: one_node(
        "GatherND", ["x", "i"], given={"x": (FLOAT, ["n", 2, 3]), "i": (INT64, [3, -1])}
    ),
}
ENDING |= {
    f"{name}, in a body": lambda name=name: _in_a_body(ENDING[name]())
    for name in ("RandomNormal of scale 0", "GatherND of negative batch_dims", "Split that miscounts")
}
"""Each ends the process of whoever checks, opens or runs it."""


def hanging() -> ModelProto:
    """onnx's shape inference reads its equation for ever, and lets nobody else run Python."""
    return one_node("Einsum", ["x"], given={"x": (FLOAT, ["n", 4])}, equation="...i...->...i")


def ends_for_large_numbers() -> ModelProto:
    """Some numbers, and these are drawn with a scale of 0 where x has one above 5."""
    model = one_node("If", ["large"], given={"x": (FLOAT, ["n"])}, stored={"five": np.float32([5])})
    bodies = {"then_branch": 0.0, "else_branch": 1.0}
    for name, scale in bodies.items():
        node = helper.make_node("RandomNormal", [], [f"{name}_y"], shape=[1], scale=scale)
        body = helper.make_graph([node], name, [], [onnx.ValueInfoProto(name=f"{name}_y")])
        model.graph.node[0].attribute.append(helper.make_attribute(name, body))
    before = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "five"], ["greater"]),
        helper.make_node("Squeeze", ["greater"], ["large"]),
    ]
    for index, node in enumerate(before):
        model.graph.node.insert(index, node)
    return model


def written(folder: Path, model: ModelProto) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path

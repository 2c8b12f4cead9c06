"""Models of any operators there are: what no list of operators foresees."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.defs import OpSchema

_DTYPES = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
    "complex64": np.complex64,
}
_INTS = (-(2**63), -(2**31), -7, -2, -1, 0, 0, 1, 1, 2, 3, 4, 5, 16, 1000, 2**20, 2**31 - 1, 2**31, 2**40, 2**63 - 1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e30, -1e30, 3.4e38, float("inf"), float("-inf"), float("nan"))
_TEXTS = ("", "x", "NOTSET", "SAME_UPPER", "VALID", "reflect", "edge", "wrap", "linear", "nearest", "cubic", "sum",
          "...i...->...i", "ij,jk->ik", "bi,oi->bo", "i,i->", "reverse", "bidirectional", "Tanh", "SOFTMAX", "none",
          "constant", "align_corners", "[", "a(b*)*c", "x" * 2000, "é")  # fmt: skip
SIZES = (0, 1, 1, 2, 2, 3, 3, 4, 5)
WILD_SIZES = (-1, -(2**31), 2**31, 2**40, 2**62, "n", "batch", None)
_MOST_NODES = 5
_NEWEST = 24
"""The opset that has nearly every operator, and that ONNX Runtime knows."""


@cache
def schemas() -> tuple[OpSchema, ...]:
    """Every operator of onnx, in its latest version, in an order that is always the same."""
    found = [item for item in onnx.defs.get_all_schemas() if not item.domain.endswith("training")]
    return tuple(sorted(found, key=lambda item: (item.domain, item.name)))


@cache
def onnx_models() -> tuple[bytes, ...]:
    """Small models that come with the onnx package: mostly one operator each, as PyTorch once exported them."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
    paths = sorted(path for path in folder.glob("*/*/model.onnx") if path.stat().st_size < 20_000)
    return tuple(path.read_bytes() for path in paths)


def drawn_model(rng: random.Random) -> bytes:
    """A model of one to five operators, each with inputs of types that it allows, mostly."""
    graph = GraphProto(name="g")
    values: list[str] = []
    for index in range(rng.choice((1, 1, 1, 1, 2, 3, _MOST_NODES))):
        node = drawn_node(graph, rng.choice(schemas()), index, values, rng)
        graph.node.append(node)
        values += [name for name in node.output if name]
    for name in values[-rng.choice((1, 2, 4)) :]:
        graph.output.append(onnx.ValueInfoProto(name=name) if rng.random() < 0.95 else _output(name, rng))
    return bytes(_model(graph, rng).SerializeToString())


def _model(graph: GraphProto, rng: random.Random) -> ModelProto:
    opsets = [helper.make_opsetid("", _NEWEST if rng.random() < 0.8 else rng.choice((7, 11, 13, 17, 18, 21)))]
    opsets += [helper.make_opsetid("ai.onnx.ml", rng.choice((1, 3, 5, 5, 5))), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=rng.choice((4, 8, 10, 10, 10)))


def data_for(data: bytes, rng: random.Random) -> bytes:
    """An .npz of arrays for a model's inputs, as it declares them where that can be."""
    arrays = {}
    graph = onnx.load_model_from_string(data).graph
    stored = {item.name for item in graph.initializer}
    for item in graph.input:
        kind = item.type.tensor_type
        known = [item for item in _DTYPES.values() if _code(item) == kind.elem_type]
        if item.name in stored or not known or not item.name.isidentifier():
            continue
        shape = [dim.dim_value if 0 < dim.dim_value <= 64 else rng.choice((1, 1, 2, 3)) for dim in kind.shape.dim]
        array = numpy_helper.to_array(drawn_tensor("x", known[0], shape[:6], rng))
        arrays[item.name] = array.astype(str) if array.dtype == object else array
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _code(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _output(name: str, rng: random.Random) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, rng.choice((1, 1, 7, 6, 9, 10)), [None] * rng.randrange(4))


def drawn_node(graph: GraphProto, schema: OpSchema, index: int, values: list[str], rng: random.Random) -> NodeProto:
    kinds = {item.type_param_str: rng.choice(sorted(item.allowed_type_strs)) for item in schema.type_constraints}
    least = max(schema.min_input, min(schema.max_input, rng.choice((0, 1, 2, 3))))
    inputs = []
    alike = _shape(rng) if rng.random() < 0.5 else None
    for place in range(min(least, 8)):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)] if schema.inputs else None
        kind = "tensor(float)" if formal is None else kinds.get(formal.type_str, formal.type_str)
        what = rng.random()
        optional = formal is not None and formal.option != OpSchema.FormalParameterOption.Single
        if what < (0.25 if optional else 0.01):
            inputs.append("")
        elif what < 0.35 and values:
            inputs.append(rng.choice(values))
        else:
            inputs.append(_fed(graph, f"i{index}_{place}", kind, alike or _shape(rng), rng))
    count = max(schema.min_output, min(schema.max_output, rng.choice((1, 1, 2, 3)))) if schema.outputs else 1
    outputs = [f"o{index}_{place}" if rng.random() < 0.99 else "" for place in range(count)]
    node = helper.make_node(schema.name, inputs, outputs, f"n{index}", domain=schema.domain)
    for name, attribute in sorted(schema.attributes.items()):
        if attribute.required or rng.random() < 0.25:
            node.attribute.append(drawn_attribute(name, attribute, rng))
    return node


def _shape(rng: random.Random) -> list[int]:
    return [rng.choice(SIZES) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4)))]


def _fed(graph: GraphProto, name: str, kind: str, shape: list[int], rng: random.Random) -> str:
    """A value of the type, as an input or stored."""
    word = kind.removeprefix("seq(").removeprefix("optional(").removeprefix("tensor(").rstrip(")")
    dtype = _DTYPES.get(word, np.float32)
    if rng.random() < 0.45 and kind.startswith("tensor"):
        graph.initializer.append(drawn_tensor(name, dtype, shape, rng))
        return name
    dims: list[Any] = [rng.choice(WILD_SIZES) if rng.random() < 0.1 else dim for dim in shape]
    info = helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), dims)
    if kind.startswith("seq("):
        info = helper.make_tensor_sequence_value_info(name, 1, dims)
    graph.input.append(info)
    return name


def drawn_tensor(name: str, dtype: Any, shape: Sequence[int], rng: random.Random) -> TensorProto:
    draw = np.random.default_rng(rng.randrange(2**32))
    if dtype is np.object_:
        array = np.array([rng.choice(_TEXTS) for _ in range(int(np.prod(shape)))], object).reshape(shape)
    elif np.dtype(dtype).kind in "iu":
        pool = [item for item in _INTS if np.iinfo(dtype).min <= item <= np.iinfo(dtype).max]
        wild = rng.random() < 0.4
        array = draw.choice(pool, shape) if wild else draw.integers(0, 4, shape)
        array = np.asarray(array, dtype)
    elif rng.random() < 0.2:
        with np.errstate(all="ignore"):
            array = np.asarray(draw.choice(_FLOATS, shape)).astype(dtype)
    else:
        array = np.asarray(draw.standard_normal(shape)).astype(dtype)
    return numpy_helper.from_array(array, name)


def drawn_attribute(name: str, attribute: OpSchema.Attribute, rng: random.Random) -> AttributeProto:
    kind = attribute.type if rng.random() < 0.98 else rng.choice((OpSchema.AttrType.INT, OpSchema.AttrType.FLOATS))
    made = AttributeProto(name=name)
    default = attribute.default_value
    if kind == OpSchema.AttrType.INT:
        near = (default.i, default.i, default.i + 1, default.i - 1) if default.type == AttributeProto.INT else (0, 1)
        made.type, made.i = AttributeProto.INT, min(max(rng.choice((*near, rng.choice(_INTS))), -(2**63)), 2**63 - 1)
    elif kind == OpSchema.AttrType.FLOAT:
        made.type, made.f = AttributeProto.FLOAT, rng.choice(_FLOATS)
    elif kind == OpSchema.AttrType.STRING:
        made.type, made.s = AttributeProto.STRING, (default.s if rng.random() < 0.4 else rng.choice(_TEXTS).encode())
    elif kind == OpSchema.AttrType.INTS:
        pool = _INTS if rng.random() < 0.4 else (0, 1, 2, 3)
        made.type = AttributeProto.INTS
        made.ints.extend(rng.choice(pool) for _ in range(rng.choice((0, 1, 2, 2, 3, 4, 9))))
    elif kind == OpSchema.AttrType.FLOATS:
        made.type = AttributeProto.FLOATS
        made.floats.extend(rng.choice(_FLOATS) for _ in range(rng.choice((0, 1, 2, 3, 9))))
    elif kind == OpSchema.AttrType.STRINGS:
        made.type = AttributeProto.STRINGS
        made.strings.extend(rng.choice(_TEXTS).encode() for _ in range(rng.choice((0, 1, 2, 3))))
    elif kind == OpSchema.AttrType.GRAPH:
        made.type = AttributeProto.GRAPH
        made.g.CopyFrom(_body(rng))
    elif kind == OpSchema.AttrType.TENSOR:
        made.type = AttributeProto.TENSOR
        shape = [rng.choice(SIZES) for _ in range(rng.choice((0, 1, 1, 2)))]
        made.t.CopyFrom(drawn_tensor("t", rng.choice(list(_DTYPES.values())), shape, rng))
    else:
        made.type = rng.choice((AttributeProto.TENSORS, AttributeProto.TYPE_PROTO, AttributeProto.GRAPHS))
    return made


def _body(rng: random.Random) -> GraphProto:
    """A graph within a node: of a Loop or a Scan, as far as its ends go by chance."""
    body = GraphProto(name="body")
    kinds = [7, 9, *(rng.choice((1, 7)) for _ in range(rng.randrange(3)))][rng.choice((0, 0, 2)) :]
    for index, kind in enumerate(kinds):
        body.input.append(helper.make_tensor_value_info(f"b{index}", kind, [] if kind != 1 else [2]))
    values = [item.name for item in body.input]
    for index in range(rng.choice((0, 1, 1, 2))):
        node = drawn_node(
            body, rng.choice([item for item in schemas() if not _has_graph(item)]), 90 + index, values, rng
        )
        body.node.append(node)
        values += [name for name in node.output if name]
    for name in [*values[1:2], *values[-rng.choice((1, 1, 2)) :]]:
        body.output.append(onnx.ValueInfoProto(name=name) if rng.random() < 0.4 else _output(name, rng))
    return body


def _has_graph(schema: OpSchema) -> bool:
    return any(item.type == OpSchema.AttrType.GRAPH for item in schema.attributes.values())

"""Models of any operators there are, and others with their structure changed: what no list of operators foresees."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
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
_SIZES = (0, 1, 1, 2, 2, 3, 3, 4, 5)
_WILD_SIZES = (-1, -(2**31), 2**31, 2**40, 2**62, "n", "batch", None)
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
        node = _drawn_node(graph, rng.choice(schemas()), index, values, rng)
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
        array = numpy_helper.to_array(_tensor("x", known[0], shape[:6], rng))
        arrays[item.name] = array.astype(str) if array.dtype == object else array
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _code(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _output(name: str, rng: random.Random) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, rng.choice((1, 1, 7, 6, 9, 10)), [None] * rng.randrange(4))


def _drawn_node(graph: GraphProto, schema: OpSchema, index: int, values: list[str], rng: random.Random) -> NodeProto:
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
            node.attribute.append(_attribute(name, attribute, rng))
    return node


def _shape(rng: random.Random) -> list[int]:
    return [rng.choice(_SIZES) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4)))]


def _fed(graph: GraphProto, name: str, kind: str, shape: list[int], rng: random.Random) -> str:
    """A value of the type, as an input or stored."""
    word = kind.removeprefix("seq(").removeprefix("optional(").removeprefix("tensor(").rstrip(")")
    dtype = _DTYPES.get(word, np.float32)
    if rng.random() < 0.45 and kind.startswith("tensor"):
        graph.initializer.append(_tensor(name, dtype, shape, rng))
        return name
    dims: list[Any] = [rng.choice(_WILD_SIZES) if rng.random() < 0.1 else dim for dim in shape]
    info = helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), dims)
    if kind.startswith("seq("):
        info = helper.make_tensor_sequence_value_info(name, 1, dims)
    graph.input.append(info)
    return name


def _tensor(name: str, dtype: Any, shape: Sequence[int], rng: random.Random) -> TensorProto:
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


def _attribute(name: str, attribute: OpSchema.Attribute, rng: random.Random) -> AttributeProto:
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
        shape = [rng.choice(_SIZES) for _ in range(rng.choice((0, 1, 1, 2)))]
        made.t.CopyFrom(_tensor("t", rng.choice(list(_DTYPES.values())), shape, rng))
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
        node = _drawn_node(
            body, rng.choice([item for item in schemas() if not _has_graph(item)]), 90 + index, values, rng
        )
        body.node.append(node)
        values += [name for name in node.output if name]
    for name in [*values[1:2], *values[-rng.choice((1, 1, 2)) :]]:
        body.output.append(onnx.ValueInfoProto(name=name) if rng.random() < 0.4 else _output(name, rng))
    return body


def _has_graph(schema: OpSchema) -> bool:
    return any(item.type == OpSchema.AttrType.GRAPH for item in schema.attributes.values())


# --- changes ------------------------------------------------------------------------------------------


def restructured(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A copy of a model with one to four changes of its structure; `other` is one to take parts of."""
    model = onnx.load_model_from_string(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        rng.choice(CHANGES)(model, rng)
    if rng.random() < 0.05:
        _spliced(model, onnx.load_model_from_string(other), rng)
    return bytes(model.SerializeToString())


def _node(model: ModelProto, rng: random.Random) -> NodeProto:
    """One of the graph or of a body; a new Identity where there is none."""
    nodes = list(model.graph.node)
    for node in model.graph.node:
        nodes += [inner for item in node.attribute for inner in item.g.node]
    for function in model.functions:
        nodes += list(function.node)
    return rng.choice(nodes) if nodes else model.graph.node.add(op_type="Identity", output=["x"])


def _names(model: ModelProto) -> list[str]:
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    return [*names, *(item.name for item in (*model.graph.input, *model.graph.initializer)), "", "nobody"]


def _other_operator(model: ModelProto, rng: random.Random) -> None:
    node, schema = _node(model, rng), rng.choice(schemas())
    node.op_type, node.domain = schema.name, schema.domain
    if rng.random() < 0.7:
        del node.attribute[:]
        for name, attribute in sorted(schema.attributes.items()):
            if attribute.required or rng.random() < 0.4:
                node.attribute.append(_attribute(name, attribute, rng))
    if schema.domain and not any(item.domain == schema.domain for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid(schema.domain, 3))


def _drawn_attribute(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    known = next((item for item in schemas() if item.name == node.op_type and item.domain == node.domain), None)
    if known is None or not known.attributes:
        return
    name, attribute = rng.choice(sorted(known.attributes.items()))
    for at in reversed(range(len(node.attribute))):
        if node.attribute[at].name == name:
            del node.attribute[at]
    node.attribute.append(_attribute(name, attribute, rng))


def _other_input(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.input and rng.random() < 0.7:
        node.input[rng.randrange(len(node.input))] = rng.choice(_names(model))
    else:
        node.input.extend(rng.choice((["", ""], [""], [rng.choice(_names(model))])))


def _without_input(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.input:
        del node.input[rng.randrange(len(node.input))]


def _other_output(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.output and rng.random() < 0.6:
        node.output[rng.randrange(len(node.output))] = rng.choice(_names(model))
    else:
        node.output.append(rng.choice(("", "more", *_names(model))))


def _cycle(model: ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    later = _node(model, rng)
    if node.input and later.output:
        node.input[0] = later.output[0]


def _other_type(model: ModelProto, rng: random.Random) -> None:
    ends = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not ends:
        return
    kind = rng.choice(ends).type
    what = rng.randrange(4)
    dims = kind.tensor_type.shape.dim
    if what == 0:
        kind.tensor_type.elem_type = rng.randrange(0, 24)
    elif what == 1 and dims:
        size = rng.choice((*_SIZES, *_WILD_SIZES))
        dim = dims[rng.randrange(len(dims))]
        dim.Clear()
        if isinstance(size, int):
            dim.dim_value = size
        elif size is not None:
            dim.dim_param = size
    elif what == 2:
        dims.add().dim_value = rng.choice(_SIZES)
    elif dims:
        del dims[rng.randrange(len(dims))]


def _other_constant(model: ModelProto, rng: random.Random) -> None:
    stored = model.graph.initializer
    if not stored:
        return
    tensor = stored[rng.randrange(len(stored))]
    shape = list(tensor.dims) if rng.random() < 0.5 else [rng.choice(_SIZES) for _ in range(rng.randrange(4))]
    if shape and (max(shape) > 64 or min(shape) < 0):  # a size may be one of an earlier change
        shape = [2]
    dtype = rng.choice((np.int64, np.float32, np.int32, np.bool_, np.float64, np.float16))
    tensor.CopyFrom(_tensor(tensor.name, dtype, shape, rng))
    if rng.random() < 0.2 and tensor.dims:
        tensor.dims[0] = rng.choice((-1, 0, 7, 2**40))


def _within(model: ModelProto, rng: random.Random) -> None:
    """The last node in a body of an If, a Loop or a Scan."""
    graph = model.graph
    if not graph.node:
        return
    node = NodeProto()
    node.CopyFrom(graph.node[-1])
    body = helper.make_graph([node], "within", [], [onnx.ValueInfoProto(name=name) for name in node.output if name])
    kind = rng.choice(("If", "Loop", "Scan"))
    graph.initializer.append(numpy_helper.from_array(np.array(rng.random() < 0.5), "choice"))
    graph.initializer.append(numpy_helper.from_array(np.array(rng.choice((0, 1, 3, 2**40))), "rounds"))
    attributes: dict[str, Any] = {"then_branch": body, "else_branch": body} if kind == "If" else {"body": body}
    if kind == "Scan":
        attributes["num_scan_inputs"] = rng.choice((0, 1, 2, -1))
    inputs = {"If": ["choice"], "Loop": ["rounds", "choice"], "Scan": list(node.input)}[kind]
    graph.node[-1].CopyFrom(helper.make_node(kind, inputs, list(node.output), "around", **attributes))


def _as_function(model: ModelProto, rng: random.Random) -> None:
    """A node in a function of the model's own, which may call itself."""
    node = _node(model, rng)
    inner = NodeProto()
    inner.CopyFrom(node)
    if rng.random() < 0.15:
        inner.op_type, inner.domain = "F", "own"
    opsets = [helper.make_opsetid(item.domain, item.version) for item in model.opset_import]
    names = [name for name in dict.fromkeys(node.input) if name]
    outputs = [name for name in dict.fromkeys(node.output) if name]
    model.functions.append(helper.make_function("own", "F", names, outputs, [inner], opsets))
    node.op_type, node.domain = "F", "own"
    del node.attribute[:]
    del node.input[:]
    node.input.extend(names)
    if not any(item.domain == "own" for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid("own", 1))


def _external(model: ModelProto, rng: random.Random) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    places = {
        "location": rng.choice(("m.onnx", "x.npz", "none.bin", "../m.onnx", "/dev/zero", "", ".")),
        "offset": rng.choice(("0", "1", "-1", "x", "99999999999")),
        "length": rng.choice(("0", "4", "64", "-4", "99999999999999999999")),
    }
    for key, value in places.items():
        if rng.random() < 0.8:
            tensor.external_data.add(key=key, value=value)


def _opset(model: ModelProto, rng: random.Random) -> None:
    if model.opset_import:
        rng.choice(model.opset_import).version = rng.choice(
            (0, 1, 6, 8, 9, 10, 12, 14, 16, 19, 22, 24, 25, 27, 100, -1)
        )
    model.ir_version = rng.choice((3, 4, 7, 8, 10, 12, model.ir_version))


def _doubled(model: ModelProto, rng: random.Random) -> None:
    """A node, an input or a constant that is there twice."""
    held: Any = rng.choice((model.graph.node, model.graph.input, model.graph.initializer, model.graph.output))
    if held:
        copy = type(held[0])()
        copy.CopyFrom(held[rng.randrange(len(held))])
        held.append(copy)


def _shuffled(model: ModelProto, rng: random.Random) -> None:
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _another_node(model: ModelProto, rng: random.Random) -> None:
    values = [name for name in _names(model) if name]
    at = len(model.graph.node)
    node = _drawn_node(model.graph, rng.choice(schemas()), 50 + at, values, rng)
    model.graph.node.append(node)
    if rng.random() < 0.5 and model.graph.output and node.output:
        model.graph.output[0].name = node.output[0]


def _sparse(model: ModelProto, rng: random.Random) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.dims.extend([rng.choice((2, 3, 2**40))])
    sparse.values.CopyFrom(_tensor(rng.choice(_names(model)), np.float32, [2], rng))
    sparse.indices.CopyFrom(_tensor("", np.int64, [2], rng))


def _spliced(model: ModelProto, other: ModelProto, rng: random.Random) -> None:
    """Some nodes and all constants of another model, behind one's own."""
    model.graph.node.extend(node for node in other.graph.node if rng.random() < 0.5)
    model.graph.initializer.extend(other.graph.initializer)


CHANGES: tuple[Callable[[ModelProto, random.Random], None], ...] = (
    _other_operator,
    _other_operator,
    _other_operator,
    _drawn_attribute,
    _drawn_attribute,
    _other_input,
    _other_input,
    _without_input,
    _other_output,
    _cycle,
    _other_type,
    _other_type,
    _other_constant,
    _other_constant,
    _within,
    _as_function,
    _external,
    _opset,
    _doubled,
    _shuffled,
    _another_node,
    _another_node,
    _sparse,
)

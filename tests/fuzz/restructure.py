"""Models with their structure changed: other operators, attributes, inputs, types, bodies and files."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .structures import SIZES, WILD_SIZES, drawn_attribute, drawn_node, drawn_tensor, schemas


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
                node.attribute.append(drawn_attribute(name, attribute, rng))
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
    node.attribute.append(drawn_attribute(name, attribute, rng))


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
        size = rng.choice((*SIZES, *WILD_SIZES))
        dim = dims[rng.randrange(len(dims))]
        dim.Clear()
        if isinstance(size, int):
            dim.dim_value = size
        elif size is not None:
            dim.dim_param = size
    elif what == 2:
        dims.add().dim_value = rng.choice(SIZES)
    elif dims:
        del dims[rng.randrange(len(dims))]


def _other_constant(model: ModelProto, rng: random.Random) -> None:
    stored = model.graph.initializer
    if not stored:
        return
    tensor = stored[rng.randrange(len(stored))]
    shape = list(tensor.dims) if rng.random() < 0.5 else [rng.choice(SIZES) for _ in range(rng.randrange(4))]
    if shape and (max(shape) > 64 or min(shape) < 0):  # a size may be one of an earlier change
        shape = [2]
    dtype = rng.choice((np.int64, np.float32, np.int32, np.bool_, np.float64, np.float16))
    tensor.CopyFrom(drawn_tensor(tensor.name, dtype, shape, rng))
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
    node = drawn_node(model.graph, rng.choice(schemas()), 50 + at, values, rng)
    model.graph.node.append(node)
    if rng.random() < 0.5 and model.graph.output and node.output:
        model.graph.output[0].name = node.output[0]


def _sparse(model: ModelProto, rng: random.Random) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.dims.extend([rng.choice((2, 3, 2**40))])
    sparse.values.CopyFrom(drawn_tensor(rng.choice(_names(model)), np.float32, [2], rng))
    sparse.indices.CopyFrom(drawn_tensor("", np.int64, [2], rng))


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

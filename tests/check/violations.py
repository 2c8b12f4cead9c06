"""For each rule of the checker a file that violates it, and the same file once the rule's own fix is applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from lstm_onnx.check.rules import all_rules
from tests.conformance.by_hand import PARAMETERS, SIZE, H, graph_of, inputs_of
from tests.conformance.nodes import Array, Node, save

from .models import PLAIN, export

Edit = Callable[[ModelProto], object]
STATES = {"initial_h": "Y_h", "initial_c": "Y_c"}
LENGTHS = ("sequence_lens", "initial_h", "initial_c")


def nothing(model: ModelProto) -> None:
    """The file as it is."""


class Case(NamedTuple):
    """Two edits of one file: `breaks` makes the rule speak, `mends` is what its fix makes of that."""

    breaks: Edit
    mends: Edit = nothing
    provider: str = "cpu"
    given: tuple[str, ...] = tuple(STATES)
    opset: int = 17
    source: Callable[[Path], Path] | None = None


def base(folder: Path, case: Case, edit: Edit) -> Path:
    """One LSTM of named axes and paired states, of which no rule has anything to say, after `edit`."""
    path = folder / "m.onnx"
    if case.source is not None:
        case.source(folder)
    else:
        Node(inputs_of(*case.given)).save(path, opset=case.opset)
    model = onnx.load_model(path)
    if case.source is None:
        pair(STATES)(model)
    edit(model)
    (folder / "weights.bin").write_bytes(bytes(4 * PARAMETERS))
    path.write_bytes(model.SerializeToString())
    return path


# --- Edits, each of which can be one of several ---


def renamed(old: str, new: str) -> Edit:
    """An entry of the metadata."""

    def edit(model: ModelProto) -> None:
        next(item for item in model.metadata_props if item.key == old).key = new

    return edit


def pair(states: Mapping[str, str]) -> Edit:
    def edit(model: ModelProto) -> None:
        del model.metadata_props[:]
        if states:
            helper.set_model_props(model, {"lstm_onnx.states": str(dict(states)).replace("'", '"')})

    return edit


def all_of(*edits: Edit) -> Edit:
    return lambda model: [edit(model) for edit in edits]


def attributes(**values: Any) -> Edit:
    return lambda model: lstm(model).attribute.extend(
        helper.make_attribute(name, value) for name, value in values.items()
    )


def lstm(model: ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "LSTM")


def without_input(name: str) -> Edit:
    """The LSTM and the model take it no more."""

    def edit(model: ModelProto) -> None:
        node = lstm(model)
        node.input[:] = ["" if item == name else item for item in node.input]
        model.graph.input.remove(next(item for item in model.graph.input if item.name == name))

    return edit


def store(**arrays: Array) -> Edit:
    """Put initializers in, or others in their place."""

    def edit(model: ModelProto) -> None:
        kept = [tensor for tensor in model.graph.initializer if tensor.name not in arrays]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*kept, *(numpy_helper.from_array(a, name) for name, a in arrays.items())])

    return edit


def then(op_type: str, *more: str, source: str = "Y", rank: int = 4, domain: str = "", **values: Any) -> Edit:
    """One more node, behind an output, whose result is the output `z`."""

    def edit(model: ModelProto) -> None:
        node = helper.make_node(op_type, [source, *more], ["z"], "then", domain=domain, **values)
        model.graph.node.append(node)
        model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None] * rank))
        if domain and all(item.domain != domain for item in model.opset_import):
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return edit


def parts(count: int) -> Edit:
    """The hidden features in three parts, by a Split that says it has `count` of them."""

    def edit(model: ModelProto) -> None:
        if model.graph.node[-1].op_type == "Split":
            model.graph.node.pop()
            del model.graph.output[-3:]
        names = [f"part{index}" for index in range(3)]
        model.graph.node.append(helper.make_node("Split", ["Y"], names, "then", axis=3, num_outputs=count))
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in names)

    return edit


def input_of(name: str, shape: Any, kind: int = TensorProto.FLOAT) -> Edit:
    return lambda model: model.graph.input.append(helper.make_tensor_value_info(name, kind, shape))


def axis(name: str, at: int, size: int | str | None) -> Edit:
    """Another size, or name, of an axis of an input or output; None leaves it without either."""

    def edit(model: ModelProto) -> None:
        value = next(item for item in (*model.graph.input, *model.graph.output) if item.name == name)
        dim = value.type.tensor_type.shape.dim[at]
        dim.Clear()
        if isinstance(size, str):
            dim.dim_param = size
        elif size is not None:
            dim.dim_value = size

    return edit


def outside(location: str) -> Edit:
    """The weights' numbers lie in another file."""

    def edit(model: ModelProto) -> None:
        for tensor in model.graph.initializer:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            del tensor.external_data[:]
            tensor.external_data.add(key="location", value=location)

    return edit


def local_function(model: ModelProto) -> None:
    opsets = [helper.make_opsetid("", 17)]
    node = helper.make_node("Neg", ["x"], ["y"])
    model.functions.append(helper.make_function("com.example", "Scale", ["x"], ["y"], [node], opsets))


def twice(model: ModelProto) -> None:
    """A second LSTM with weights of its own that are the same."""
    node = lstm(model)
    for tensor in list(model.graph.initializer):
        model.graph.initializer.append(tensor)
        model.graph.initializer[-1].name += "2"
    names = [f"{name}2" if name in "WRB" else name for name in node.input]
    model.graph.node.append(helper.make_node("LSTM", names, ["z"], "second", hidden_size=12))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ("time", 1, "batch", 12)))


def shared(model: ModelProto) -> None:
    node = model.graph.node[1]
    node.input[:] = [name.removesuffix("2") for name in node.input]
    kept = [tensor for tensor in model.graph.initializer if not tensor.name.endswith("2")]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def large(folder: Path) -> Path:
    """An LSTM whose weights are large enough to tell that they are the same."""
    rng = np.random.default_rng(0)
    shapes = {"X": (3, 2, 8), "W": (1, 48, 8), "R": (1, 48, 12), "B": (1, 96)}
    return Node({name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}).save(
        folder / "m.onnx"
    )


def typed(dtype: Any, kind: int, opset: int = 17) -> Callable[[Path], Path]:
    """The same LSTM in another precision."""

    def make(folder: Path) -> Path:
        inputs = {name: array.astype(dtype) for name, array in inputs_of().items()}
        return Node(inputs).save(folder / "m.onnx", opset=opset, dtype=kind)

    return make


def in_float32(model: ModelProto) -> None:
    for tensor in list(model.graph.initializer):
        store(**{tensor.name: numpy_helper.to_array(tensor).astype(np.float32)})(model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT


def quantized(folder: Path) -> Path:
    """ONNX Runtime's own LSTM in int8."""
    numbers = np.random.default_rng(0).integers(-127, 128, (1, max(SIZE, H), 4 * H)).astype(np.int8)
    stored = {"W": numbers[:, :SIZE], "R": numbers[:, :H]}
    for name in "WR":
        stored |= {f"{name}_scale": np.full(1, 0.005, np.float32), f"{name}_zero": np.zeros(1, np.int8)}
    names = ["X", "W", "R", "", "", "", "", "", "W_scale", "W_zero", "R_scale", "R_zero"]
    node = helper.make_node("DynamicQuantizeLSTM", names, ["Y"], "rnn", hidden_size=H, domain="com.microsoft")
    graph = graph_of([node], {"X": ("time", "batch", SIZE)}, {"Y": ("time", 1, "batch", H)}, stored)
    path = save(graph, folder / "m.onnx")
    model = onnx.load_model(path)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path.write_bytes(model.SerializeToString())
    return path


def seven_bits(model: ModelProto) -> None:
    for tensor in list(model.graph.initializer):
        if tensor.name in "WR":
            store(**{tensor.name: numpy_helper.to_array(tensor) // 2})(model)


CASES: dict[str, Case] = {
    "valid-onnx": Case(attributes(hiden_size=H), lambda model: lstm(model).attribute.pop()),
    "metadata": Case(
        renamed("lstm_onnx.weights", "gone"),
        renamed("gone", "lstm_onnx.weights"),
        source=lambda folder: export(folder, PLAIN),
    ),
    "external-data": Case(outside("../weights.bin"), outside("weights.bin")),
    "unknown-operator": Case(then("Scale", domain="com.example"), local_function),
    "contrib-operator": Case(
        then("QuickGelu", domain="com.microsoft"), lambda model: [model.graph.node.pop(), model.graph.output.pop()]
    ),
    "resource-bomb": Case(
        all_of(store(n=np.array([2**31])), lambda model: then("ConstantOfShape", source="n", rank=1)(model)),
        store(n=np.array([2**10])),
    ),
    "initializer-input": Case(input_of("W", (1, 4 * H, SIZE)), lambda model: model.graph.input.pop()),
    "doubled-weights": Case(twice, shared, source=large),
    "non-finite-weights": Case(
        store(R=np.full((1, 4 * H, H), np.nan, np.float32)), store(R=np.zeros((1, 4 * H, H), np.float32))
    ),
    "training-mode": Case(
        all_of(store(p=np.array(0.5, np.float32), on=np.array(True)), then("Dropout", "p", "on")),
        store(on=np.array(False)),
    ),
    "random-operator": Case(
        then("RandomNormalLike"),
        lambda model: [
            model.graph.node.pop(),
            model.graph.output.pop(),
            input_of("z0", ("n",))(model),
            then("Neg", source="z0", rank=1)(model),
        ],
    ),
    "crashing-node": Case(all_of(parts(2), lambda model: setattr(model.opset_import[0], "version", 18)), parts(3)),
    "dynamic-axes": Case(axis("X", 0, 5), axis("X", 0, "time")),
    "frozen-literal": Case(
        all_of(store(shape=np.array([5, 2, H])), then("Reshape", "shape", rank=3)), store(shape=np.array([0, -1, H]))
    ),
    "frozen-slice": Case(
        all_of(store(start=np.array([0]), end=np.array([4])), then("Slice", "start", "end")),
        store(end=np.array([2**63 - 1])),
    ),
    "state-batch": Case(
        all_of(axis("initial_h", 1, 2), axis("Y_h", 1, 2)),
        all_of(axis("initial_h", 1, "batch"), axis("Y_h", 1, "batch")),
    ),
    "unnamed-axes": Case(axis("X", 0, None), axis("X", 0, "time")),
    "states-paired": Case(pair({"initial_h": "Y_c", "initial_c": "Y_h"}), pair(STATES)),
    "not-streamable": Case(
        then("Softmax", axis=0),
        lambda model: model.graph.node[-1].attribute[0].CopyFrom(helper.make_attribute("axis", 3)),
    ),
    "loose-states": Case(pair({}), pair(STATES)),
    "lost-state": Case(
        all_of(pair({}), lambda model: model.graph.output.pop()),
        all_of(
            pair(STATES),
            lambda model: model.graph.output.add().CopyFrom(
                helper.make_tensor_value_info("Y_c", TensorProto.FLOAT, (1, "batch", H))
            ),
        ),
    ),
    "h0-without-c0": Case(
        all_of(pair({"initial_h": "Y_h"}), without_input("initial_c")), all_of(pair({}), without_input("initial_h"))
    ),
    "lengths-type": Case(
        lambda model: setattr(model.graph.input[1].type.tensor_type, "elem_type", TensorProto.INT64),
        lambda model: [
            model.graph.node.insert(0, helper.make_node("Cast", ["sequence_lens"], ["lens32"], to=TensorProto.INT32)),
            lstm(model).input.__setitem__(4, "lens32"),
        ],
        given=LENGTHS,
    ),
    "lengths-constant": Case(
        all_of(lambda model: model.graph.input.pop(1), store(sequence_lens=np.array([5, 3], np.int32))),
        all_of(lambda model: model.graph.initializer.pop(), input_of("sequence_lens", ("batch",), TensorProto.INT32)),
        given=LENGTHS,
    ),
    "lengths-ignored": Case(
        all_of(store(last=np.array(-1)), then("Gather", "last", rank=3)),
        lambda model: [model.graph.node.pop(), model.graph.output.pop(), then("Identity", source="Y_h", rank=3)(model)],
        given=LENGTHS,
    ),
    "ignored-input": Case(
        lambda model: lstm(model).input.__setitem__(4, ""),
        lambda model: lstm(model).input.__setitem__(4, "sequence_lens"),
        given=LENGTHS,
    ),
    "layout": Case(attributes(layout=1), lambda model: lstm(model).attribute.pop()),
    "weight-shapes": Case(
        store(R=np.zeros((1, 4 * H, H + 1), np.float32)), store(R=np.zeros((1, 4 * H, H), np.float32))
    ),
    "attributes": Case(
        attributes(activations=["Sigmoid", "Tanh"]),
        lambda model: [lstm(model).attribute.pop(), attributes(activations=["Sigmoid", "Tanh", "Tanh"])(model)],
    ),
    "clip": Case(attributes(clip=0.3), lambda model: lstm(model).attribute.pop()),
    "activation-numbers": Case(
        attributes(activations=["Sigmoid", "ThresholdedRelu", "Tanh"]), attributes(activation_alpha=[1.0])
    ),
    "runnable": Case(
        all_of(store(shape=np.array([-1, 2, H])), then("Reshape", "shape", rank=3)), store(shape=np.array([-1, 1, H]))
    ),
    "opset-on-cuda": Case(
        nothing, lambda model: setattr(model.opset_import[0], "version", 21), provider="auto", opset=22
    ),
    "variant-on-cuda": Case(attributes(input_forget=1), lambda model: lstm(model).attribute.pop(), provider="auto"),
    "float64-on-cpu": Case(nothing, in_float32, source=typed(np.float64, TensorProto.DOUBLE)),
    "float16-on-cpu": Case(nothing, in_float32, source=typed(np.float16, TensorProto.FLOAT16)),
    "bfloat16": Case(
        nothing,
        in_float32,
        source=typed(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16), TensorProto.BFLOAT16, opset=22),
    ),
    "int8-saturation": Case(nothing, seven_bits, source=quantized),
}
"""By the rule's name.  What two files cannot show has tests of its own: see OTHERS."""
OTHERS = {
    "int8-batch": "mended by another file: test_int8.py",
    "int8-in-browsers": "mended by another file: test_int8.py",
    "int8-on-cuda": "mended by another provider: test_int8.py",
    "int8-without-vnni": "mended by another file: test_int8.py",
    "provider": "a matter of placements: test_session.py",
    "fatal-optimizer": "mended by another program: test_isolated.py",
    "loop-on-cuda": "mended by another export: test_providers.py",
    **{rule.name: "on another engine: test_targets.py" for rule in all_rules() if rule.target},
}

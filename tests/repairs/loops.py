"""Files as tf2onnx writes Keras' recurrent layers: a Loop over the steps, batch first outside, time first within."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

FEATURES, UNITS = 5, 4
GATES = {"gru": 3, "gru_before": 3, "lstm": 4, "rnn": 1}


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(-0.6, 0.6, shape).astype(np.float32)


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, inputs.split(), outputs.split(), **attributes)


def gru_step(*, before: bool) -> list[NodeProto]:
    """Keras' GRU, whose biases are the two rows of one tensor, and whose gates are z, r, h."""
    nodes = [
        node("Split", "bias", "rows0 rows1", axis=0),
        node("Squeeze", "rows0 axis0", "bias_x"),
        node("Squeeze", "rows1 axis0", "bias_h"),
        node("MatMul", "x_t kernel", "by_x"),
        node("Add", "by_x bias_x", "of_x"),
        node("Split", "of_x", "xz xr xh", axis=-1),
    ]
    if before:  # the reset gate acts on h, and there is one bias
        nodes += [
            node("Slice", "recurrent zero two axis1", "kernel_zr"),
            node("Slice", "recurrent two three axis1", "kernel_h"),
            node("MatMul", "h kernel_zr", "by_h"),
            node("Split", "by_h", "hz hr", axis=-1),
            node("Add", "xr hr", "r_sum"),
            node("Sigmoid", "r_sum", "r"),
            node("Mul", "r h", "rh"),
            node("MatMul", "rh kernel_h", "hh"),
        ]
    else:
        nodes += [
            node("MatMul", "h recurrent", "by_h"),
            node("Add", "by_h bias_h", "of_h"),
            node("Split", "of_h", "hz hr hh0", axis=-1),
            node("Add", "xr hr", "r_sum"),
            node("Sigmoid", "r_sum", "r"),
            node("Mul", "r hh0", "hh"),
        ]
    return [
        *nodes,
        node("Add", "xz hz", "z_sum"),
        node("Sigmoid", "z_sum", "z"),
        node("Add", "xh hh", "new_sum"),
        node("Tanh", "new_sum", "new"),
        node("Mul", "z h", "kept"),
        node("Sub", "one z", "rest"),
        node("Mul", "rest new", "written"),
        node("Add", "kept written", "h_next"),
    ]


def lstm_step() -> list[NodeProto]:
    """Keras' LSTM: gates i, f, c, o."""
    return [
        node("MatMul", "x_t kernel", "by_x"),
        node("MatMul", "h recurrent", "by_h"),
        node("Add", "by_x by_h", "both"),
        node("Add", "both bias", "gates"),
        node("Split", "gates", "i f g o", axis=-1),
        *(
            node(kind, name, f"{name}_")
            for name, kind in zip("ifgo", ("Sigmoid", "Sigmoid", "Tanh", "Sigmoid"), strict=True)
        ),
        node("Mul", "f_ c", "kept"),
        node("Mul", "i_ g_", "written"),
        node("Add", "kept written", "c_next"),
        node("Tanh", "c_next", "shown"),
        node("Mul", "o_ shown", "h_next"),
    ]


def rnn_step() -> list[NodeProto]:
    return [
        node("Gemm", "x_t kernel bias", "by_x"),
        node("MatMul", "h recurrent", "by_h"),
        node("Add", "by_x by_h", "both"),
        node("Tanh", "both", "h_next"),
    ]


def loop_file(
    path: Path,
    kind: str,
    *,
    batch: int | str = "n",
    extra: tuple[NodeProto, ...] = (),
    until: str = "more",
    state: str = "h_next",
    form: str = "Loop",
    cell: str = "c_next",
    outer: tuple[NodeProto, ...] = (),
) -> Path:
    """Write a layer: ``x (batch, steps, 5)`` in, ``y (batch, steps, 4)`` out.

    `extra` nodes follow the step, `until` is the condition of the body, `state` what h becomes, and `cell` what c does;
    `outer` nodes come before the loop.
    """
    gates = GATES[kind]
    step = {"lstm": lstm_step, "rnn": rnn_step}.get(kind, lambda: gru_step(before=kind == "gru_before"))()
    bias = drawn(2 if kind.startswith("gru") else 1, gates * UNITS, seed=3)
    if kind == "gru_before":
        bias[1] = 0
    stored = {
        "kernel": drawn(FEATURES, gates * UNITS, seed=1),
        "recurrent": drawn(UNITS, gates * UNITS, seed=2),
        "bias": bias if kind.startswith("gru") else bias[0],
        "one": np.float32(1),
        "axis0": np.array([0]),
        "axis1": np.array([1]),
        "zero": np.array([0]),
        "two": np.array([2 * UNITS]),
        "three": np.array([3 * UNITS]),
        "first": np.int64(0),
        "step1": np.int64(1),
        "width": np.array([UNITS]),
        "true": np.bool_(True),
        "nothing": np.float32(0),
    }
    states = ["h", "c"] if kind == "lstm" else ["h"]
    after = [state, *([cell] if kind == "lstm" else [])]
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in states]
    sizes = [
        node("Transpose", "x", "steps_first", perm=[1, 0, 2]),
        node("Shape", "x", "sizes"),
        node("Slice", "sizes zero axis1 axis0", "n_rows"),
        node("Concat", "n_rows width", "state_shape", axis=0),
        node("Expand", "nothing state_shape", "zeros"),
        node("Gather", "sizes step1", "n_steps", axis=0),
    ]
    if form == "Scan":
        body = helper.make_graph(
            [*step, *extra, node("Identity", state, "y_t")],
            "body",
            [*floats, helper.make_tensor_value_info("x_t", TensorProto.FLOAT, None)],
            [helper.make_empty_tensor_value_info(name) for name in (*after, "y_t")],
        )
        loop = helper.make_node(
            "Scan",
            ["zeros"] * len(states) + ["steps_first"],
            [*(f"last_{n}" for n in states), "ys"],
            "scan",
            body=body,
            num_scan_inputs=1,
        )
    else:
        body = helper.make_graph(
            [
                node("Add", "number step1", "number_next"),
                node("Less", "number_next limit", "more"),
                node("Gather", "steps_first number", "x_t"),
                *step,
                *extra,
                node("Identity", "limit", "limit_out"),
                node("Identity", state, "y_t"),
            ],
            "body",
            [
                helper.make_tensor_value_info("iteration", TensorProto.INT64, ()),
                helper.make_tensor_value_info("condition", TensorProto.BOOL, ()),
                helper.make_tensor_value_info("number", TensorProto.INT64, ()),
                *floats,
                helper.make_tensor_value_info("limit", TensorProto.INT64, ()),
            ],
            [helper.make_empty_tensor_value_info(name) for name in (until, "number_next", *after, "limit_out", "y_t")],
        )
        outputs = ["last_number", *(f"last_{name}" for name in states), "last_limit", "ys"]
        loop = helper.make_node(
            "Loop",
            ["n_steps", "true", "first", *["zeros"] * len(states), "n_steps"],
            outputs,
            "model/layer/while_loop",
            body=body,
        )
    graph = helper.make_graph(
        [*sizes, *outer, loop, node("Transpose", "ys", "y", perm=[1, 0, 2])],
        "keras",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, "t", FEATURES))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, "t", UNITS))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tf2onnx"),
        path,
    )
    return path


def unrolled_file(path: Path, kind: str, steps: int, *, sequence: bool, odd: str = "") -> Path:
    """Write a layer with its nodes again for each step: ``x (n, steps, 5)`` in, ``y`` out: the last h, or all.

    With `odd`, the name of an operator, that one is another in the last step but one.
    """
    loop = onnx.load(loop_file(path, kind))
    body = next(item.g for item in loop.graph.node[6].attribute if item.name == "body")
    names = {"lstm": ("h", "c")}.get(kind, ("h",))
    step = [
        item
        for item in body.node
        if item.op_type not in ("Less", "Identity") and item.output[0] not in ("number_next", "x_t")
    ]
    shared = {item.name for item in loop.graph.initializer}
    state = dict.fromkeys(names, "zeros")
    once = []
    for item in step:  # what is the same in each step
        if set(item.input) <= shared:
            once.append(item)
            shared |= set(item.output)
    step = [item for item in step if not any(item is other for other in once)]
    nodes = [
        *once,
        *list(loop.graph.node)[:6],
        helper.make_node("Split", ["steps_first"], [f"s{t}" for t in range(steps)], axis=0),
    ]
    for t in range(steps):
        nodes.append(helper.make_node("Squeeze", [f"s{t}", "axis0"], [f"x{t}"]))
        mapped = {"x_t": f"x{t}", **state}
        for item in step:
            inputs = [mapped.get(name, name if name in shared else f"{name}{t}") for name in item.input]
            outputs = [f"{name}{t}" for name in item.output]
            copied = helper.make_node(item.op_type, inputs, outputs)
            copied.attribute.extend(item.attribute)
            if odd == item.op_type and t == steps - 2:
                copied.op_type = {"Tanh": "Sigmoid"}[odd]
            nodes.append(copied)
        state = {name: f"{name}_next{t}" for name in names}
    if sequence:
        nodes += [helper.make_node("Unsqueeze", [f"h_next{t}", "axis1"], [f"u{t}"]) for t in range(steps)]
        nodes.append(helper.make_node("Concat", [f"u{t}" for t in range(steps)], ["y"], axis=1))
    else:
        nodes.append(helper.make_node("Identity", [state["h"]], ["y"]))
    shape = ("n", steps, UNITS) if sequence else ("n", UNITS)
    graph = helper.make_graph(
        nodes,
        "unrolled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", steps, FEATURES))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        list(loop.graph.initializer),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path

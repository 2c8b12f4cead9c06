"""Random graphs of stages along time, for the rewrite to be compared with whole runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

Stage = Callable[["Builder"], None]


@dataclass
class Builder:
    """A graph whose current value is (batch, channels, time) or, if not `first`, (batch, time, channels)."""

    rng: random.Random
    nodes: list = field(default_factory=list)
    initializers: list = field(default_factory=list)
    x: str = "x"
    channels: int = 4
    first: bool = True
    count: int = 0
    earlier: list[tuple[str, int]] = field(default_factory=list)
    """Values (batch, channels, time) that may have the current one's number of steps."""
    outputs: list[str] = field(default_factory=list)

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        self.count += 1
        names = [f"v{self.count}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"{op.lower()}{self.count}/{op}", **attributes))
        return names[0]

    def const(self, array: object, dtype: type = np.int64) -> str:
        self.count += 1
        self.initializers.append(numpy_helper.from_array(np.asarray(array, dtype), f"c{self.count}"))
        return f"c{self.count}"

    def weight(self, *shape: int) -> str:
        values = np.random.default_rng(self.rng.randrange(2**31)).standard_normal(shape)
        return self.const(values * 0.5, np.float32)

    def channels_first(self) -> None:
        if not self.first:
            self.x = self.add("Transpose", self.x, perm=[0, 2, 1])
            self.first = True

    def time_first(self) -> str:
        """(time, batch, channels)."""
        return self.add("Transpose", self.x, perm=[2, 0, 1] if self.first else [1, 0, 2])

    def cut(self, x: str, start: int, stop: int, axis: int, step: int = 1) -> str:
        return self.add("Slice", x, *(self.const([value]) for value in (start, stop, axis, step)))


def conv(b: Builder) -> None:
    b.channels_first()
    kernel, dilation, stride = b.rng.randint(1, 5), b.rng.choice([1, 1, 2, 3]), b.rng.choice([1, 1, 1, 2, 3])
    groups = b.rng.choice([1, 1, b.channels])
    reach = (kernel - 1) * dilation
    pads = b.rng.choice(
        [[reach, 0], [reach // 2, reach - reach // 2], [0, 0], [b.rng.randint(0, 6), b.rng.randint(0, 4)]]
    )
    out = b.channels if groups > 1 else b.rng.choice([3, 4, 6])
    b.x = b.add("Conv", b.x, b.weight(out, b.channels // groups, kernel), b.weight(out), kernel_shape=[kernel],
                dilations=[dilation], strides=[stride], group=groups, pads=pads)  # fmt: skip
    b.channels = out


def conv_same(b: Builder) -> None:
    b.channels_first()
    kernel = b.rng.randint(1, 6)
    b.x = b.add("Conv", b.x, b.weight(4, b.channels, kernel), auto_pad=b.rng.choice(["SAME_UPPER", "SAME_LOWER"]))
    b.channels = 4


def conv_2d(b: Builder) -> None:
    b.channels_first()
    x = b.add("Unsqueeze", b.x, b.const([1]))
    pads = b.rng.choice([[1, 2, 1, 0], [1, 1, 1, 1], [1, 0, 1, 2]])
    y = b.add("Conv", x, b.weight(2, 1, 3, 3), b.weight(2), pads=pads, strides=[1, b.rng.choice([1, 1, 2])])
    y = b.add("Transpose", y, perm=[0, 3, 1, 2])
    shape = b.add("Concat", b.add("Shape", y, end=2), b.const([-1]), axis=0)
    shape = b.add("Concat", b.add("Shape", y, end=1), b.const([-1, 2 * b.channels]), axis=0)
    b.x, b.channels, b.first = b.add("Reshape", y, shape), 2 * b.channels, False


def max_pool(b: Builder) -> None:
    b.channels_first()
    kernel = b.rng.randint(1, 4)
    left, right = b.rng.randint(0, kernel - 1), b.rng.randint(0, kernel - 1)
    b.x = b.add("MaxPool", b.x, kernel_shape=[kernel], strides=[b.rng.choice([1, 2, 3])], pads=[left, right],
                ceil_mode=b.rng.randint(0, 1))  # fmt: skip


def average_pool(b: Builder) -> None:
    b.channels_first()
    kernel = b.rng.randint(1, 4)
    pads = [b.rng.randint(0, kernel - 1), b.rng.randint(0, kernel - 1)]
    b.x = b.add("AveragePool", b.x, kernel_shape=[kernel], strides=[b.rng.choice([1, 1, 2])], pads=pads,
                count_include_pad=b.rng.randint(0, 1), ceil_mode=b.rng.randint(0, 1))  # fmt: skip


def transposed_conv(b: Builder) -> None:
    b.channels_first()
    kernel, stride = b.rng.randint(1, 5), b.rng.randint(1, 3)
    left, right = b.rng.randint(0, 2), b.rng.randint(0, 2)
    b.x = b.add("ConvTranspose", b.x, b.weight(b.channels, 4, kernel), b.weight(4), strides=[stride],
                pads=[left, right], dilations=[b.rng.choice([1, 1, 2])])  # fmt: skip
    b.channels = 4


def pad(b: Builder) -> None:
    b.channels_first()
    mode = b.rng.choice(["constant", "constant", "reflect", "edge"])
    low = -2 if mode == "constant" else 0
    left, right = b.rng.randint(low, 5), b.rng.randint(low, 4)
    value = [b.const(b.rng.choice([0.0, 1.5]), np.float32)] if mode == "constant" else []
    b.x = b.add("Pad", b.x, b.const([0, 0, left, 0, 0, right]), *value, mode=mode)


def cut_ends(b: Builder) -> None:
    start, stop = b.rng.randint(0, 3), b.rng.choice([2**40, -1, -2])
    b.x = b.cut(b.x, start, stop, 2 if b.first else 1)


def every(b: Builder) -> None:
    b.x = b.cut(b.x, b.rng.randint(0, 1), 2**40, 2 if b.first else 1, b.rng.randint(1, 3))


def zeros_before(b: Builder, x: str, steps: int) -> str:
    shape = b.add("Concat", b.add("Shape", x, end=1), b.const([b.channels, steps]), axis=0)
    zeros = b.add("ConstantOfShape", shape, value=numpy_helper.from_array(np.array([0.5], np.float32)))
    return b.add("Concat", zeros, x, axis=2)


def shift(b: Builder) -> None:
    b.channels_first()
    steps = b.rng.randint(1, 3)
    b.x = zeros_before(b, b.cut(b.x, 0, -steps, 2), steps)


def learned_ends(b: Builder) -> None:
    b.channels_first()
    shape = b.add("Concat", b.add("Shape", b.x, end=1), b.const([1, 1]), axis=0)
    part = b.add("Expand", b.weight(1, b.channels, 2), shape)
    b.x = b.add("Concat", *b.rng.choice([(part, b.x), (b.x, part), (part, b.x, part)]), axis=2)


def last_ends(b: Builder) -> None:
    """The last step again after it."""
    axis = 2 if b.first else 1
    last = b.cut(b.x, -1, 2**40, axis)
    b.x = b.add("Concat", b.x, *[last] * b.rng.randint(1, 2), axis=axis)


def differences(b: Builder) -> None:
    axis = 2 if b.first else 1
    after, before = b.cut(b.x, 1, 2**40, axis), b.cut(b.x, 0, -1, axis)
    change = b.add("Sub", after, before)
    b.x = b.add("Concat", after, change, axis=3 - axis)
    b.channels *= 2


def residual(b: Builder) -> None:
    b.channels_first()
    kernel = b.rng.choice([3, 5, 7])
    left = b.rng.randint(0, kernel - 1)
    y = b.add("Conv", b.x, b.weight(b.channels, b.channels, kernel), pads=[left, kernel - 1 - left])
    b.x = b.add(b.rng.choice(["Add", "Mul", "Sub"]), b.x, b.add("Tanh", y))


def join_earlier(b: Builder) -> None:
    b.channels_first()
    if not b.earlier:
        return
    other, channels = b.rng.choice(b.earlier)
    b.x = b.add("Concat", b.x, other, axis=1)
    b.channels += channels


def cumulative(b: Builder) -> None:
    axis = b.const(2 if b.first else 1)
    total = b.add("CumSum", b.x, axis, exclusive=b.rng.randint(0, 1))
    b.x = b.add("Mul", total, b.const(0.1, np.float32))


def recurrent(b: Builder) -> None:
    op, gates = b.rng.choice([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    hidden = b.rng.choice([3, 4])
    start: list[str] = []
    if b.rng.random() < 0.3:
        batch = b.add("Shape", b.x, end=1)
        shape = b.add("Concat", b.const([1]), batch, b.const([1]), axis=0)
        start = ["", "", b.add("Expand", b.weight(1, 1, hidden), shape)]
    y = b.add(op, b.time_first(), b.weight(1, gates * hidden, b.channels), b.weight(1, gates * hidden, hidden), *start,
              hidden_size=hidden)  # fmt: skip
    y = b.add("Squeeze", y, b.const([1]))
    b.x, b.channels, b.first = b.add("Transpose", y, perm=[1, 0, 2]), hidden, False
    if b.rng.random() < 0.3:
        b.outputs.append(b.add("Tanh", b.cut(b.x, -1, 2**40, 1)))


def scan(b: Builder) -> None:
    """h = tanh(x + h / 2), step by step."""
    x = b.time_first()
    size = [None, b.channels]
    step = helper.make_graph(
        [
            helper.make_node("Mul", ["h", "half"], ["part"]),
            helper.make_node("Add", ["part", "s"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["next"]),
            helper.make_node("Identity", ["next"], ["y"]),
        ],
        "step",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name in ("h", "s")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name in ("next", "y")],
        [numpy_helper.from_array(np.float32(0.5), "half")],
    )
    shape = b.add("Concat", b.add("Shape", x, start=1, end=2), b.const([b.channels]), axis=0)
    start = b.add(
        "ConstantOfShape", shape, value=numpy_helper.from_array(np.array([b.rng.choice([0, 0.3])], np.float32))
    )
    b.count += 1
    ends = [f"v{b.count}_h", f"v{b.count}_y"]
    b.nodes.append(helper.make_node("Scan", [start, x], ends, name=f"scan{b.count}/Scan", body=step, num_scan_inputs=1))
    b.x, b.first = b.add("Transpose", ends[1], perm=[1, 0, 2]), False


def activation(b: Builder) -> None:
    b.x = b.add(b.rng.choice(["Relu", "Tanh", "Sigmoid", "Softplus", "Abs"]), b.x)


def linear(b: Builder) -> None:
    if b.first:
        b.x, b.first = b.add("Transpose", b.x, perm=[0, 2, 1]), False
    y = b.add("MatMul", b.x, b.weight(b.channels, 4))
    b.x, b.channels = b.add("Add", y, b.weight(4)), 4


def norm(b: Builder) -> None:
    if b.first:
        b.x, b.first = b.add("Transpose", b.x, perm=[0, 2, 1]), False
    b.x = b.add("LayerNormalization", b.x, b.weight(b.channels), b.weight(b.channels))


def softmax(b: Builder) -> None:
    b.x = b.add("Softmax", b.x, axis=1 if b.first else 2)


def centred(b: Builder) -> None:
    mean = b.add("ReduceMean", b.x, b.const([1 if b.first else -1]), keepdims=1)
    b.x = b.add("Sub", b.x, mean)


def channel_mix(b: Builder) -> None:
    order = list(range(b.channels))
    b.rng.shuffle(order)
    b.x = b.add("Gather", b.x, b.const(order), axis=1 if b.first else 2)


def positions(b: Builder) -> None:
    axis = 2 if b.first else 1
    steps = b.add("Squeeze", b.add("Shape", b.x, start=axis, end=axis + 1), b.const([0]))
    numbers = b.add("Cast", b.add("Range", b.const(0), steps, b.const(1)), to=TensorProto.FLOAT)
    wave = b.add("Sin", b.add("Mul", numbers, b.const(0.3, np.float32)))
    if not b.first:
        wave = b.add("Unsqueeze", wave, b.const([1]))
    b.x = b.add("Add", b.x, wave)


def fold(b: Builder) -> None:
    """Time folded into the batch, and back."""
    if b.first:
        b.x, b.first = b.add("Transpose", b.x, perm=[0, 2, 1]), False
    y = b.add("Tanh", b.add("MatMul", b.add("Reshape", b.x, b.const([-1, b.channels])), b.weight(b.channels, 3)))
    shape = b.add("Concat", b.add("Shape", b.x, end=2), b.const([3]), axis=0)
    b.x, b.channels = b.add("Reshape", y, shape), 3


def stack(b: Builder) -> None:
    """Two steps become one."""
    if b.first:
        b.x, b.first = b.add("Transpose", b.x, perm=[0, 2, 1]), False
    shape = b.add("Concat", b.add("Shape", b.x, end=1), b.const([-1, 2 * b.channels]), axis=0)
    b.x, b.channels = b.add("Reshape", b.x, shape), 2 * b.channels


def spread(b: Builder) -> None:
    """The channels of a step become two steps, or three."""
    if b.first:
        b.x, b.first = b.add("Transpose", b.x, perm=[0, 2, 1]), False
    times, channels = b.rng.randint(2, 3), b.rng.randint(2, 4)
    y = b.add("MatMul", b.x, b.weight(b.channels, times * channels))
    shape = b.add("Concat", b.add("Shape", b.x, end=1), b.const([-1, channels]), axis=0)
    b.x, b.channels = b.add("Reshape", y, shape), channels


def resize(b: Builder) -> None:
    b.channels_first()
    scales = b.const([1.0, 1.0, float(b.rng.randint(1, 3))], np.float32)
    b.x = b.add("Resize", b.x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric",
                nearest_mode="floor")  # fmt: skip


def interpolate(b: Builder) -> None:
    b.channels_first()
    scales = b.const([1.0, 1.0, float(b.rng.choice([2, 4]))], np.float32)
    b.x = b.add("Resize", b.x, "", scales, mode="linear",
                coordinate_transformation_mode=b.rng.choice(["half_pixel", "asymmetric"]))  # fmt: skip


def without_first(b: Builder) -> None:
    """The first step is taken off all."""
    b.x = b.add("Sub", b.x, b.cut(b.x, 0, 1, 2 if b.first else 1))


def complete(b: Builder) -> None:
    """Padding at the end to a multiple of a stride, as ``F.pad(x, (0, ceil(T / k) * k - T))`` computes it."""
    b.channels_first()
    by = b.rng.randint(2, 4)
    steps = b.add("Shape", b.x, start=2, end=3)
    windows = b.add("Ceil", b.add("Div", b.add("Cast", steps, to=TensorProto.FLOAT), b.const([by], np.float32)))
    wanted = b.add("Mul", b.add("Cast", windows, to=TensorProto.INT64), b.const([by]))
    pads = b.add("Concat", b.const([0, 0, 0, 0, 0]), b.add("Sub", wanted, steps), axis=0)
    b.x = b.add("Pad", b.x, pads, mode=b.rng.choice(["constant", "edge"]))


def remember(b: Builder) -> None:
    b.channels_first()
    b.earlier.append((b.x, b.channels))


STAGES: tuple[Stage, ...] = (
    conv, conv, conv_same, conv_2d, max_pool, average_pool, transposed_conv, pad, cut_ends, every, shift,
    learned_ends, last_ends, differences, residual, residual, join_earlier, join_earlier, cumulative, recurrent,
    recurrent, scan, activation, linear, norm, softmax, centred, channel_mix, positions, fold, stack, spread,
    resize, interpolate, without_first, complete, remember, remember,
)  # fmt: skip


def random_graph(seed: int, stages: int) -> ModelProto:
    """A graph of so many stages; a whole run may refuse it."""
    b = Builder(random.Random(seed))  # noqa: S311 - a test, not a secret
    b.first = b.rng.random() < 0.5
    time = 2 if b.first else 1
    shape = ["batch", 4, "time"] if b.first else ["batch", "time", 4]
    if b.first:
        b.earlier.append(("x", 4))
    for _ in range(stages):
        b.rng.choice(STAGES)(b)
        if b.channels > 12:
            linear(b)
    b.outputs.append(b.add("Identity", b.x))
    if b.rng.random() < 0.2 and b.earlier:
        b.outputs.append(b.add("Neg", b.earlier[-1][0]))
    graph = helper.make_graph(
        b.nodes,
        "random",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info(name) for name in b.outputs],
        b.initializers,
    )
    for output in graph.output:
        output.type.tensor_type.elem_type = TensorProto.FLOAT
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    model.metadata_props.add(key="time", value=str(time))
    return model


def time_axis(model: ModelProto) -> int:
    return int(next(item.value for item in model.metadata_props if item.key == "time"))

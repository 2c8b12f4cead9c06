"""What is refused, by which rule, and with which node; and what is kept in which states."""

from __future__ import annotations

import re

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.streaming.rewrite import RefusedError
from lstm_onnx.streaming.rewrite.graph import Graph

from .chunks import ChunkRun, difference, rewritten, session
from .graphs import Make, graph_of, steps_of
from .random_graphs import Builder


def test_a_transposed_convolution_that_is_cut_has_no_delay() -> None:
    """The steps that later windows would add to are those that are cut."""

    def upsampled(b: Builder) -> str:
        x = b.add("ConvTranspose", "x", b.weight(4, 3, 5), kernel_shape=[5], strides=[2])
        return b.cut(x, 0, -3, 2)

    for make in (
        upsampled,
        lambda b: b.add("ConvTranspose", "x", b.weight(4, 3, 5), kernel_shape=[5], strides=[2], pads=[0, 3]),
    ):
        model = graph_of(make)
        for chunk in (None, 1):
            done = rewritten(model, {"x": 2}, chunk=chunk)
            assert (done.streaming.delay, done.streaming.last) == (0, None)
            x = np.random.default_rng(0).standard_normal((2, 4, 24)).astype(np.float32)
            assert not difference(ChunkRun(done, {"x": 2}), session(model, optimised=False), {"x": x}, 2, 0)
    late = graph_of(lambda b: b.cut(b.add("ConvTranspose", "x", b.weight(4, 3, 5), strides=[2]), 0, -2, 2))
    assert rewritten(late, {"x": 2}).streaming.delay == 1


def test_entries_of_each_step_as_steps_are_joined_with_as_many_steps() -> None:
    def joined(b: Builder) -> str:
        entries = b.add("Reshape", b.add("Transpose", "x", perm=[0, 2, 1]), b.const([0, -1, 2]))
        steps = b.add("ConvTranspose", "x", b.weight(4, 2, 2), strides=[2])
        return b.add("Add", b.add("Transpose", entries, perm=[0, 2, 1]), steps)

    model = graph_of(joined)
    done = rewritten(model, {"x": 2})
    assert done.streaming.delay == 0
    x = np.random.default_rng(0).standard_normal((2, 4, 9)).astype(np.float32)
    assert not difference(ChunkRun(done, {"x": 2}), session(model, optimised=False), {"x": x}, 2, 0)


def test_steps_grouped_by_a_reshape_of_all_rows() -> None:
    """It would join steps of two sequences of an odd number of steps, which the file refuses."""

    def largest_of_pairs(b: Builder) -> str:
        pairs = b.add("ReduceMax", b.add("Reshape", "x", b.const([-1, 2, 4])), b.const([1]), keepdims=0)
        batch = b.add("Shape", "x", start=0, end=1)
        return b.add("Reshape", pairs, b.add("Concat", batch, b.const([-1, 4]), axis=0))

    model = graph_of(largest_of_pairs, time=1)
    done = rewritten(model, {"x": 1})
    assert done.streaming.multiple == 2
    x = np.random.default_rng(0).standard_normal((2, 10, 4)).astype(np.float32)
    assert not difference(ChunkRun(done, {"x": 1}), session(model, optimised=False), {"x": x}, 2, 0)


def test_a_pool_over_what_onnx_calls_channels() -> None:
    """speechbrain pools frequencies of (batch, time, frequency, channels) with time where channels are."""
    model = graph_of(lambda b: b.add("MaxPool", "x", kernel_shape=[2], strides=[2]), time=1)
    done = rewritten(model, {"x": 1})
    assert done.caches == {}
    x = np.random.default_rng(0).standard_normal((2, 9, 4)).astype(np.float32)
    assert not difference(ChunkRun(done, {"x": 1}), session(model, optimised=False), {"x": x}, 2, 0)


REFUSED: dict[str, tuple[Make, str]] = {
    "a mean": (
        lambda b: b.add("ReduceMean", "x", b.const([2])),
        r"reducemean2/ReduceMean \(ReduceMean\) comp",
    ),
    "a softmax": (lambda b: b.add("Softmax", "x", axis=2), "computes a softmax over all steps"),
    "a norm": (lambda b: b.add("InstanceNormalization", "x", b.weight(4), b.weight(4)), "normalises over all steps"),
    "a pool over everything": (lambda b: b.add("GlobalAveragePool", "x"), "pools over all steps"),
    "a flip": (lambda b: b.cut("x", -1, -(2**40), 2, -1), "reverses the steps"),
    "the first steps alone": (lambda b: b.cut("x", 0, 3, 2), "takes only steps 0 to 3 of a sequence"),
    "a step in the middle": (lambda b: b.add("Gather", "x", b.const(3), axis=2), "by their position in the sequence"),
    "a place from the end": (lambda b: b.cut("x", -3, 2**40, 2), "a short sequence has fewer"),
    "the last step for all": (lambda b: b.add("Sub", "x", b.cut("x", -1, 2**40, 2)), "only known at the last one"),
    "two time axes": (
        lambda b: b.add("MatMul", b.add("Transpose", "x", perm=[0, 2, 1]), "x"),
        "every step with every other",
    ),
    "a sum of products": (
        lambda b: b.add("MatMul", "x", b.add("Transpose", "x", perm=[0, 2, 1])),
        "sums over all steps",
    ),
    "a sum of products by letters": (
        lambda b: b.add("Einsum", "x", b.weight(3, 4), equation="bct,dc->bd"),
        "sums over all steps",
    ),
    "two time axes by letters": (
        lambda b: b.add("Einsum", "x", "x", equation="bct,bcs->bts"),
        "every step with every other",
    ),
    "fixed steps by letters": (
        lambda b: b.add("Einsum", "x", b.weight(9), equation="bct,t->bct"),
        "joins time with the 9 steps of c",
    ),
    "a sum of products with an ellipsis": (
        lambda b: b.add("Einsum", "x", b.weight(3, 4), equation="...t,dc->...d"),
        "sums over all steps",
    ),
    "fixed steps in an ellipsis": (
        lambda b: b.add("Einsum", "x", b.weight(4, 9), equation="b...,...->b..."),
        "joins time with the 9 steps of c",
    ),
    "parts of an unknown size": (
        lambda b: b.add("Split", "x", steps_of(b), axis=1),
        "has axes or sizes that are not constant",
    ),
    "sorted steps": (lambda b: b.add("TopK", "x", steps_of(b), axis=2, outputs=2), "sorts all steps"),
    "one after another": (lambda b: b.add("Concat", "x", "x", axis=2), "concatenates sequences"),
    "fixed steps": (lambda b: b.add("Add", "x", b.weight(1, 1, 9)), "joins time with the 9 steps of"),
    "other lengths": (lambda b: b.add("Add", "x", b.cut("x", 1, 2**40, 2)), "different numbers of steps"),
    "other rates": (lambda b: b.add("Add", "x", b.cut("x", 0, 2**40, 2, 2)), "of different rates"),
    "the number of steps": (
        lambda b: b.add("Div", "x", b.add("Cast", steps_of(b), to=TensorProto.FLOAT)),
        "uses the number of time steps as a number",
    ),
    "time for channels": (
        lambda b: b.add("Conv", b.add("Transpose", "x", perm=[0, 2, 1]), b.weight(3, 9, 1)),
        "uses time as its channels",
    ),
    "a sum from the end": (lambda b: b.add("CumSum", "x", b.const(2), reverse=1), "sums from the end"),
    "wrapped padding": (lambda b: b.add("Pad", "x", b.const([0, 0, 1, 0, 0, 0]), mode="wrap"), "from the other end"),
    "cubic interpolation": (
        lambda b: b.add("Resize", "x", "", b.const([1, 1, 2], np.float32), mode="cubic"),
        "interpolates between steps \\(cubic\\)",
    ),
    "interpolation from corner to corner": (
        lambda b: b.add(
            "Resize",
            "x",
            "",
            b.const([1, 1, 2], np.float32),
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
        "from the first step to the last",
    ),
    "the first step of a value that comes later": (
        lambda b: b.add("Sub", "x", b.cut(b.add("Conv", "x", b.weight(4, 4, 3)), 0, 1, 2)),
        "needs the first step of a value that comes later",
    ),
    "an unknown operator": (lambda b: b.add("Det", "x"), "is not known to compute each step separately"),
    "noise": (lambda b: b.add("RandomNormalLike", "x"), "generates random numbers"),
    "backwards": (
        lambda b: b.add(
            "GRU",
            b.add("Transpose", "x", perm=[2, 0, 1]),
            b.weight(1, 9, 4),
            b.weight(1, 9, 3),
            hidden_size=3,
            direction="reverse",
        ),
        "from its end",
    ),
    "a reduction over an empty list of axes": (lambda b: b.add("ReduceSum", "x", b.const([])), "over all steps"),
    "the first step and the last": (
        lambda b: b.add(
            "Gather", "x", b.add("Concat", b.const([0]), b.add("Sub", steps_of(b), b.const([1])), axis=0), axis=2
        ),
        "by their position in the sequence",
    ),
    "scattered steps": (
        lambda b: b.add("GatherElements", "x", b.add("Cast", "x", to=TensorProto.INT64), axis=2),
        "by their position in the sequence",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_the_whole_sequence_is_refused(case: str) -> None:
    make, reason = REFUSED[case]
    with pytest.raises(RefusedError) as caught:
        rewritten(graph_of(make, opset=19 if case == "wrapped padding" else 18), {"x": 2})
    assert re.search(reason, str(caught.value)), caught.value


def conv(b: Builder, left: int, right: int, kernel: int = 5, stride: int = 1) -> str:
    return b.add("Conv", "x", b.weight(3, 4, kernel), kernel_shape=[kernel], pads=[left, right], strides=[stride])


def twice(b: Builder) -> str:
    return b.add(
        "Resize", "x", "", b.const([1, 1, 2], np.float32), mode="nearest", coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )  # fmt: skip


STREAMS: dict[str, tuple[Make, tuple[int, int], set[str]]] = {
    "causal": (lambda b: conv(b, 4, 0), (0, 1), {"conv2.cache"}),
    "no padding": (lambda b: conv(b, 0, 0), (0, 1), {"conv2.cache", "steps"}),
    "same": (lambda b: conv(b, 2, 2), (2, 1), {"conv2.cache", "steps"}),
    "more padding than its kernel": (lambda b: conv(b, 7, 0), (0, 1), {"conv2.cache", "steps"}),
    "strided": (lambda b: conv(b, 3, 0, 5, 2), (0, 2), {"conv2.cache", "steps"}),
    "a stride over its kernel": (lambda b: conv(b, 0, 0, 2, 3), (0, 3), {"conv2.cache", "steps"}),
    "a vector times each step": (lambda b: b.add("MatMul", b.weight(4), "x"), (0, 1), set()),
    "a matrix times each step, with an ellipsis": (
        lambda b: b.add("Einsum", "x", b.weight(3, 4), b.weight(1), equation="...ct,dc,...->...dt"),
        (0, 1),
        set(),
    ),
    "parts of which the last is smaller": (
        lambda b: b.add("Split", conv(b, 4, 0), outputs=2, axis=1, num_outputs=2),
        (0, 1),
        {"conv2.cache"},
    ),
    "a window of one step": (lambda b: conv(b, 0, 0, 1), (0, 1), set()),
    "padding at the end that a stride leaves out": (
        lambda b: b.add("Conv", twice(b), b.weight(3, 4, 4), kernel_shape=[4], pads=[0, 1], strides=[2]),
        (0, 1),
        {"conv4.cache", "steps"},
    ),
    "padded at both ends and cut": (lambda b: b.cut(conv(b, 4, 4), 0, -4, 2), (0, 1), {"conv2.cache"}),
    "padded at both ends and cut by less": (lambda b: b.cut(conv(b, 4, 4), 0, -3, 2), (1, 1), {"conv2.cache", "steps"}),
    "a running sum": (lambda b: b.add("CumSum", "x", b.const(2)), (0, 1), {"cumsum2.sum"}),
    "reflected": (
        lambda b: b.add("Pad", "x", b.const([0, 0, 3, 0, 0, 2]), mode="reflect"),
        (2, 1),
        {"pad2.tail", "pad2.cache", "steps"},
    ),
}


def test_a_maximum_of_integers_is_padded_with_the_least_of_them() -> None:
    def pooled(b: Builder) -> str:
        scale = (b.const(0.1, np.float32), b.const(0, np.int8))
        y = b.add("MaxPool", b.add("QuantizeLinear", "x", *scale), kernel_shape=[3], pads=[2, 0])
        return b.add("DequantizeLinear", y, *scale)

    [initial] = rewritten(graph_of(pooled), {"x": 2}).initial.values()
    assert initial.dtype == np.int8
    assert (initial == -128).all()


@pytest.mark.parametrize("case", STREAMS)
def test_what_is_kept(case: str) -> None:
    make, (delay, hop), caches = STREAMS[case]
    model = graph_of(make)
    done = rewritten(model, {"x": 2})
    assert (done.streaming.delay, done.streaming.hop, set(done.caches)) == (delay, hop, caches)
    assert (done.streaming.last is not None) == (delay > 0)
    run, whole = ChunkRun(done, {"x": 2}), session(model, optimised=False)
    for batch, time in ((1, 31), (3, 40)):
        x = np.random.default_rng(time).standard_normal((batch, 4, time)).astype(np.float32)
        assert not difference(run, whole, {"x": x}, batch, time)


def test_a_causal_graph_has_only_a_cache_more() -> None:
    done = rewritten(graph_of(lambda b: conv(b, 4, 0)), {"x": 2})
    assert [node.op_type for node in done.model.graph.node] == ["Concat", "Slice", "Conv"]


def test_amounts_that_are_computed_of_constants() -> None:
    """As torch's older exporter pads: two numbers of each axis from the last on, turned round."""

    def padded(b: Builder) -> str:
        pairs = b.add("Concat", b.const([3, 1]), b.add("ConstantOfShape", b.const([4]), value=zero), axis=0)
        pairs = b.cut(b.add("Reshape", pairs, b.const([-1, 2])), -1, -(2**40), 0, -1)
        return b.add("Pad", "x", b.add("Reshape", b.add("Transpose", pairs, perm=[1, 0]), b.const([-1])))

    zero = numpy_helper.from_array(np.zeros(1, np.int64))
    model = graph_of(padded)
    done = rewritten(model, {"x": 2})
    assert done.streaming.delay == 1
    x = np.random.default_rng(0).standard_normal((2, 4, 30)).astype(np.float32)
    assert not difference(ChunkRun(done, {"x": 2}), session(model), {"x": x}, 2, 0)


def test_sizes_of_which_some_are_kept() -> None:
    """As torch's older exporter expands: an axis for which -1 is asked stays; and it numbers steps in floats."""

    def expanded(b: Builder) -> str:
        one = numpy_helper.from_array(np.ones(1, np.int64))
        sizes = b.add("Concat", b.const([-1, 3]), b.add("Shape", "x", start=1), axis=0)
        ones = b.add("ConstantOfShape", b.add("Shape", sizes), value=one)
        kept = b.add("Where", b.add("Equal", sizes, b.add("Mul", ones, b.const(-1))), ones, sizes)
        y = b.add("Expand", b.add("Unsqueeze", "x", b.const([1])), kept)
        channels, steps = (b.add("Gather", b.add("Shape", "x"), b.const(axis)) for axis in (1, 2))
        end = b.add("Add", b.add("Mul", channels, steps), b.const(1))
        bounds = [b.add("Cast", bound, to=TensorProto.FLOAT) for bound in (channels, end, channels)]
        return b.add("ReduceSum", b.add("Div", y, b.add("Range", *bounds)), b.const([1]), keepdims=0)

    model = graph_of(expanded)
    x = np.random.default_rng(0).standard_normal((2, 4, 30)).astype(np.float32)
    assert not difference(ChunkRun(rewritten(model, {"x": 2}), {"x": 2}), session(model), {"x": x}, 2, 0)


def labelled(label: tuple[int, ...]) -> Make:
    """A convolution, and beside it a label that is repeated for each sequence and each step."""

    def make(b: Builder) -> str:
        batch, steps = (b.add("Shape", "x", start=axis, end=axis + 1) for axis in (0, 2))
        times = b.add("Concat", batch, b.const([1]), steps, axis=0)
        return b.add("Concat", conv(b, 4, 0), b.add("Tile", b.weight(*label), times), axis=1)

    return make


def test_what_is_repeated_for_each_step() -> None:
    model = graph_of(labelled((1, 2, 1)))
    x = np.random.default_rng(0).standard_normal((2, 4, 30)).astype(np.float32)
    assert not difference(ChunkRun(rewritten(model, {"x": 2}), {"x": 2}), session(model), {"x": x}, 2, 0)


def test_several_entries_repeated_as_often_as_there_are_steps_are_refused() -> None:
    with pytest.raises(RefusedError, match="repeats by the number of time steps"):
        rewritten(graph_of(labelled((1, 2, 2))), {"x": 2})


@pytest.mark.parametrize("name", ["last", "steps", "conv2.cache"])
def test_names_of_the_source_are_kept_apart(name: str) -> None:
    model = graph_of(lambda b: conv(b, 2, 2))
    graph = model.graph
    graph.node.insert(0, helper.make_node("Identity", ["x"], [name], name="first"))
    graph.node[1].input[0] = name
    done = rewritten(model, {"x": 2})
    x = np.random.default_rng(0).standard_normal((2, 4, 30)).astype(np.float32)
    assert not difference(ChunkRun(done, {"x": 2}), session(model), {"x": x}, 2, 0)


def test_an_old_opset_is_refused() -> None:
    with pytest.raises(RefusedError, match="has opset 12, and streams need 13"):
        rewritten(graph_of(lambda b: conv(b, 4, 0), opset=12), {"x": 2})


def test_a_fixed_time_axis_is_refused() -> None:
    model = graph_of(lambda b: conv(b, 4, 0))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 48
    with pytest.raises(RefusedError, match="always has 48 steps"):
        rewritten(model, {"x": 2})


def test_numbers_are_not_named_as_others_of_an_exported_file() -> None:
    """There ``ints/2_2`` are two numbers, and the nodes that int8 adds may need them."""
    names = Graph(18, ending=False, sizes={}, taken={"ints/2"})
    assert names.ints(2) not in ("ints/2", "ints/2_2")

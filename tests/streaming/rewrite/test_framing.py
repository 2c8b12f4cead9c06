"""Windows of steps that are picked by numbers, as `Tensor.unfold` is traced, and Fourier transforms of each."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from lstm_onnx.streaming.rewrite import RefusedError

from .chunks import ChunkRun, difference, rewritten, session
from .graphs import graph_of
from .random_graphs import Builder


def frames(b: Builder, size: int, hop: int, *, limit: int | None = None, first: int = 0) -> str:
    """x (batch, 4, time) to (batch, 4, frames, size)."""
    steps = b.add("Squeeze", b.add("Shape", "x", start=2, end=3), b.const([0]))
    limit = size - 1 if limit is None else limit
    starts = b.add("Range", b.const(first), b.add("Sub", steps, b.const(limit)), b.const(hop))
    at = b.add("Add", b.add("Unsqueeze", starts, b.const([1])), b.const(np.arange(size)))
    return b.add("Gather", "x", at, axis=2)


def by_product(b: Builder) -> str:
    """As ``x[:, :, torch.arange(frames)[:, None] * 3 + torch.arange(5)]``."""
    steps = b.add("Squeeze", b.add("Shape", "x", start=2, end=3), b.const([0]))
    count = b.add("Add", b.add("Div", b.add("Sub", steps, b.const(5)), b.const(3)), b.const(1))
    starts = b.add("Mul", b.add("Range", b.const(0), count, b.const(1)), b.const(3))
    at = b.add("Add", b.const(np.arange(5)[:, None]), b.add("Cast", starts, to=TensorProto.INT64))
    return b.add("Gather", "x", at, axis=2)


def by_rows(b: Builder) -> str:
    """As ``x[places]`` of time-first data: GatherND, whose indices have a last axis of 1."""
    steps = b.add("Squeeze", b.add("Shape", "x", start=2, end=3), b.const([0]))
    starts = b.add("Range", b.const(0), b.add("Sub", steps, b.const(4)), b.const(2))
    at = b.add("Add", b.add("Unsqueeze", starts, b.const([1, 2])), b.const(np.arange(5).reshape(5, 1)))
    return b.add("GatherND", b.add("Transpose", "x", perm=[2, 0, 1]), at)


def folded(b: Builder, size: int, hop: int, more: int = 0) -> str:
    """Windows, each made a row of channels, and summed where they overlap: (batch, 2, 1, steps)."""
    x = b.add("Conv", "x", b.weight(2 * size, 4, 2), strides=[2])
    windows = b.add("Shape", x, start=2, end=3)
    steps = b.add("Add", b.add("Mul", b.add("Sub", windows, b.const([1])), b.const([hop])), b.const([size + more]))
    image = b.add("Concat", b.const([1]), steps, axis=0)
    return b.add("Col2Im", x, image, b.const([1, size]), strides=[1, hop])


def of_all_steps(b: Builder) -> str:
    """As F.fold to the length of the input: the steps after the last window are zeros."""
    x = frames(b, 6, 4)
    image = b.add("Concat", b.const([1]), b.add("Shape", "x", start=2, end=3), axis=0)
    windows = b.add("Reshape", b.add("Transpose", x, perm=[0, 1, 3, 2]), b.const([0, 24, -1]))
    return b.add("Col2Im", windows, image, b.const([1, 6]), strides=[1, 4])


FRAMED: dict[str, Callable[[Builder], str]] = {
    "one after another": lambda b: frames(b, 4, 4),
    "overlapping": lambda b: frames(b, 6, 2),
    "one step apart": lambda b: frames(b, 3, 1),
    "with steps between": lambda b: frames(b, 2, 5),
    "single steps": lambda b: frames(b, 1, 1),
    "every third": lambda b: frames(b, 1, 3),
    "not from the first step": lambda b: frames(b, 3, 2, first=2),
    "by a product": by_product,
    "by rows": by_rows,
    "of a stride": lambda b: b.add("Conv", b.add("ReduceMean", frames(b, 6, 2), b.const([3]), keepdims=0),
                                   b.weight(3, 4, 2), strides=[2]),
    "transformed": lambda b: b.add("DFT", b.add("Unsqueeze", frames(b, 6, 3), b.const([4])), axis=3, onesided=1),
    "put together": lambda b: folded(b, 6, 2),
    "put together, without overlap": lambda b: folded(b, 3, 3),
    "put together, with steps between": lambda b: folded(b, 2, 3),
    "put together, with steps after": lambda b: folded(b, 6, 4, more=2),
    "put together to all steps": of_all_steps,
    "of some channels": lambda b: b.add("GatherND", b.add("Transpose", "x", perm=[1, 0, 2]), b.const([[2], [0], [2]])),
}  # fmt: skip


def compared(model: ModelProto, chunk: int | None = None) -> str:
    done = rewritten(model, {"x": 2}, chunk=chunk)
    whole, run = session(model, optimised=False), ChunkRun(done, {"x": 2})
    for batch, steps in ((1, 24), (2, 37)) if chunk is None else ((1, 3 * chunk), (2, 5 * chunk)):
        x = np.random.default_rng(steps).standard_normal((batch, 4, steps)).astype(np.float32)
        found = difference(run, whole, {"x": x}, batch, 0, chunk or 1)
        if found:
            return found
    return ""


@pytest.mark.parametrize("name", FRAMED)
def test_windows_in_chunks_are_those_of_the_whole(name: str) -> None:
    assert not compared(graph_of(FRAMED[name]))


@pytest.mark.parametrize(("name", "hop"), [("one after another", 4), ("with steps between", 5), ("every third", 3)])
def test_windows_that_do_not_overlap_in_equal_chunks(name: str, hop: int) -> None:
    assert not compared(graph_of(FRAMED[name]), chunk=2 * hop)


def test_numbers_of_steps_that_other_nodes_read_go_on_from_chunk_to_chunk() -> None:
    """The elements so far are divided by, as in a cumulative layer norm: arange(4, 4 * (time + 1), 4)."""

    def numbered(b: Builder) -> str:
        steps = b.add("Squeeze", b.add("Shape", "x", start=2, end=3), b.const([0]))
        elements = b.add("Add", b.add("Mul", steps, b.const(4)), b.const(4))
        counts = b.add("Cast", b.add("Range", b.const(4), elements, b.const(4)), to=TensorProto.FLOAT)
        numbers = b.add("Add", b.add("Range", b.const(0), steps, b.const(1)), b.const(7))
        picked = b.add("Gather", "x", b.add("Range", b.const(0), steps, b.const(1)), axis=2)
        return b.add("Div", b.add("Add", picked, b.add("Cast", numbers, to=TensorProto.FLOAT)), counts)

    assert not compared(graph_of(numbered))


def steps_of(b: Builder) -> str:
    return b.add("Squeeze", b.add("Shape", "x", start=2, end=3), b.const([0]))


def test_every_second_number_comes_with_every_second_step() -> None:
    def every_second(b: Builder) -> str:
        return b.add("Cast", b.add("Range", b.const(0), steps_of(b), b.const(2)), to=TensorProto.FLOAT)

    assert not compared(graph_of(every_second))


def numbers_of_pairs(b: Builder) -> str:
    steps = steps_of(b)
    return b.add("Cast", b.add("Range", b.const(0), b.add("Mul", steps, steps), b.const(1)), to=TensorProto.FLOAT)


REFUSED = {
    "fewer windows than there are": (lambda b: frames(b, 4, 2, limit=5), "but not all of them"),
    "put together to more steps than a stride": (lambda b: folded(b, 6, 2, more=2), "puts windows together to other"),
    "a number of each pair of steps": (numbers_of_pairs, "a number that no value before it has"),
    "a transform along time": (
        lambda b: b.add("DFT", b.add("Unsqueeze", "x", b.const([3])), axis=2),
        "computes a Fourier transform over all steps",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_a_window_of_each_step_is_refused(name: str) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(RefusedError, match=re.escape(reason)):
        rewritten(graph_of(make), {"x": 2})

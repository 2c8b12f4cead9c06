"""From how many steps on a sequence is right, which a stream of it says."""

from __future__ import annotations

import numpy as np
import pytest

from .chunks import ChunkRun, difference, rewritten, session
from .graphs import Make, graph_of, steps_of
from .random_graphs import Builder


def pairs(b: Builder, x: str, least: int = 0) -> str:
    """All steps but an odd last one; the number of pairs is written as no less than `least`."""
    twos = b.add("Div", b.add("Shape", x, start=2, end=3), b.const([2]))
    twos = b.add("Mul", b.add("Max", b.const([least]), twos) if least else twos, b.const([2]))
    return b.add("Slice", x, b.const([0]), twos, b.const([2]))


SHORT: dict[str, tuple[Make, int]] = {
    "shifted": (lambda b: b.add("Pad", "x", b.const([0, 0, 3, 0, 0, -3])), 1),
    "begun later": (lambda b: b.add("Pad", "x", b.const([0, 0, -2, 0, 0, 3])), 1),
    "the last but two": (lambda b: b.cut("x", 0, -2, 2), 1),
    "a convolution": (lambda b: b.add("Conv", "x", b.weight(3, 4, 5), strides=[2], pads=[1, 0]), 4),
    "the last of every third": (lambda b: b.cut(b.cut("x", 2, 2**40, 2, 3), -1, 2**40, 2), 3),
    "fewer by a bound that would count from the end": (
        lambda b: b.add("Slice", "x", b.const([0]), b.add("Sub", steps_of(b), b.const([5])), b.const([2])),
        5,
    ),
    "begun by a bound that would count from the start": (
        lambda b: b.add("Slice", "x", b.add("Sub", b.const([3]), steps_of(b)), b.const([2**40]), b.const([2])),
        4,
    ),
    "reflected at the end": (lambda b: b.add("Pad", "x", b.const([0, 0, 0, 0, 0, 3]), mode="reflect"), 4),
    "a transposed convolution of which most is cut": (
        lambda b: b.add("ConvTranspose", "x", b.weight(4, 2, 4), strides=[2], pads=[3, 3]),
        3,
    ),
    "three pairs or more": (lambda b: pairs(b, "x", 3), 6),
    "pairs of what is left": (
        lambda b: pairs(b, b.add("Pad", b.cut("x", 0, -4, 2), b.const([0, 0, 4, 0, 0, 0]))),
        4,
    ),
}


@pytest.mark.parametrize("case", SHORT)
def test_a_sequence_that_is_too_short_is_known(case: str) -> None:
    """From the least number of steps on, a sequence is right."""
    make, least = SHORT[case]
    model = graph_of(make)
    done = rewritten(model, {"x": 2})
    assert done.streaming.least == least
    assert (done.streaming.steps is None) <= (least == 1)
    whole = session(model, optimised=False)
    for steps in range(least, least + 4):
        x = np.random.default_rng(0).standard_normal((2, 4, steps)).astype(np.float32)
        assert not difference(ChunkRun(done, {"x": 2}), whole, {"x": x}, 2, 0)

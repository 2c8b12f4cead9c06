"""Which result of several runs of a file counts."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lstm_onnx.metadata import Metadata, Streaming
from lstm_onnx.parity.expected import Call, Expected
from lstm_onnx.parity.replay import replay

ONES = np.ones((2, 3))
CHAOTIC = ONES + 0.1


class _Stream:
    """Gives a wrong ``z`` in chunks of these steps, and in others a ``y`` that is far off and cannot be judged."""

    state: Mapping[str, Any] = {}

    def __init__(self, wrong: int) -> None:
        self.wrong = wrong

    def reset(self) -> None:
        pass

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        ones = np.ones_like(feeds["x"])
        return {"y": ones, "z": ones + 1e-5} if len(ones) == self.wrong else {"y": 1001 * ones, "z": ones}


@pytest.mark.parametrize("wrong", [1, 2])
def test_a_chunking_that_fails_is_not_hidden_by_one_that_cannot_be_judged(wrong: int) -> None:
    model: Any = SimpleNamespace(states={}, metadata=SimpleNamespace(streaming=None), stream=lambda **_: _Stream(wrong))
    call = Call({"x": ONES.astype(np.float32)}, {"y": CHAOTIC, "z": ONES}, {"y": ONES, "z": ONES})
    axes = {"x": 0, "y": 0, "z": 0}
    case = Expected("case", (call,), "float32", 1.0, "chunks", ((2,), (1, 1)), time_axes=axes)
    result = replay(model, case)
    assert not result.passed
    assert not result.inconclusive
    assert result.label == f"case, {'+'.join([str(wrong)] * (2 // wrong))}"


def test_a_sequence_shorter_than_a_chunk_fails() -> None:
    """As where someone has changed the length of chunks in a file's metadata."""
    streaming = Streaming({"x": 0}, {"y": 0}, multiple=4, chunk=4)
    model: Any = SimpleNamespace(states={}, metadata=Metadata(streaming=streaming))
    call = Call({"x": ONES.astype(np.float32)}, {"y": ONES}, {"y": ONES})
    result = replay(model, Expected("case", (call,), "float32", 1.0, "pool", time_axes={"x": 0, "y": 0}))
    assert result.error.startswith("x has 2 steps, but the file takes multiples of 4")

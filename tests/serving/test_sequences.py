"""Stateful sequences whose requests come to no end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lstm_onnx.serving.errors import RequestError
from lstm_onnx.serving.requests import SequencePart
from lstm_onnx.serving.streams import Sequences


class Late:
    """A stream whose step is taken back."""

    closed = False

    async def step(self, *_: object, **_options: object) -> dict[str, Any]:
        raise TimeoutError("no output within 1 s; the request was withdrawn, and the stream is unchanged")

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("end", [False, True])
def test_a_last_request_that_is_late_says_that_the_sequence_is_closed(end: bool) -> None:
    sequences, stream, key = Sequences("m", 60.0), Late(), ("m", 7)
    sequences._open[key] = stream  # type: ignore[assignment,index]
    part = SequencePart(key, start=False, end=end)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError, match="is unchanged; the sequence is closed" if end else "is unchanged$"):
        asyncio.run(sequences.step(None, part, {}, 1.0))
    assert stream.closed is end
    again = pytest.raises(RequestError, match="is not open") if end else pytest.raises(TimeoutError)
    with again:
        asyncio.run(sequences.step(None, part, {}, 1.0))

"""A step that nobody needs any more is ended; one that somebody needs is not."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from lstm_onnx.runtime import load
from lstm_onnx.runtime.batcher.batcher import Batcher

from ...serving.endless import ENDLESS, endless


def _x(value: float) -> np.ndarray:
    return np.full((1, 1), value, np.float32)


def test_a_step_of_closed_streams_that_nobody_waits_for_ends(tmp_path: Path) -> None:
    endless(tmp_path / "m.onnx")

    async def main(batcher: Batcher) -> None:
        stream, other = batcher.open(), batcher.open()
        await other.astep(_x(1))
        running = asyncio.create_task(stream.astep(_x(ENDLESS)))
        await asyncio.sleep(0.1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        stream.close()
        assert (await other.astep(_x(2))).item() == 3

    with load(tmp_path / "m.onnx", "cpu", 1) as model, Batcher(model, window=0) as batcher:
        asyncio.run(asyncio.wait_for(main(batcher), 30))


def test_a_step_that_somebody_needs_goes_on(tmp_path: Path) -> None:
    """A stream that is open counts it; and the caller of another one gets its outputs, though its stream is closed."""
    endless(tmp_path / "m.onnx")

    async def main(batcher: Batcher) -> None:
        stream = batcher.open()
        running = asyncio.create_task(stream.astep(_x(50_000)))
        await asyncio.sleep(0.05)
        running.cancel()
        assert (await stream.astep(_x(2))).item() == 50_002
        pending = stream.submit(_x(50_000))
        closing = threading.Timer(0.05, stream.close)
        closing.start()
        assert (await asyncio.wrap_future(pending)).item() == 100_002
        closing.join()

    with load(tmp_path / "m.onnx", "cpu", 1) as model, Batcher(model, window=0) as batcher:
        asyncio.run(asyncio.wait_for(main(batcher), 30))

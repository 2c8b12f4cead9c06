"""Whole sequences that wait at the same time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lstm_onnx.runtime import load
from lstm_onnx.serving.whole import Arrays, WholeSequences
from tests.module_files import module_file


def test_lengths_of_other_requests_change_no_result() -> None:
    """This module returns as many steps as the longest sequence of its batch has."""
    rows: list[int] = []
    with load(module_file("packed_tagger_trimmed"), "cpu", 1) as model, ThreadPoolExecutor(1) as executor:
        x = np.ones((1, 6, 5), np.float32)
        given = [{"x": x, "lengths": np.array([length])} for length in (6, 6, 3, 6, 3)]

        async def results() -> list[Arrays]:
            whole = WholeSequences(
                model, executor, max_rows=8, queue=8, workers=1, on_batch=lambda count, _: rows.append(count)
            )
            return await asyncio.gather(*(whole.run(feeds, 30) for feeds in given))

        for feeds, found in zip(given, asyncio.run(results()), strict=True):
            for output, right in model.run(feeds).items():
                np.testing.assert_allclose(found[output], right, rtol=0, atol=1e-6)
    assert rows == [1, 2, 2]

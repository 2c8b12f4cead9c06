"""Whole sequences that wait at the same time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

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


@pytest.mark.filterwarnings("ignore:.*has a NaN")
def test_a_nan_of_another_request_changes_no_result() -> None:
    rows: list[int] = []
    with load(module_file("packed_tagger_trimmed"), "cpu", 1) as model, ThreadPoolExecutor(1) as executor:
        x = np.random.default_rng(0).standard_normal((3, 1, 6, 5)).astype(np.float32)
        given = [{"x": each, "lengths": np.array([6])} for each in x]
        right = [model.run(feeds) for feeds in given]
        x[1, 0, 2] = np.nan

        async def results() -> list[Arrays]:
            whole = WholeSequences(
                model, executor, max_rows=8, queue=8, workers=1, on_batch=lambda count, _: rows.append(count)
            )
            return await asyncio.gather(*(whole.run(feeds, 30) for feeds in [given[0], *given]))

        found = asyncio.run(results())[1:]
    assert max(rows) == 3
    for request in (0, 2):
        for output, expected in right[request].items():
            np.testing.assert_allclose(found[request][output], expected, rtol=0, atol=1e-6)

from __future__ import annotations

import numpy as np
import pytest

from lstm_onnx.bench.grid import CASES, GRIDS, LONGEST, SHORTEST, Point, drawn_lengths, drawn_sequence, points


@pytest.mark.parametrize("grid", GRIDS)
def test_every_case_is_in_every_grid_in_order(grid):
    found = [point.case for point in points(grid)]
    assert list(dict.fromkeys(found)) == list(CASES)
    assert [CASES.index(case) for case in found] == sorted(CASES.index(case) for case in found)
    labels = [str(point) for point in points(grid)]
    assert len(labels) == len(set(labels))


def test_cases_asked_for():
    assert [point.case for point in points("quick", ("map", "step"))] == ["step", "map"]


def test_what_the_bars_are_read_off():
    assert Point("step") in points("quick")
    assert Point("pool", 64) in points("quick")
    assert Point("map", 512, 0) in points("full")
    assert Point("memory", 512, 0) in points("full")


def test_lengths_are_log_normal_and_the_seeds_own():
    lengths = drawn_lengths(5000, 0)
    assert lengths == drawn_lengths(5000, 0)
    assert lengths != drawn_lengths(5000, 1)
    assert min(lengths) >= SHORTEST
    assert max(lengths) == LONGEST
    assert 45 < np.median(lengths) < 55
    assert np.mean(lengths) > 1.2 * np.median(lengths)


def test_sequences():
    found = drawn_sequence(7, 3, "float32", 5)
    assert (found.shape, found.dtype) == ((7, 3), np.float32)
    assert np.array_equal(found, drawn_sequence(7, 3, "float32", 5))
    assert not np.array_equal(found, drawn_sequence(7, 3, "float32", 6))

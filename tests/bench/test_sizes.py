from __future__ import annotations

import numpy as np
import pytest

from lstm_onnx.bench.sizes import CASES, LONGEST, POINTS, SHORTEST, Point, draw_lengths, points, random_sequence


def test_every_case_has_its_size_in_order():
    assert [point.case for point in points()] == list(CASES)
    assert tuple(points()) == POINTS
    labels = [str(point) for point in points()]
    assert len(labels) == len(set(labels))


def test_selected_cases():
    assert [point.case for point in points(("map", "step"))] == ["step", "map"]


@pytest.mark.parametrize(
    ("point", "label"),
    [
        (Point("step"), "one step"),
        (Point("step", 8), "one step, batch 8"),
        (Point("chunk", 1, 16), "chunk of 16 steps"),
        (Point("stream", 1, 100), "sequence of 100 steps, in chunks"),
        (Point("batch", 8, 50), "batch 8, 50 steps"),
        (Point("pool", 64), "pool of 64 streams"),
        (Point("map", 128, 0), "map of 128 sequences"),
    ],
)
def test_labels(point, label):
    assert str(point) == label


def test_lengths_are_log_normal_and_follow_the_seed():
    lengths = draw_lengths(5000, 0)
    assert lengths == draw_lengths(5000, 0)
    assert lengths != draw_lengths(5000, 1)
    assert min(lengths) >= SHORTEST
    assert max(lengths) == LONGEST
    assert 45 < np.median(lengths) < 55
    assert np.mean(lengths) > 1.2 * np.median(lengths)


def test_sequences():
    found = random_sequence(7, 3, "float32", 5)
    assert (found.shape, found.dtype) == ((7, 3), np.float32)
    assert np.array_equal(found, random_sequence(7, 3, "float32", 5))
    assert not np.array_equal(found, random_sequence(7, 3, "float32", 6))

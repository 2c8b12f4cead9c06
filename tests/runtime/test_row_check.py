"""Whether the sequences of a batch affect each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lstm_onnx.runtime.row_check import row_difference, rows_difference, unlike_integers

MIXED = "y of one sequence depends on the other sequences in its batch"


def test_rows_that_depend_on_each_other() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    feeds, axes = {"x": x}, {"x": 0}
    assert row_difference(lambda f: {"y": f["x"] * 2}, feeds, axes, {"y": 0}) == ""
    mixed = row_difference(lambda f: {"y": f["x"] - f["x"].mean(0)}, feeds, axes, {"y": 0})
    assert mixed.startswith("y of one sequence depends on the other sequences in its batch: it is off by")
    halved = row_difference(lambda f: {"y": f["x"] * 2 if len(f["x"]) > 1 else f["x"]}, feeds, axes, {"y": 0}, 2)
    assert halved == ""
    mixed = row_difference(lambda f: {"y": f["x"] - f["x"].mean(0)}, feeds, axes, {"y": 0}, rows=2)
    assert mixed.startswith("y of 2 sequences depends on the other sequences in its batch: it is off by")


@pytest.mark.parametrize("order", [1, -1], ids=["before it", "after it"])
def test_rows_that_depend_on_one_side_alone(order: int) -> None:
    """In a running sum along the batch the first row is what it is alone, and from the end on the last one is."""
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    mixed = row_difference(lambda f: {"y": f["x"][::order].cumsum(0)[::order]}, {"x": x}, {"x": 0}, {"y": 0})
    assert mixed.startswith("y of one sequence depends on the other sequences in its batch")


def ranged(run: Callable[[dict[str, np.ndarray]], Any]) -> str:
    """The difference that a function of x, tokens and lengths shows."""
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.standard_normal((2, 5)).astype(np.float32),
        "tokens": np.array([3, 4]),
        "lengths": np.array([5, 5]),
    }
    axes = dict.fromkeys(feeds, 0)
    ranges = {"x": (None, None), "tokens": (1, 9)}
    return rows_difference(lambda f: {"y": run(f)}, feeds, axes, {"y": 0}, ranges=ranges, lengths={"lengths": (1, 5)})


@pytest.mark.parametrize(
    "run",
    [
        lambda f: f["x"] * (2 if np.abs(f["x"]).max() > 50 else 1),
        lambda f: f["x"] * (2 if np.abs(f["x"]).max() < 0.1 else 1),
        lambda f: f["x"] * (2 if len(f["x"]) % 3 == 0 else 1),
        lambda f: f["x"] * (2 if len(f["x"]) > 6 else 1),
        lambda f: f["x"] + f["x"].any(),
        lambda f: f["x"] + f["x"].any(1).all(),
        lambda f: f["x"] + (f["x"] > 0.5).all(),
        lambda f: f["x"] * (2 if f["tokens"].max() == 9 else 1),
        lambda f: f["x"] * (2 if f["tokens"].min() == 9 else 1),
        lambda f: f["x"] * (np.arange(5) < f["lengths"].min()),
        lambda f: f["x"] * (np.arange(5) < f["lengths"].max()),
    ],
    ids=["loud", "quiet", "third", "large", "zeros", "a zero row", "mask", "any token", "all", "shortest", "longest"],
)
def test_rows_that_depend_on_what_random_ones_rarely_are(run: Callable[[dict[str, np.ndarray]], Any]) -> None:
    assert ranged(run).startswith(MIXED)


def test_states_are_louder_too() -> None:
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((2, 5)), "steps": np.array([1, 1]), "h": rng.standard_normal((1, 2, 5))}

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert list(feeds["steps"]) == [1] * len(feeds["x"])  # an integer state may be a number of steps
        h = feeds["h"]
        return {"y": feeds["x"] + h[0] / max(1, np.linalg.norm(h) / 30)}

    axes = {"x": 0, "steps": 0, "h": 1}
    assert rows_difference(run, feeds, axes, {"y": 0}, ranges={"x": (None, None)}).startswith(MIXED)


def test_states_are_zeros_too() -> None:
    """As a stream's are at its start, where a module may take learned ones in their place."""
    feeds = {"h": np.ones((1, 2, 5), np.float32)}
    mixed = rows_difference(lambda f: {"y": f["h"] + (not f["h"].any())}, feeds, {"h": 1}, {"y": 1})
    assert mixed.startswith(MIXED)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_])
def test_integers_of_states_differ(dtype: type) -> None:
    states = {"n": np.array([0, 1, 1, 1], dtype), "m": np.ones((1, 4), dtype), "h": np.ones((4, 2)), "one": np.ones(1)}
    found = unlike_integers(states, {"n": 0, "m": 1, "h": 0}, 2)
    assert found["n"].tolist() == [0, 1, 1, 0]
    assert found["m"].tolist() == [[1, 1, 0, 0]]
    assert found["n"].dtype == dtype
    assert found["h"] is states["h"]
    assert found["one"] is states["one"]


def test_rows_that_are_separate() -> None:
    assert ranged(lambda f: f["x"] * f["tokens"][:, None] * (np.arange(5) < f["lengths"][:, None])) == ""
    # An output may be cut to the longest of a batch.
    assert ranged(lambda f: (f["x"] * (np.arange(5) < f["lengths"][:, None]))[:, : f["lengths"].max()]) == ""


def test_a_batch_is_no_larger_than_a_file_takes() -> None:
    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes.append(len(feeds["x"]))
        return {"y": feeds["x"]}

    sizes: list[int] = []
    x = np.ones((2, 3), np.float32)
    assert rows_difference(run, {"x": x}, {"x": 0}, {"y": 0}, most=3) == ""
    assert max(sizes) == 3

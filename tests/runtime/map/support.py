"""What the tests of this folder share."""

from __future__ import annotations

from typing import Any

import numpy as np

FEATURES = 4


SIZES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bidirectional_stack": {"bidirectional": True, "num_layers": 2},
    "batch_first": {"batch_first": True, "bidirectional": True},
    "projected": {"proj_size": 2, "num_layers": 2, "bidirectional": True},
}


def drawn(count: int, longest: int = 12, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((rng.integers(1, longest + 1), FEATURES)).astype(np.float32) for _ in range(count)]


def assert_alike(found: Any, expected: Any) -> None:
    (output, states), (right, right_states) = found, expected
    for one, other in zip((output, *states), (right, *right_states), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def tokens_of(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(1, 16, rng.integers(1, 9)) for _ in range(count)]

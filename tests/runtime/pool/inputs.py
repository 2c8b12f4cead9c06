"""What the pools of these tests are given."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstm_onnx.runtime import Model

from ..models import randoms

FEATURES = 4
SIZES: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch_first_stack": {"batch_first": True, "num_layers": 2},
    "scan": {"proj_size": 2, "num_layers": 2},
    "lengths": {"batch_first": True},
}


def row_of(model: Model, x: np.ndarray, row: int) -> np.ndarray:
    axis = 0 if model.spec is not None and model.spec.batch_first else 1
    return np.take(x, [row], axis)


def inputs(model: Model, batch: int, time: int, seed: int) -> np.ndarray:
    assert model.spec is not None
    return randoms(*model.spec.sequence_shape(batch, time, FEATURES), seed=seed)

"""Which matrices float16 holds."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from lstm_onnx.exporter.float16_weights import SUFFIX, with_float16_weights

RANDOM = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
STEPS = np.arange(512, dtype=np.float32).reshape(32, 16)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (RANDOM, ""),
        (STEPS, ""),
        (STEPS + 2000, "holds whole numbers up to 2048"),
        (np.where(RANDOM > 0, 0, -np.inf).astype(np.float32), ""),
        (RANDOM * 1e6, "holds numbers up to 65504 and from 6e-5 on"),
        (RANDOM * 1e-9, "holds numbers up to 65504 and from 6e-5 on"),
    ],
)
def test_a_matrix_that_float16_does_not_hold_stays_float32(table: np.ndarray, why: str) -> None:
    _, stored, notes = with_float16_weights(ModelProto(), {"table": table})
    assert notes == ((f"table: stays float32, since float16 {why}",) if why else ())
    (name,) = stored
    assert name == ("table" if why else f"table{SUFFIX}")

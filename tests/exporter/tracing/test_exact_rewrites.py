"""No constant is taken for another one that is near it."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx.exporter.tracing.torch_changes import exact_rewrites
from tests.exporter.helpers import Made, X, made, signal


class NearConstants(nn.Module):
    """The eps of a norm, and numbers near 0 and 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        deviation = (x.var(1, keepdim=True, unbiased=False) + 1e-8).sqrt()
        tiny = x.mul(1e-9)
        return (x - x.mean(1, keepdim=True)) / deviation, tiny - 1e-9, x * 1.000009, x / 1.000009, self.lstm(x)[0] * 1


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(NearConstants(), signal(2, 4), X, tmp_path_factory.mktemp("near"))


def test_a_norm_of_zeros_is_zero(near: Made) -> None:
    outputs = near.run((torch.zeros(2, 5, 3),))
    assert not outputs[0].any()
    np.testing.assert_allclose(outputs[1], -1e-9, rtol=1e-6)


def test_factors_near_one_are_kept(near: Made) -> None:
    outputs, x = near.run(signal(3, 5)), signal(3, 5)[0].numpy()
    np.testing.assert_allclose(outputs[2], x * np.float32(1.000009), rtol=2e-7)
    np.testing.assert_allclose(outputs[3], x / np.float32(1.000009), rtol=2e-7)
    assert np.abs(outputs[2] - x).max() > 5e-6


def test_a_factor_of_one_goes(near: Made) -> None:
    assert near.operators.count("Mul") == 3  # of the variance, and by 1e-9 and 1.000009


def test_onnxscript_compares_as_before_afterwards() -> None:
    from onnxscript.rewriter import _matcher

    matcher: Any = _matcher
    own = matcher.math
    with exact_rewrites():
        assert not matcher.math.isclose(1e-9, 0, rel_tol=1e-5, abs_tol=1e-8)
        assert matcher.math.isclose(0.0, 0, rel_tol=1e-5, abs_tol=1e-8)
        assert matcher.math.inf == own.inf
    assert matcher.math is own
    assert matcher.math.isclose(1e-9, 0, abs_tol=1e-8)

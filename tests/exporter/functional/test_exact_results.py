"""Which results of operators no rounding changes: exact ones; all others a library may round otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lstm_onnx.exporter.functional.functional_module import inference_context
from lstm_onnx.exporter.functional.operator_roundings import OperatorRoundings

_NUMBERS = torch.tensor([-3.0, 0.5, 1.0, 6.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "run",
    [
        lambda x: (x * 2).long().float(),
        lambda x: x * 0.5 + 1 - x,
        lambda x: x.add_(1).div_(4).neg(),
        lambda x: torch.ones_like(x).sum() + x.cumsum(0),
        lambda x: torch.where(x > 0, x.floor(), x.clamp(min=-1)).amax(),
        lambda x: torch.floor(x * 0.3).float(),
    ],
    ids=["cast", "arithmetic", "in place", "counts", "picked", "floor"],
)
def test_exact_results_are_not_rounded(run: Callable[[Tensor], Tensor]) -> None:
    with OperatorRoundings(1e-3, 0, torch.float32), inference_context(torch.float64, torch.float32):
        found = run(_NUMBERS.clone())
    assert torch.equal(found, run(_NUMBERS.clone()).double())


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x.abs().sign().mean(),
        lambda x: x / 3 * 3,
        lambda x: x * 0.1 * 10,
        lambda x: (x + 2.0**24).sum(),
        lambda x: torch.add(x, x, alpha=0.1),
        lambda x: torch.sigmoid(x * 100),
        lambda x: torch.tanh(x * 100),
        lambda x: torch.exp(x * 0),
        lambda x: x[:1].softmax(0),
        lambda x: torch.ones(1, 4, dtype=x.dtype) @ x,
        lambda x: x.norm() / x.norm(),
        lambda x: (x * 1j).real + 0.1,
    ],
)
def test_results_that_a_library_may_round_are_rounded(run: Callable[[Tensor], Tensor]) -> None:
    with OperatorRoundings(1e-3, 0, torch.float32):
        found = run(_NUMBERS.clone())
    assert not torch.equal(found, run(_NUMBERS.clone()))


def test_numbers_are_compared_in_float32() -> None:
    x = torch.tensor([0.3], dtype=torch.float32).double()
    assert (x > 0.3).all()
    with OperatorRoundings(1e-3, 0, torch.float32):
        assert (x > 0.3).all()  # the module's own float64
        with inference_context(torch.float64, torch.float32):
            assert not (x > 0.3).any()
            assert (x > 0.3 - 1e-7).all()

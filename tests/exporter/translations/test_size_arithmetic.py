"""What Python computes with sizes is the same number in the file, at every length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx.errors import ExportError
from lstm_onnx.exporter.translations.size_arithmetic import as_double
from tests.exporter.helpers import X, eager, made, signal

pytestmark = pytest.mark.sweep(18)

TIPPING = [35, 65, 70, 84, 90, 110, 112, 126, 155, 170, 180, 190, 221, 330, 1023]
"""Lengths at which float32 and double round products with 0.7, 1.1 and the like, or quotients, to other integers."""
LENGTHS = [*range(1, 33), *TIPPING]


class Sized(nn.Module):
    """An LSTM, and what functions make of its output, in some dtype."""

    def __init__(self, *functions: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.functions, self.dtype = functions, dtype

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.lstm(x)[0].to(self.dtype)
        return tuple(function(y) for function in self.functions)


def right_at_every_length(
    functions: Callable[[Tensor], Tensor] | Mapping[str, Callable[[Tensor], Tensor]],
    folder: Path,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> None:
    """Each function gives PyTorch's numbers at every length; all are outputs of one file, since exports take long."""
    named = {"the function": functions} if callable(functions) else functions
    module = Sized(*named.values(), dtype=dtype).eval()
    result = made(module, signal(2, 9), X, folder, **options)
    least = (result.model.metadata.axis_limits if result.model.metadata else {}).get("time", (1, None))[0]
    wrong, compared = [], 0
    for length in LENGTHS:
        inputs = signal(1, length)
        try:
            expected = eager(module, inputs)
        except RuntimeError:
            continue  # too short for the module itself
        if length < least:
            continue
        compared += 1
        for name, actual, right in zip(named, result.run(inputs), expected, strict=True):
            tolerance = 2e-6 * max(1, float(np.abs(right).max(initial=0)))
            close = actual.shape == right.shape and np.allclose(actual, right, rtol=0, atol=tolerance)
            if not close or actual.dtype != right.dtype:
                wrong.append((name, length))
    assert not wrong
    assert compared > len(TIPPING)


WHOLE: dict[str, Callable[[int], int]] = {
    "floor": lambda n: math.floor(n * 0.7) + 1,
    "floor of a sum": lambda n: math.floor(n * 0.1 + n * 0.2) + 1,
    "floor of a quotient": lambda n: math.floor(n / 0.7) // 2,
    "ceil": lambda n: math.ceil(n * 1.1),
    "ceil of a quotient": lambda n: math.ceil(n / 3),
    "trunc": lambda n: math.trunc(n * 0.7) + 1,
    "trunc of a difference": lambda n: math.trunc(9.0 - n * -0.7),
    "round": lambda n: round(n * 0.5) + 1,
    "root": lambda n: math.floor(n**0.5) + 1,
    "cube": lambda n: math.floor((0.07 * n) ** 3) + 1,
    "remainder": lambda n: math.floor((n * 0.7) % 3.0) + 1,
    "maximum": lambda n: math.floor(torch.sym_max(n * 0.7, 7)) + 1,
    "minimum": lambda n: math.floor(torch.sym_min(n * 0.7, 20)) + 1,
    "whole quotient of a negative": lambda n: -(-n // 2),
    "whole quotient across zero": lambda n: (n - 5) // 3 + 3,
    "whole remainder of a negative": lambda n: (7 - n) % 5 + 1,
    "float floor division": lambda n: math.trunc((n * 0.7) // 1.4) + 1,
    "shifts": lambda n: (n >> 2) + (n << 1),
    "quotient and remainder": lambda n: sum(divmod(n, 4)) + 1,
}


def test_integers_computed_from_sizes(tmp_path: Path) -> None:
    def repeated(compute: Callable[[int], int]) -> Callable[[Tensor], Tensor]:
        return lambda y: y[:, :1].expand(-1, compute(y.size(1)), -1)[:, :, 0]

    right_at_every_length({name: repeated(compute) for name, compute in WHOLE.items()}, tmp_path)


FRACTIONS: dict[str, Callable[[int], float]] = {
    "quotient": lambda n: 1.0 / n,
    "product": lambda n: n * 0.7,
    "root": lambda n: torch.sym_sqrt(n),
    "floor division": lambda n: (n * 1.0) // 0.1,
    "remainder": lambda n: (n * 0.7) % 0.1,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fractions_computed_from_sizes(dtype: torch.dtype, tmp_path: Path) -> None:
    def scaled(compute: Callable[[int], float]) -> Callable[[Tensor], Tensor]:
        return lambda y: y * compute(y.size(1))

    right_at_every_length({name: scaled(compute) for name, compute in FRACTIONS.items()}, tmp_path, dtype)


def test_a_double_stays_a_double(tmp_path: Path) -> None:
    def scaled(y: Tensor) -> Tensor:
        share = torch.ones(1, dtype=torch.float64) * (y.size(1) * 0.7)  # 62.99999999999999 of 90
        return y * share.floor().long()

    right_at_every_length(scaled, tmp_path)


RANGES: dict[str, Callable[[int], Tensor]] = {
    "fractional step": lambda n: torch.arange(0, n, 0.7),
    "a step that is a share": lambda n: torch.arange(0, 1, 1 / n),
    "fractional end": lambda n: torch.arange(n * 0.7),
    "whole numbers of a fractional range": lambda n: torch.arange(0, n, 0.7).long(),
    "whole": lambda n: torch.arange(n),
    "whole as float": lambda n: torch.arange(1, n + 1, 2, dtype=torch.float32),
    "downwards": lambda n: torch.arange(n, 0, -1.5),
    "int64 of fractions": lambda n: torch.arange(0.9, n * 1.1, 1.3, dtype=torch.int64),
    "int32 of fractions": lambda n: torch.arange(0, n * 0.7, 1, dtype=torch.int32),
}


def test_ranges(tmp_path: Path) -> None:
    def ranges(compute: Callable[[int], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda y: compute(y.size(1)) + 0 * y.sum()

    right_at_every_length({name: ranges(compute) for name, compute in RANGES.items()}, tmp_path)


def test_a_roll_by_a_share_of_the_steps(tmp_path: Path) -> None:
    right_at_every_length(lambda y: y.roll(y.size(1) // 3, 1), tmp_path)


def test_integers_of_a_fractional_step_are_refused(tmp_path: Path) -> None:
    module = Sized(lambda y: torch.arange(0, y.size(1), 1.5, dtype=torch.int32) + 0 * y.sum())
    with pytest.raises(ExportError, match=r"integers by a fractional step"):
        made(module, signal(2, 9), X, tmp_path)


def test_a_comparison_of_fractions_in_cond(tmp_path: Path) -> None:
    def chosen(y: Tensor) -> Tensor:
        return torch.cond(y.size(1) * 0.7 >= 63, lambda y: y + 1, lambda y: y - 1, (y,))

    right_at_every_length(chosen, tmp_path)


@pytest.mark.parametrize("opset", [14, 15, 17, 18, 21, 23])
def test_opsets(opset: int, tmp_path: Path) -> None:
    def cut(y: Tensor) -> Tensor:
        steps = math.floor(y.size(1) * 0.7) + round(y.size(1) / 3) + math.floor((y.size(1) * 0.7) % 3.0) + 1
        return y[:, :1].expand(-1, steps, -1) * torch.arange(0, steps * 0.7, 0.7)[None, :steps, None].sum()

    right_at_every_length(cut, tmp_path, opset=opset)


def test_a_float_from_outside_of_a_branch_is_refused() -> None:
    with pytest.raises(ExportError, match=r"compute it within the branch"):
        as_double(ir.Value(name="share", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([])))


def test_a_plain_half_of_a_size_is_a_plain_quotient(tmp_path: Path) -> None:
    module = Sized(lambda y: y[:, : y.size(1) // 2 + 1])
    assert "Mod" not in made(module, signal(2, 9), X, tmp_path).operators

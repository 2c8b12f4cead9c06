"""Functions give what PyTorch's give for large numbers, at the edges of a division, and for whole numbers past 2^24."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exporter.helpers import BATCH_TIME, Made, X, made, signal

Function = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
FUNCTIONS: Mapping[str, Function] = {
    "logsigmoid": lambda a, _b, _i, _k: nn.functional.logsigmoid(a),
    "logaddexp": lambda a, b, _i, _k: torch.logaddexp(a, b),
    "logaddexp2": lambda a, b, _i, _k: torch.logaddexp2(a, b),
    "log1p": lambda a, _b, _i, _k: torch.log1p(a),
    "log1p of halves": lambda a, _b, _i, _k: torch.log1p(a.clamp(-1, 1).half()),
    "expm1": lambda a, _b, _i, _k: torch.expm1(a),
    "hypot": lambda a, b, _i, _k: torch.hypot(a * 1e30, b * 1e30),
    "remainder": lambda a, b, _i, _k: a % b,
    "remainder by a number": lambda a, _b, _i, _k: torch.remainder(a, 0.1),
    "remainder of an angle": lambda a, _b, _i, _k: torch.remainder(a + math.pi, 2 * math.pi) - math.pi,
    "floor division": lambda a, b, _i, _k: a // b,
    "floor division by a number": lambda a, _b, _i, _k: a // 0.1,
    "truncated division": lambda a, b, _i, _k: torch.div(a, b, rounding_mode="trunc"),
    "whole remainder": lambda _a, _b, i, k: i % k,
    "whole floor division": lambda _a, _b, i, k: i // k,
    "whole division, floor": lambda _a, _b, i, k: torch.div(i, k, rounding_mode="floor"),
    "whole division, trunc": lambda _a, _b, i, k: torch.div(i, k, rounding_mode="trunc"),
    "hours of seconds": lambda _a, _b, i, _k: torch.div(i, 3600, rounding_mode="floor") % 24,
    "whole by a fraction": lambda _a, _b, i, _k: torch.div(i, 0.5, rounding_mode="floor"),
    "of bytes": lambda _a, _b, i, _k: (i.abs() % 251).to(torch.uint8) // 7 % 5,
    "copysign": lambda a, b, _i, _k: torch.copysign(a, b),
    "signbit": lambda a, _b, _i, _k: torch.signbit(-a.nan_to_num()),
    "fmax": lambda a, b, _i, _k: torch.fmax(a, b),
    "fmin": lambda a, b, _i, _k: torch.fmin(a, b),
    "clamp from below": lambda a, _b, _i, _k: a.clamp(min=-0.5),
    "clamp from above": lambda a, _b, _i, _k: torch.clamp_max(a, 0.5),
    "clamp of halves": lambda a, _b, _i, _k: a.clamp(-1e4, 1e4).half().clamp(min=0.25),
    "whole clamp": lambda _a, _b, i, _k: i.clamp(min=1),
    "whole fmax": lambda _a, _b, i, k: torch.fmax(i, k),
    "whole power": lambda _a, _b, i, _k: i**5,
    "of a fraction": lambda _a, _b, i, _k: (i % 9) ** 2.5,
    "place in a ring": lambda a, _b, i, _k: i % a.size(1),
}
SMALL = ("log1p", "expm1", "hypot")
"""Functions whose results for small numbers are small."""
NUMBERS = (
    *(0.0, 1e-9, -1e-9, 0.1, -0.3, 0.6, 0.9, 1.0, -1.0, 2.5, -3.0),
    *(10.0, 25.0, -25.0, 88.8, -100.0, 104.0, 1e4, -1e4, 3600.0),
)
WHOLE = (0, 1, -1, 3, 7, -7, 2**24 + 1, -(2**31) - 1, 1_700_000_123, 1_700_000_123_456, 86_400)


class Functions(nn.Module):
    """Each function, beside an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(1, 2, batch_first=True)

    def forward(self, a: Tensor, b: Tensor, i: Tensor, k: Tensor) -> dict[str, Tensor]:
        found = {name: function(a, b, i, k) for name, function in FUNCTIONS.items()}
        return {"y": self.lstm(a.unsqueeze(-1))[0], **found}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Made:
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.rand((2, 5), generator=rng) + 0.5 for _ in range(2))
    i, k = (torch.randint(1, 9, (2, 5), generator=rng) for _ in range(2))
    shapes = dict.fromkeys("abik", BATCH_TIME)
    return made(Functions(), (a, b, i, k), shapes, tmp_path_factory.mktemp("functions"))


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All pairs of numbers, and of whole numbers."""
    count = len(NUMBERS) ** 2
    a, b = torch.tensor(list(itertools.product(NUMBERS, NUMBERS))).T
    i, k = torch.tensor(list(itertools.islice(itertools.cycle(itertools.product(WHOLE, WHOLE[1:])), count))).T
    return a[None], b[None], i[None], k[None]


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_pytorchs(name: str, file: Made, pairs: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    expected = FUNCTIONS[name](*pairs).numpy()
    place = 1 + list(FUNCTIONS).index(name)
    actual = file.run(pairs)[place]
    assert actual.dtype == expected.dtype
    tolerance = 1e-3 if expected.dtype == np.float16 else 1e-6
    # NaN and infinities where PyTorch has them
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=0 if name in SMALL else tolerance)


@pytest.mark.filterwarnings("ignore:.*has a NaN or an infinity")  # its LSTM reads them, too
def test_infinities_are_pytorchs(file: Made) -> None:
    """Of the logarithms and of remainders; PyTorch's inf // 2 is NaN."""
    numbers = (math.inf, -math.inf, math.nan, 0.0, 2.5)
    a, b = (column[None] for column in torch.tensor(list(itertools.product(numbers, numbers))).T)
    i, k = torch.ones(a.shape, dtype=torch.int64), torch.ones(a.shape, dtype=torch.int64)
    found = file.run((a, b, i, k))
    for place, (name, function) in enumerate(FUNCTIONS.items(), 1):
        np.testing.assert_allclose(found[place], function(a, b, i, k).numpy(), rtol=1e-6, atol=1e-6, err_msg=name)


COORDINATES = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 2.5, -3.1, 1e-30, -1e-30, 1e30, np.nan)


class Phase(nn.Module):
    """The angle of each pair of features, beside an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 2, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.lstm(x)[0]
        whole = torch.round(x * 2).long()
        return (
            torch.atan2(y[..., 0], y[..., 1]),
            torch.atan2(x[..., 0], x[..., 1]),
            torch.atan2(whole[..., 0], y[..., 0]),
        )


@pytest.mark.filterwarnings("ignore:.*has a NaN or an infinity")  # its LSTM reads them, too
def test_atan2_is_that_of_pytorch(tmp_path: Path) -> None:
    file = made(Phase(), signal(2, 4), X, tmp_path)
    pairs = torch.tensor(list(itertools.product(COORDINATES, COORDINATES)))
    x = torch.cat([pairs, torch.zeros(len(pairs), 1)], 1)[None]
    actual, expected = file.run((x,))[1], torch.atan2(x[..., 0], x[..., 1]).numpy()
    np.testing.assert_allclose(actual, expected, rtol=5e-7)  # NaN where it is NaN; pi and -pi are not the same
    assert {np.float32(np.pi), np.float32(-np.pi)} <= set(expected.ravel().tolist())
    file.run(signal(3, 5))

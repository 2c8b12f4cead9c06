"""Special functions have PyTorch's accuracy beside those of float64, near their zeros and poles and far from 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import BATCH_TIME, Made, made

FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "lgamma": torch.lgamma,
    "digamma": torch.digamma,
    "erfinv": torch.erfinv,
    "erfc": torch.erfc,
    "erfcx": torch.special.erfcx,
    "log_ndtr": torch.special.log_ndtr,
    "multigammaln": lambda x: torch.special.multigammaln(x.abs() + 2, 2),
}
NUMBERS = (
    *(0.0, -0.0, 1e-30, 1e-6, 0.1, 0.5, 0.999, 1.0, 1.001, 1.4616, 1.5, 1.999, 2.0, 2.001, 3.0, 7.999, 8.0, 12.5),
    *(-1e-6, -0.1, -0.5, -0.999, -1.0, -1.5, -2.5, -3.25, -7.5, -8.0, -20.5, 40.0, 300.0, -300.5, 1e6, 1e30),
    *(math.inf, -math.inf, math.nan),
)
ROUNDINGS = 8
"""Times a rounding of float32: PyTorch's own erfinv and digamma are off by up to 4."""


class Functions(nn.Module):
    """Each function, beside an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(1, 2, batch_first=True)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = {name: function(x) for name, function in FUNCTIONS.items()}
        return {"y": self.lstm(x.unsqueeze(-1))[0], **found}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Made:
    x = torch.rand((2, 5), generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    return made(Functions(), (x,), {"x": BATCH_TIME}, tmp_path_factory.mktemp("functions"))


@pytest.mark.filterwarnings("ignore:.*has a NaN or an infinity")  # its LSTM reads them, too
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_as_exact_as_pytorchs(name: str, file: Made) -> None:
    x = torch.tensor([NUMBERS])
    expected = FUNCTIONS[name](x.double()).float().numpy()
    actual = file.run((x,))[1 + list(FUNCTIONS).index(name)]
    smallest = 1e-37 if name == "erfc" else 1e-14  # where float32, or double beside larger terms, has fewer digits
    np.testing.assert_allclose(actual, expected, rtol=ROUNDINGS * 2.0**-23, atol=smallest)


def test_float64_has_its_own_digits_or_is_refused(tmp_path: Path) -> None:
    class Of(nn.Module):
        def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.lstm, self.function = nn.LSTM(3, 4, batch_first=True), function

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.function(x.double()), self.lstm(x)[0]

    x = torch.tensor([[[0.3, 1.4616, -2.7]]])
    file = made(Of(torch.lgamma), (x,), {"x": BATCH_TIME}, tmp_path)
    np.testing.assert_allclose(file.run((x,))[0], torch.lgamma(x.double()).numpy(), rtol=0, atol=1e-14)
    with pytest.raises(ExportError, match=r"no translation to ONNX that is exact in float64; .* precision=.float32"):
        made(Of(torch.erfinv), (x / 3,), {"x": BATCH_TIME}, tmp_path)

"""Where PyTorch gives NaN or an infinity, the file does, wherever in a row that is; and other rows stay as they are."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lstm_onnx import verify
from tests.exporter.helpers import Made, X, made, signal

pytestmark = pytest.mark.filterwarnings("ignore:.*has a NaN or an infinity")  # the LSTM beside them reads them, too

FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "amax": lambda x: x.amax(1),
    "amin of features": lambda x: x.amin(-1, keepdim=True),
    "amax of two axes": lambda x: x.amax((1, 2)),
    "max": lambda x: x.max(),
    "min": lambda x: x.min(),
    "max over time": lambda x: x.max(1).values,
    "its places": lambda x: x.max(1).indices,
    "min over time": lambda x: x.min(1, keepdim=True).values,
    "its places, too": lambda x: x.min(1, keepdim=True).indices,
    "aminmax": lambda x: torch.stack(torch.aminmax(x, dim=1), 1),
    "pooling over time": lambda x: functional.adaptive_max_pool1d(x.mT, 1),
    "masked maximum": lambda x: x.masked_fill(x < 0, -math.inf).amax(1),
    "norm": lambda x: torch.linalg.vector_norm(x, math.inf, dim=-1),
    "argmax": lambda x: x.argmax(1),
    "argmin of features": lambda x: x.argmin(-1),
    "argmax of all": lambda x: x.argmax(),
    "topk": lambda x: x.topk(2, -1).values,
    "topk's places": lambda x: x.topk(2, -1).indices,
    "smallest": lambda x: x.topk(2, largest=False, sorted=True).values,
    "sort": lambda x: x.sort(1).values,
    "sort's places": lambda x: x.sort(dim=1, stable=True).indices,
    "descending sort": lambda x: x.sort(descending=True).values,
    "quantile": lambda x: x.quantile(0.5, dim=-1),
    "attention": lambda x: functional.scaled_dot_product_attention(
        *[x.unsqueeze(1)] * 3, attn_mask=x.new_ones(x.size(1), x.size(1)).tril().bool()
    ),
    "logit": lambda x: torch.logit(x, 1e-6),
    "heaviside": lambda x: torch.heaviside(x, x.new_tensor(0.5)),
    "sign": lambda x: x.sign(),
    "root": lambda x: x**0.5,
    "inverse root": lambda x: x**-0.5,
    "relu": lambda x: functional.relu(x),
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp_min": lambda x: x.clamp_min(0),
    "clamp_max": lambda x: x.clamp_max(0.5).clamp_max(x.new_tensor(0.25)),
    "softmax": lambda x: x.softmax(1),
    "interpolation": lambda x: functional.interpolate(x.mT, scale_factor=2.0, mode="linear"),
}


class Functions(nn.Module):
    """Each function, beside an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 2, batch_first=True)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": self.lstm(x)[0], **{name: function(x) for name, function in FUNCTIONS.items()}}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(Functions(), signal(2, 5), X, tmp_path_factory.mktemp("functions"))


def places(size: int) -> list[int]:
    """The first, the last, and others."""
    return sorted({0, size - 1, *range(1, size, max(1, size // 7))})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("batch", "time"), [(1, 3), (2, 8), (2, 17)])
def test_special_values_are_pytorchs(file: Made, batch: int, time: int, number: float) -> None:
    (x,) = signal(batch, time)
    for place in places(x.numel()):
        wrong = x.clone()
        wrong.view(-1)[place] = number
        found = file.run(wrong)[1:]
        for (name, function), actual in zip(FUNCTIONS.items(), found, strict=True):
            np.testing.assert_allclose(
                actual, function(wrong).numpy(), rtol=1e-4, atol=1e-5, err_msg=f"{name}, {number} at {place}"
            )


ACROSS_ROWS = ("max", "min", "argmax of all")


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_other_rows_stay_as_they_are(file: Made, number: float) -> None:
    (x,) = signal(4, 6)
    right = file.run(x)
    for row, step in ((0, 0), (1, 5), (2, 0), (3, 5)):
        wrong = x.clone()
        wrong[row, step] = number
        for name, actual, expected in zip(["y", *FUNCTIONS], file.run(wrong), right, strict=True):
            if name not in ACROSS_ROWS:
                others = np.arange(4) != row
                np.testing.assert_array_equal(actual[others], expected[others], err_msg=name)


class Largest(nn.Module):
    """The largest output over time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0].amax(1)


def test_all_mutants_of_a_maximum_are_rejected(tmp_path: Path) -> None:
    file = made(Largest(), signal(2, 5), X, tmp_path)
    report = verify(Largest(), file.path, mutants="all")
    assert report
    assert report.mutants

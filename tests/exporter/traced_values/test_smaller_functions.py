"""Functions of torch that are written with smaller ones in a trace: indices along an axis, gradients, and so on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx.exporter.traced_values.smaller_functions import SMALLER_FUNCTIONS
from tests.exporter.helpers import agree, eager, made, signal

X = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
ROWS, WEIGHTS, COUNTS = X[0], torch.tensor([0.5, 1.5, 1.0]), torch.tensor([1, 2, 1])
CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (torch.take_along_dim, (X, X.argsort(1), 1), {}),
    (torch.take_along_dim, (X[:, :, :1], torch.tensor([[[0, 4]], [[1, 0]], [[2, 3]], [[3, 3]]]), -2), {}),
    (torch.gradient, (X,), {"dim": 1}),
    (torch.gradient, (X,), {"spacing": (2.0, 0.5), "dim": (0, -1), "edge_order": 2}),
    (torch.gradient, (X,), {"spacing": 0.1}),
    (torch.cov, (ROWS,), {}),
    (torch.cov, (ROWS[0],), {"correction": 0}),
    (torch.cov, (ROWS,), {"fweights": COUNTS}),
    (torch.cov, (ROWS,), {"fweights": COUNTS, "aweights": WEIGHTS, "correction": 2}),
    (torch.cov, (ROWS[:, :1],), {}),
    (torch.corrcoef, (ROWS,), {}),
    (torch.corrcoef, (ROWS[0],), {}),
    (torch.corrcoef, (torch.stack([ROWS[0], ROWS[0] * 0]),), {}),
    (torch.bucketize, (X, torch.tensor([-1.0, 0.0, 1.0])), {"right": True, "out_int32": True}),
    (torch.repeat_interleave, (X, COUNTS, -1), {"output_size": 4}),
    (nn.functional.gaussian_nll_loss, (X, X * 2, X[..., 0].abs()), {}),
    (torch.fft.fftshift, (X,), {}),
    (torch.fft.ifftshift, (X,), {"dim": (0, -1)}),
    (torch.fft.ifftshift, (X[:, :4], 1), {}),
    (nn.functional.gaussian_nll_loss, (X, X * 2, X.abs()), {"full": True, "reduction": "none"}),
]
PLAIN = SimpleNamespace(call=lambda function, args, kwargs: function(*args, **kwargs))


@pytest.mark.filterwarnings("ignore:cov.*degrees of freedom")
@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS, ids=lambda value: getattr(value, "__name__", "_"))
def test_they_are_torchs(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    (found,) = SMALLER_FUNCTIONS[function.__name__](PLAIN, function, args, kwargs)
    expected = function(*args, **kwargs)
    torch.testing.assert_close(found, list(expected) if type(found) is list else expected, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("take_along_dim", (X, COUNTS), {}),
        ("gradient", (X,), {"spacing": [torch.arange(4.0)], "dim": [0]}),
        ("cov", (X[0].to(torch.complex64),), {}),
        ("bucketize", (0.5, WEIGHTS), {}),
        ("bucketize", (X, WEIGHTS), {"out": torch.empty(4, 5, 3)}),
        ("repeat_interleave", (X, 2), {"dim": 0}),
    ],
)
def test_others_are_left_to_torch(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert SMALLER_FUNCTIONS[name](PLAIN, None, args, kwargs) is None


class Composed(nn.Module):
    """Calls some of them along axes that are not fixed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, places: Tensor, edges: Tensor) -> tuple[Tensor, ...]:
        out = self.lstm(x)[0]
        return (
            torch.take_along_dim(out, places[:, None, None], 1),
            torch.gradient(out, dim=1)[0],
            torch.cov(out[:, -1].T),
            torch.bucketize(out.contiguous(), edges),
            torch.fft.fftshift(torch.fft.ifftshift(out, dim=1)),
        )


def inputs(batch: int, time: int) -> tuple[Tensor, Tensor, Tensor]:
    return (*signal(batch, time), torch.arange(batch) % 2, torch.linspace(-0.1, 0.1, batch + 2))


def test_a_file_is_right_at_every_size(tmp_path: Path) -> None:
    module = Composed()
    shapes = {"x": {0: "batch", 1: "time"}, "places": {0: "batch"}, "edges": {0: "edges"}}
    result = made(module, inputs(3, 6), shapes, tmp_path)
    assert result.model.metadata.axis_limits["time"] == (2, None)  # torch.gradient needs two steps
    for sizes in ((2, 2), (5, 4), (3, 17)):
        agree(result.run(inputs(*sizes)), eager(module, inputs(*sizes)))

"""Masks and small integers are computed with as in PyTorch, also where ONNX Runtime has no kernel of their type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, made, right, signal

OF_MASKS: Mapping[str, Callable[[Tensor, Tensor], Tensor | tuple[Tensor, ...]]] = {
    "maximum": torch.maximum,
    "fmin": torch.fmin,
    "product": torch.mul,
    "comparisons": lambda a, b: (a < b, a >= b),
    "clamp": lambda a, b: a.clamp(max=b),
    "cumulative": lambda a, b: (a.cumsum(1), b.cumsum(-1)),
    "not a number": lambda a, b: (a.isnan(), b.isinf(), a.isfinite()),
}
OF_INTEGERS: Mapping[str, Callable[[Tensor], Tensor | tuple[Tensor, ...]]] = {
    "roundings": lambda i: (i.ceil(), i.floor(), i.round(), i.trunc(), i.long().ceil()),
    "limits": lambda i: (i.clamp(-2, 3), i.relu(), torch.maximum(i, i.flip(1))),
    "extremes": lambda i: (i.amax(1), i.amin(-1), *i.max(1), i.argmin(-1)),
    "padding": lambda i: F.pad(i, (1, 2), value=7),
    "products": lambda i: (i @ i.mT, i * i, i**2, i.prod(-1), i.sum(-1, dtype=i.dtype)),
    "Gemm": lambda i: (F.linear(i[0], i[0, :1], i[0, 0, :1]), torch.addmm(i[0], i[0], i[0, :1].T.expand(3, 3), beta=2)),
    "upper bits": lambda i: (i * 120 * 120, (i * 99) @ (i * 99).mT, -i),
    "not a number": lambda i: (i.isnan(), i.isposinf(), i.isfinite()),
    "triangle": lambda i: (i.tril(), i.cumsum(1, dtype=i.dtype), i.topk(2, -1)[0]),
}


class Computed(nn.Module):
    """A function of masks or integers of an LSTM's output."""

    def __init__(self, function: Callable[..., Tensor | tuple[Tensor, ...]], kinds: tuple[torch.dtype, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.function, self.kinds = nn.LSTM(3, 3, batch_first=True), function, kinds

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.lstm(x)[0]
        given = [((y * 20).int().to(kind),) for kind in self.kinds] or [(y > 0, y > 0.1)]
        found = [self.function(*items) for items in given]
        return [y, *(part for each in found for part in (each if isinstance(each, tuple) else (each,)))]


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", OF_MASKS)
def test_masks(name: str, tmp_path: Path) -> None:
    right(Computed(OF_MASKS[name], ()), signal, X, tmp_path, sizes=((3, 5),))


def test_differences_of_masks_stay_refused(tmp_path: Path) -> None:
    """PyTorch has none; torch.onnx writes one for isclose, beside a tolerance that is a mask, too."""
    with pytest.raises(ExportError, match="bool"):
        made(Computed(torch.isclose, ()), signal(2, 4), X, tmp_path)


@pytest.mark.sweep(9)
@pytest.mark.parametrize("name", OF_INTEGERS)
def test_integers(name: str, tmp_path: Path) -> None:
    kinds = (torch.int16, torch.int8 if name == "limits" else torch.uint8, torch.int64)
    right(Computed(OF_INTEGERS[name], kinds), signal, X, tmp_path, sizes=((1, 1), (3, 5)))

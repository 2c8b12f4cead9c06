"""Views that change nothing in PyTorch change nothing in the file."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, made, right, signal

pytestmark = pytest.mark.sweep(9)


class Head(nn.Module):
    """What `view` makes of an output of `features` features."""

    def __init__(self, view: Callable[[Tensor], Any], features: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head, self.view = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, features), view

    def forward(self, x: Tensor) -> Any:
        return self.view(self.head(self.lstm(x)[0]))


VIEWS: dict[str, tuple[int, Callable[[Tensor], Any]]] = {
    "squeeze of 1": (1, lambda y: y.squeeze(-1)),
    "squeeze of 5": (5, lambda y: y.squeeze(-1)),
    "squeeze of 5, by name": (5, lambda y: torch.squeeze(y, dim=2)),
    "squeeze in place": (5, lambda y: (y * 2).squeeze_(2)),
    "squeeze of several": (1, lambda y: y.unsqueeze(2).squeeze((2, -1))),
    "squeeze of one of several": (5, lambda y: y.unsqueeze(2).squeeze((2, 3))),
    "squeeze of none": (5, lambda y: y.squeeze(())),
    "squeeze of a scalar": (5, lambda y: y.sum().squeeze(0)),
    "squeeze and back": (5, lambda y: y.unsqueeze(1).squeeze(1)),
    "expand as itself": (5, lambda y: y.expand_as(y).expand(-1, -1, -1)),
    "the same shape": (5, lambda y: y.contiguous().view_as(y).reshape(y.shape).flatten(2)),
    "axes where they are": (5, lambda y: y.movedim(1, 1).swapaxes(0, 0).permute(0, 1, 2).transpose(2, 2)),
    "the same dtype": (5, lambda y: y.view(torch.float32)),
    "hypot": (5, lambda y: torch.hypot(y, y + 1)),
    "entries by a vector": (5, lambda y: torch.index_select(y, 2, torch.tensor([3, 0, 3]))),
    "entries by a scalar": (5, lambda y: torch.index_select(y, -1, torch.tensor(2))),
    "data": (5, lambda y: y.data.detach()),
}


@pytest.mark.parametrize("case", VIEWS)
def test_views_give_what_torch_gives(case: str, tmp_path: Path) -> None:
    features, view = VIEWS[case]
    right(Head(view, features), signal, X, tmp_path, tolerance=1e-4)


@pytest.mark.parametrize(("dim", "axis"), [(0, "batch"), ((1, 2), "time"), (-2, "time")])
def test_a_squeeze_of_an_axis_that_may_be_1_is_refused(dim: Any, axis: str, tmp_path: Path) -> None:
    """PyTorch gives fewer axes there."""
    module = Head(lambda y: y.squeeze(dim))
    with pytest.raises(ExportError, match=rf"test_views.py:\d+: .*squeeze removes the axis {axis} where it is 1"):
        made(module, signal(2, 4), X, tmp_path)


def test_a_squeeze_of_an_axis_that_is_never_1_is_none(tmp_path: Path) -> None:
    shapes = {"x": {0: torch.export.Dim("batch", min=2), 1: "time"}}
    right(Head(lambda y: y.squeeze(0)), signal, shapes, tmp_path, sizes=((2, 1), (3, 7), (5, 2)))


def test_bytes_as_another_dtype_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="reads the same bytes as another dtype"):
        made(Head(lambda y: y.view(torch.int32)), signal(2, 4), X, tmp_path)

"""Counts after which a module does something else, far from any that is common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, made, signal


class Episodes(nn.Module):
    """Forgets its state after so many calls, which `ended` says."""

    most = 1

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.hidden, self.calls = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)), 0

    def ended(self) -> bool:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        out, self.hidden = self.lstm(x, self.hidden)
        self.calls += 1
        if self.ended():
            self.hidden, self.calls = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)), 0
        return out


def in_the_code(self: Episodes) -> bool:
    return self.calls == 37


def in_an_attribute(self: Episodes) -> bool:
    return self.calls > self.most


def in_a_rest(self: Episodes) -> bool:
    return self.calls % 83 == 0


@pytest.mark.parametrize("ended", [in_the_code, in_an_attribute, in_a_rest])
def test_a_count_that_the_code_can_see_is_tried(ended: Any, tmp_path: Path) -> None:
    module = type("Module", (Episodes,), {"ended": ended})()
    module.most = 1743
    with pytest.raises(ExportError, match=r"hidden\.hn depends on what earlier calls left in self.calls"):
        made(module, signal(2, 4), X, tmp_path)


def test_a_count_that_changes_nothing_is_no_state(tmp_path: Path) -> None:
    module = type("Module", (Episodes,), {"ended": lambda self: self.calls < 0})()
    states = made(module, signal(2, 4), X, tmp_path).exported.states
    assert states == {"hidden.h0": "hidden.hn", "hidden.c0": "hidden.cn"}

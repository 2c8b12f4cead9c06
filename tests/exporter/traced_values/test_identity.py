"""What `item()` gives of a truth value is not True itself in a trace: code that asks for that is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import BATCH_TIME, made, right, signal


class Asking(nn.Module):
    flag: Any = True

    def __init__(self, ask: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.ask = ask

    def forward(self, x: Tensor) -> Any:
        return self.lstm(self.ask(self, x))[0]


def directly(self: Asking, x: Tensor) -> Tensor:
    return x * 2 if (x.abs().max() > 100).item() is True else x


def by_a_variable(self: Asking, x: Tensor) -> Tensor:
    large = (x.abs().max() > 100).item()
    if large is not False:
        x = x * 2
    return x


def by_a_match(self: Asking, x: Tensor) -> Tensor:
    match (x.abs().max() > 100).item(), x.dim():
        case True, 3:
            return x * 2
    return x


@pytest.mark.parametrize("ask", [directly, by_a_variable, by_a_match])
def test_identity_with_true_or_false_is_refused(ask: Callable[[Any, Tensor], Tensor], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"at test_identity.py:\d+: .*: in a trace, item\(\) gives neither True"):
        made(Asking(ask).eval(), signal(2, 4), {"x": BATCH_TIME}, tmp_path)


def test_other_values_may_be_asked_for_it(tmp_path: Path) -> None:
    def of_another(self: Asking, x: Tensor) -> Tensor:
        large = (x.mean() > 0).item()
        if large:
            x = x * 2
        return x + 1 if self.flag is True and large is not None else x

    right(Asking(of_another).eval(), signal, {"x": BATCH_TIME}, tmp_path)

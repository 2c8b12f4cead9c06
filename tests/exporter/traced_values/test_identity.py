"""What `item()` gives of a truth value is not True itself, nor is its text: such code is refused or noted."""

from __future__ import annotations

import re
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


def of_a_comparison(self: Asking, x: Tensor) -> Tensor:
    return x * 2 if (x.abs().max().item() > 100) is True else x


def by_variables(self: Asking, x: Tensor) -> Tensor:
    largest = x.abs().max().item()
    large = largest > 100
    return x * 2 if large is True else x


def is_large(x: Tensor) -> Any:
    return bool_of(x.abs().max() > 100)


def bool_of(value: Tensor) -> Any:
    return value.item()


def of_a_function(self: Asking, x: Tensor) -> Tensor:
    return x * 2 if is_large(x) is True else x


def after_a_branch(self: Asking, x: Tensor) -> Tensor:
    if x.mean() > 0:
        x = x + 1
    large = (x.abs().max() > 100).item()
    return x * 2 if large is True else x


@pytest.mark.parametrize(
    "ask", [directly, by_a_variable, by_a_match, of_a_comparison, by_variables, of_a_function, after_a_branch]
)
def test_identity_with_true_or_false_is_refused(ask: Callable[[Any, Tensor], Tensor], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"at test_identity.py:\d+: .*: in a trace, neither item\(\) nor a"):
        made(Asking(ask).eval(), signal(2, 4), {"x": BATCH_TIME}, tmp_path)


def test_other_values_may_be_asked_for_it(tmp_path: Path) -> None:
    def of_another(self: Asking, x: Tensor) -> Tensor:
        large = (x.mean() > 0).item()
        if large:
            x = x * 2
        return x + 1 if self.flag is True and large is not None else x

    right(Asking(of_another).eval(), signal, {"x": BATCH_TIME}, tmp_path)


def of_a_size(self: Asking, x: Tensor) -> Tensor:
    return x * 2 if (x.shape[1] > 50) is True else x


def of_a_size_by_a_variable(self: Asking, x: Tensor) -> Tensor:
    short = x.shape[1] <= 50
    return x if short is not False else x * 2


@pytest.mark.parametrize("ask", [of_a_size, of_a_size_by_a_variable])
def test_the_truth_of_a_size_is_decided_as_in_an_if(ask: Callable[[Any, Tensor], Tensor], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"off by .* at .*time 51.*only one of its branches"):
        made(Asking(ask).eval(), signal(2, 4), {"x": BATCH_TIME}, tmp_path)


def as_text(self: Asking, x: Tensor) -> Tensor:
    return x * 2 if str(x.mean().item() > 9) == "True" else x


def as_formatted_text(self: Asking, x: Tensor) -> Tensor:
    return x * 2 if f"{x.mean() > 9}" == "True" else x


@pytest.mark.parametrize("ask", [as_text, as_formatted_text])
def test_text_of_a_number_is_noted(ask: Callable[[Any, Tensor], Tensor], tmp_path: Path) -> None:
    notes = made(Asking(ask), signal(2, 4), {"x": BATCH_TIME}, tmp_path).exported.notes
    assert any(
        re.search(r"test_identity.py:\d+: .*: the code turns a number of a tensor into text", note) for note in notes
    )

"""Checks of numbers whose error Python's own protocols, or a caller above code that a trace exchanges, may catch."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, made, signal

pytestmark = pytest.mark.sweep(3)


class Large:
    def __init__(self, x: Tensor) -> None:
        self.x = x

    @property
    def gain(self) -> float:
        if self.x.abs().max() > 8:
            raise AttributeError("gain")
        return 2.0

    def __getitem__(self, index: int) -> int:
        if index > 2 or bool(self.x.abs().max() > 8):
            raise IndexError
        return index

    @property
    def checked(self) -> float:
        if self.x.abs().max() > 8:
            raise ValueError("large")
        return 2.0


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(4, 4), Small())


class Small(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.abs().max() > 8:
            raise ValueError("large")
        return x


class Default(Base):
    def forward(self, x: Tensor) -> Tensor:
        gain: float = getattr(Large(x), "gain", 1.0)
        return self.lstm(x)[0] * gain


class Has(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0] * (2 if hasattr(Large(x), "gain") else 1)


class Items(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        for _ in Large(x):  # type: ignore[attr-defined] # as Python did before __iter__
            y = y * 2
        return y


class InLayers(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        try:
            if x.mean() > -1:
                y = self.layers(y)
        except ValueError:
            y = y * 0
        return y


@pytest.mark.parametrize("kind", [Default, Has, Items, InLayers])
def test_a_check_whose_error_may_be_caught_is_none(kind: type[nn.Module], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the code depends on the numbers in a tensor"):
        made(kind().eval(), signal(2, 4), X, tmp_path)


class Checked(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0] * Large(x).checked


def test_a_property_may_check(tmp_path: Path) -> None:
    notes = made(Checked().eval(), signal(2, 4), X, tmp_path).exported.notes
    assert sum("does not check this" in note for note in notes) == 1


class Assigning(Base):
    def forward(self, x: Tensor) -> Tensor:
        y, factor = self.lstm(x)[0], 1
        if (x.abs() < 8).all() or (factor := 3):
            y = y * factor
        else:
            raise ValueError("large")
        return y


def test_a_condition_that_assigns_after_what_a_check_asks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the code depends on the numbers in a tensor"):
        made(Assigning().eval(), signal(2, 4), X, tmp_path)


class profile:  # noqa: N801 - as torch's
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> bool:
        return True


Stop = StopIteration


class InOwnManager(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        with profile():
            if x.max() > 8:
                raise ValueError("large")
            y = y * 2
        return y  # noqa: RET504 - the manager swallows errors


class Mapped(Base):
    def forward(self, x: Tensor) -> Tensor:
        def checked(factor: int) -> int:
            if x.max() > 8:
                raise Stop
            return factor

        return self.lstm(x)[0] * (1 + sum(map(checked, [1, 2])))


class Asserted(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        try:
            torch._assert(x.max() < 8, "large")
        except AssertionError:
            y = y * 0
        return y


@pytest.mark.parametrize("kind", [InOwnManager, Mapped, Asserted])
def test_a_name_does_not_tell_what_catches_an_error(kind: type[nn.Module], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"the code depends on the numbers in a tensor|is off by"):
        made(kind().eval(), signal(2, 4), X, tmp_path)


class Swallowing(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        try:
            if x.max() < 8:
                raise ValueError("small")  # noqa: TRY301
            y = y * 2
        except Exception:  # noqa: BLE001 - catches the trace's own error, too
            y = y * 3
        return y


class Index(Base):
    def forward(self, x: Tensor) -> Tensor:
        y, factor = self.lstm(x)[0], 1
        try:
            factor = [1, 2, 3][int(x.abs().max() / 8)]
        except Exception:  # noqa: BLE001
            factor = 1
        return y * factor


@pytest.mark.parametrize("kind", [Swallowing, Index])
def test_a_refusal_that_the_code_catches_is_still_one(kind: type[nn.Module], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the code depends on the numbers in a tensor"):
        made(kind().eval(), signal(2, 4), X, tmp_path)

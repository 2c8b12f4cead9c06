"""Lengths at which a rounding may tip, and what is done with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sympy
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor
from torch.utils._sympy.functions import CeilToInt, FloatTrueDiv, FloorDiv, FloorToInt, IntTrueDiv, ToFloat, TruncToInt

from lstm_onnx import ExportError
from lstm_onnx.exporter.tracing import torch_export as trace
from lstm_onnx.exporter.tracing.roundings import nearest_sizes, rounding_sizes
from tests.exporter.helpers import X, made, signal
from tests.exporter.translations.test_size_arithmetic import Sized

pytestmark = pytest.mark.sweep(18)

S, OTHER = (sympy.Symbol(name, integer=True, positive=True) for name in ("s1", "s2"))


@pytest.mark.parametrize(
    ("expression", "sizes"),
    [
        (FloorToInt(0.7 * ToFloat(S)), (90, 170, 180, 330)),
        (TruncToInt(0.7 * ToFloat(S)) + 1, (90, 170, 180, 330)),
        (CeilToInt(FloatTrueDiv(ToFloat(S), 0.7)), (21, 42, 84, 161)),
        (CeilToInt(IntTrueDiv(S, 10)), ()),
        (FloorToInt(0.7 * ToFloat(FloorDiv(S, 2))), (180, 181, 340, 341)),
        (FloorDiv(S, 3), ()),
        (FloorToInt(0.7 * ToFloat(OTHER)), ()),
        (FloorToInt(sympy.log(S)), ()),
    ],
)
def test_sizes_at_which_a_rounding_tips(expression: Any, sizes: tuple[int, ...]) -> None:
    assert rounding_sizes(expression, S) == sizes


def test_sizes_at_which_nearest_neighbours_tip() -> None:
    assert nearest_sizes(S, sympy.Integer(10), None, S, exact=False) == (35, 65, 70, 75)
    assert nearest_sizes(S, 2 * S, 2.0, S, exact=False) == ()
    assert nearest_sizes(S, sympy.log(S), None, S, exact=True) == ()


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "floor": (lambda y: y[:, : math.floor(y.size(1) * 0.7) + 1], "time 90"),
    "nearest": (lambda y: F.interpolate(y.transpose(1, 2), size=10), "time 35"),
    "factor": (lambda y: F.interpolate(y.transpose(1, 2), scale_factor=0.7), "time 90"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_trial_refuses_what_is_wrong_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function, where = FUNCTIONS[name]
    for table in ("SCALARS", "RANGES", "INTERPOLATIONS"):
        monkeypatch.setattr(trace, table, {})  # torch's own translations
    with pytest.raises(ExportError, match=f"{where}, so it was not kept"):
        made(Sized(function), signal(2, 9), X, tmp_path)


def test_the_file_says_where_to_try_it(tmp_path: Path) -> None:
    result = made(Sized(FUNCTIONS["floor"][0]), signal(2, 9), X, tmp_path)
    assert result.model.metadata is not None
    assert set(result.model.metadata.size_boundaries["time"]) >= {90, 170, 180, 330}

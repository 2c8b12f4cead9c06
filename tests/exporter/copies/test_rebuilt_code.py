"""Functions of the same code with other variables, and what is in their code."""

from __future__ import annotations

import dis
from types import SimpleNamespace
from typing import Any

import pytest

from lstm_onnx.exporter.copies.rebuilt_code import constants


def compared(size: int, x: Any) -> Any:
    return x[:, 61:] if size in (41, 300) or size in {71, 72} else x[:51]


NUMBERS = {41, 51, 61, 71, 72, 300}


def test_constants_are_found_within_others() -> None:
    assert {item for item in constants(compared.__code__) if item is not None} == NUMBERS


def test_slices_are_constants_and_small_integers_none_in_later_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    held = (None, (slice(None), slice(61, None)), slice(None, 51), (41, 300))
    sets = [
        SimpleNamespace(opname="LOAD_CONST", arg=1),
        *(SimpleNamespace(opname="LOAD_SMALL_INT", arg=n) for n in (71, 72)),
    ]
    monkeypatch.setattr(dis, "get_instructions", lambda _: sets)
    code = compared.__code__.replace(co_consts=held)
    assert {item for item in constants(code) if item is not None} == NUMBERS

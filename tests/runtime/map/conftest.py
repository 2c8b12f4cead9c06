"""Fixtures of this folder's tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lstm_onnx.runtime import Model, load
from lstm_onnx.spec import ExportOptions

from ..models import exported
from .support import SIZES


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("maps")
    opened = {}
    for name, sizes in SIZES.items():
        for lengths in (False, True):
            path = folder / f"{name}-{lengths}.onnx"
            exported(path, options=ExportOptions(lengths=lengths), **sizes)
            opened[f"{name}{'_lengths' * lengths}"] = load(path, "cpu", 1)
    return opened


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("lstm-onnx map")] == []

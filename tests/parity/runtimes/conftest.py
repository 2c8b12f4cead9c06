"""A small LSTM, and engines of `adapters` in the place of real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from lstm_onnx.parity import runtimes
from lstm_onnx.parity.runtimes.process import EngineProcess
from tests.runtime.models import exported


def starter(kind: str) -> Callable[[int | None], object]:
    return partial(runtimes._python, f"{__package__}.adapters:{kind}")


@contextmanager
def engine(kind: str, *, fixes_sizes: bool = False) -> Iterator[EngineProcess]:
    """One of `adapters`, running."""
    with EngineProcess(kind, lambda: starter(kind)(1), "install it", fixes_sizes=fixes_sizes) as process:
        yield process


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts one of `adapters` in the place of tract."""

    def put(kind: str, **options: bool) -> None:
        monkeypatch.setitem(runtimes._ENGINES, "tract", runtimes._Engine(kind, starter(kind), "install it", **options))

    return put


@pytest.fixture(scope="module")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "m.onnx"
    exported(path, num_layers=2)
    return path

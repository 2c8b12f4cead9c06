"""A file with its golden file, and what many tests of verifications leave out."""

from __future__ import annotations

from pathlib import Path

import pytest

import lstm_onnx

from .golden_cases import small_lstm, stored_golden


@pytest.fixture
def without_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules are not compared at every size, which takes most of the time, for tests of what other cases show."""
    monkeypatch.setattr("lstm_onnx.parity.modules.verification.sweeps", lambda *_: [])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An .onnx file and its golden file, which nobody may change."""
    folder = tmp_path_factory.mktemp("golden")
    module = small_lstm()
    lstm_onnx.export(module, folder / "m.onnx")
    stored_golden(module, folder / "m.onnx", folder / "m.npz")
    return folder / "m.onnx", folder / "m.npz"

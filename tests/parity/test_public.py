"""`lstm_onnx.verify` and `lstm_onnx.verify_golden` with arguments that they cannot take."""

from __future__ import annotations

from pathlib import Path

import pytest

import lstm_onnx
from lstm_onnx import ConfigError, FileError

from .files import lstm, verified


def test_a_model_that_was_closed_is_refused(tmp_path: Path) -> None:
    """Each case failed, and so a right file was NOT in parity."""
    path = tmp_path / "m.onnx"
    lstm_onnx.export(lstm(), path)
    model = lstm_onnx.load(path, provider="cpu")
    model.close()
    with pytest.raises(ConfigError, match="is closed; load it again"):
        verified(lstm(), model)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is closed; load it again"):
        lstm_onnx.verify_golden(model, tmp_path / "golden.npz")


def test_the_model_comes_first_and_then_the_file(tmp_path: Path) -> None:
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    with pytest.raises(ConfigError, match="the PyTorch model comes first, and then the file; exchange the two"):
        lstm_onnx.verify(str(path), module)  # type: ignore[arg-type]
    with pytest.raises(FileError, match=r"a path must be a str or an os\.PathLike, not dict"):
        lstm_onnx.verify(module, {})  # type: ignore[arg-type]

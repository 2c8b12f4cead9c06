"""A file that is replaced while it is verified has no verdict."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import lstm_onnx
from lstm_onnx.errors import ModelError
from lstm_onnx.parity import replay
from lstm_onnx.parity.lstm.verification import LSTMVerification
from lstm_onnx.runtime.unchanged import unchanged

from .files import lstm, verified

WHILE = "was changed while it was verified; try again"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Callable[[], None]]:
    """A file, and what replaces it by another one as an export does."""
    path, other = tmp_path / "m.onnx", tmp_path / "other.onnx"
    lstm_onnx.export(lstm(), path)
    shutil.copy(path, other)
    return path, lambda: os.replace(shutil.copy(other, tmp_path / "copy.onnx"), path)


def test_a_file_that_is_replaced_has_no_verdict(
    files: tuple[Path, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = files
    golden = path.with_name("g.npz")
    assert verified(lstm(), path, golden=golden)
    judged = LSTMVerification.__init__

    def replaced(*args: object, **options: object) -> None:
        judged(*args, **options)  # type: ignore[arg-type]
        replace()

    monkeypatch.setattr(LSTMVerification, "__init__", replaced)
    with pytest.raises(ModelError, match=WHILE):
        verified(lstm(), path)
    monkeypatch.setattr(lstm_onnx.parity.golden, "replay", lambda *args: (replace(), replay.replay(*args))[1])
    with pytest.raises(ModelError, match=WHILE):
        lstm_onnx.verify_golden(path, golden, provider="cpu", threads=1)


def test_a_model_that_is_open_is_the_file_that_it_was_made_of(files: tuple[Path, Callable[[], None]]) -> None:
    path, replace = files
    with lstm_onnx.load(path, "cpu") as model:
        assert lstm_onnx.verify(lstm(), model, mutants="none")
        replace()
        with pytest.raises(ModelError, match=r"m\.onnx: was changed after it was loaded; load it again"):
            lstm_onnx.verify(lstm(), model, mutants="none")


def test_a_link_may_not_lead_elsewhere_and_other_errors_stay(files: tuple[Path, Callable[[], None]]) -> None:
    path, _ = files
    link = path.with_name("link.onnx")
    link.symlink_to(path)

    def fail(*, relinked: bool) -> None:
        with unchanged(link, "verified"):
            if relinked:
                link.unlink()
                link.symlink_to(path.with_name("other.onnx"))
            raise ValueError("what came of it")

    with pytest.raises(ValueError, match="what came of it"):
        fail(relinked=False)
    with pytest.raises(ModelError, match=WHILE):
        fail(relinked=True)

"""Tokens of a file that changes while the server runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lstm_onnx.serving import tokens
from lstm_onnx.serving.logs import Log
from lstm_onnx.serving.tokens import Tokens

OLD, NEW = "Bearer old-token-0123456789", "Bearer new-token-0123456789"


def test_a_file_that_cannot_be_read_again_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who takes a token away by a file that is not possible must not believe that it is gone."""
    monkeypatch.setattr(tokens, "_SECONDS", 0)
    file = tmp_path / "tokens"
    file.write_text("old-token-0123456789\n", encoding="utf-8")
    known = Tokens(str(file), Log())
    assert known.accepts(OLD)
    assert capsys.readouterr().err == ""
    for change, said in ((lambda: file.write_text("short"), "shorter than 16"), (file.unlink, "No such file")):
        change()
        assert [known.accepts(OLD), known.accepts(OLD)] == [True, True]
        (line,) = capsys.readouterr().err.splitlines()
        assert " warning " in line
        assert said in line
        assert "the tokens that were read before stay valid" in line
    file.write_text("new-token-0123456789\n", encoding="utf-8")
    assert [known.accepts(OLD), known.accepts(NEW)] == [False, True]
    assert " tokens count=1" in capsys.readouterr().err

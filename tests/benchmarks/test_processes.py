"""Child processes: their output and errors, and that compiled modules are found again."""

from __future__ import annotations

import pytest

from lstm_onnx.errors import RunError

from .processes import child

_IMPORTS = "import sys, colorsys; print(sys.dont_write_bytecode, colorsys.__cached__)"


def test_an_error_has_the_last_line_of_stderr():
    assert child(["-c", "print(6 * 7)"]) == "42\n"
    with pytest.raises(RunError, match="benchmark started failed: ZeroDivisionError: division by zero"):
        child(["-c", "1 / 0"])


def test_compiled_modules_are_kept_whatever_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    kept, cached = child(["-c", _IMPORTS], tmp_path).split()
    assert kept == "False"
    assert cached.startswith(str(tmp_path))
    (compiled,) = tmp_path.rglob("colorsys.*.pyc")
    before = compiled.stat().st_mtime_ns
    child(["-c", _IMPORTS], tmp_path)
    assert compiled.stat().st_mtime_ns == before

"""Processes of the bench's own: what they print, and that their compiled modules are found again."""

from __future__ import annotations

import pytest

from lstm_onnx.bench.processes import child
from lstm_onnx.errors import RunError

_IMPORTS = "import sys, colorsys; print(sys.dont_write_bytecode, colorsys.__cached__)"


def test_a_failure_is_told_in_its_last_words():
    assert child(["-c", "print(6 * 7)"]) == "42\n"
    with pytest.raises(RunError, match="a process that bench started failed: ZeroDivisionError: division by zero"):
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

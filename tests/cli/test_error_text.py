"""What is printed for errors that are neither a bug nor a user's."""

from __future__ import annotations

import click
import pytest

from lstm_onnx.cli.group import cli


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (MemoryError(), 2, "out of memory; use a smaller batch"),
        (ImportError("a.so: cannot allocate memory"), 2, "out of memory while loading a library: a.so"),
        (RuntimeError("can't start new thread"), 2, "the system starts no more threads; raise its limit on processes"),
        (ImportError("a.so: no such file"), 70, "a bug in lstm-onnx: ImportError: a.so"),
        (RuntimeError("other"), 70, "a bug in lstm-onnx: RuntimeError: other"),
        (click.Abort(), 130, "interrupted"),
    ],
)
def test_what_the_system_lacks_is_no_bug(run_cli, monkeypatch, raised, code, said):
    @click.command()
    def ends():
        raise raised

    monkeypatch.setitem(cli.commands, "ends", ends)
    done = run_cli("ends")
    assert (done.code, len(done.err.splitlines())) == (code, 1)
    assert done.err.startswith(f"lstm-onnx: {said}")

"""What is printed is safe to look at, and nothing that happens to it is an error of the command."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from lstm_onnx.cli import cli, streams
from lstm_onnx.cli.options import note, report, say_json, write_then_show
from lstm_onnx.cli.streams import SafeStream, data_stdout, say, standard_streams, terminal
from lstm_onnx.errors import FileError

from ..hostile_names import NAMES, unsafe
from .conftest import Done

Run = Callable[..., Done]


class _Failing(io.StringIO):
    """A stream that takes some characters and then no more."""

    def __init__(self, error: Exception, takes: int = 0) -> None:
        super().__init__()
        self.error, self.takes = error, takes

    def write(self, text: str) -> int:
        if self.tell() + len(text) > self.takes:
            raise self.error
        return super().write(text)


FULL = OSError(errno.ENOSPC, "No space left on device")
GONE = BrokenPipeError(errno.EPIPE, "Broken pipe")
INCOMPLETE = "lstm-onnx: stdout: cannot be written: No space left on device; the printed result is incomplete\n"


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_what_is_printed_is_safe(name: str) -> None:
    under = io.StringIO()
    stream = SafeStream(under, 1)
    for text in (name, "\n", f"before {name} after\n", name, name, "\n", f"  {name}\n"):
        assert stream.write(text) == len(text)
    assert unsafe(under.getvalue()) == []


def test_a_command_in_two_pieces_is_none() -> None:
    under = io.StringIO()
    stream = SafeStream(under, 1)
    for text in ("x\n", "  ", "::error::x", "\n", "y ", "::z"):
        stream.write(text)
    assert under.getvalue() == "x\n  \\x3a:error::x\ny ::z"


def test_what_draws_on_a_terminal_is_left_alone() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    under = Terminal()
    stream = SafeStream(under, 1)
    assert terminal(stream).write("\r\x1b[1m") == 5  # type: ignore[arg-type]
    stream.write("\r\x1b[1m")
    assert under.getvalue() == "\r\x1b[1m\\r\\x1b[1m"
    plain = SafeStream(io.StringIO(), 1)
    assert terminal(plain) is plain  # type: ignore[arg-type,comparison-overlap]


def test_bytes_are_no_text() -> None:
    for stream in (SafeStream(io.StringIO(), 1), terminal(SafeStream(io.StringIO(), 1))):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="must be str"):
            stream.write(b"x")  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [FULL, GONE, ValueError("I/O operation on closed file")])
def test_a_stream_that_fails_raises_nothing(error: Exception) -> None:
    under = _Failing(error, takes=2)
    stream = SafeStream(under, 1)
    for text in ("ab", "cd", "e"):
        stream.write(text)
    stream.flush()
    assert (under.getvalue(), stream.lost, stream.reader_left) == ("ab", error, error is GONE)
    assert stream.isatty() is False
    stream.buffer.write(b"more")  # as click does for a shell's completion


@pytest.mark.parametrize(
    "kept", [lambda out: out, lambda out: out.buffer, lambda out: out.raw], ids=["text", "buffer", "raw"]
)
def test_a_stream_that_is_forgotten_writes_nothing(kept: Callable[[SafeStream], object]) -> None:
    class Flushed(io.StringIO):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    under = Flushed()
    forgotten = kept(SafeStream(under, 1))
    del forgotten
    assert under.flushes == 0


@pytest.mark.parametrize(
    ("error", "code", "ended", "said"),
    [(FULL, 0, 2, INCOMPLETE), (FULL, 1, 1, INCOMPLETE), (GONE, 0, 0, ""), (GONE, 1, 1, "")],
)
def test_only_a_reader_who_is_there_is_told(
    error: Exception, code: int, ended: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = io.StringIO()
    monkeypatch.setattr(sys, "stdout", _Failing(error))
    monkeypatch.setattr(sys, "stderr", told)
    with standard_streams() as found:
        say("a result")
        assert found.finish(code, as_json=False) == ended
    assert told.getvalue() == said


def test_what_a_file_system_tells_late_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One on a network says that a quota is used up when a descriptor of the file is closed."""

    def over_quota(_: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    told = io.StringIO()
    with tempfile.TemporaryFile("w", encoding="utf-8") as out, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", told)
        with standard_streams() as found:
            say("a result")
            patched.setattr(streams, "os", SimpleNamespace(dup=os.dup, close=over_quota))
            assert found.finish(0, as_json=True) == 2
    assert json.loads(told.getvalue())["error"]["message"].startswith("stdout: cannot be written: Disk quota exceeded")


def test_streams_that_are_not_there(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with standard_streams() as found:
        assert found.closed
        assert streams.stdout_is_closed()
        say("a result")
        assert (found.finish(1, as_json=True), found.finish(0, as_json=False)) == (1, 0)
        assert found.finish(0, as_json=True) == 2
    assert sys.stdout is None
    assert capfd.readouterr().out == "a result\n"  # where descriptor 1 leads


def test_a_stream_that_cannot_encode_it(monkeypatch: pytest.MonkeyPatch) -> None:
    under = io.TextIOWrapper(io.BytesIO(), "latin-1")
    monkeypatch.setattr(sys, "stdout", under)
    with standard_streams() as found:
        say("\u221e \ud800 ü")
        assert found.finish(0, as_json=False) == 0
    assert under.detach().getvalue() == b"\\u221e \\ud800 \xfc\n"  # type: ignore[attr-defined]


def test_a_remark_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with standard_streams():
        note("wrote a\n::error::x.npz")
        say_json({"##[error]": "\ud800"})
    done = capsys.readouterr()
    assert done.err == "wrote a ::error::x.npz\n"
    assert json.loads(done.out) == {"schema": 1, "##[error]": "\ud800"}
    assert unsafe(done.out) == []


def test_files_come_before_what_is_printed() -> None:
    done: list[str] = []

    def fails() -> None:
        raise FileError("a: cannot be written")

    write_then_show([lambda: done.append("file")], lambda: done.append("shown"))
    with pytest.raises(FileError, match="a: cannot be written"):
        write_then_show([fails, lambda: done.append("other"), fails], lambda: done.append("shown"))
    assert done == ["file", "shown", "other", "shown"]


@pytest.mark.parametrize("stops", [True, False])
def test_arrays_for_a_reader_who_left(stops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8", closefd=False) as out:
        monkeypatch.setattr(sys, "stdout", out)
        with standard_streams() as found:
            stream = data_stdout(stops=stops)
            if stops:
                with pytest.raises(BrokenPipeError):
                    stream.write(b"x" * 100_000)
            else:
                assert stream.write(b"x" * 100_000) == 100_000
                stream.flush()
            assert streams.reader_left()
            assert found.finish(0, as_json=False) == 0
        nowhere = os.open(os.devnull, os.O_WRONLY)  # what it still holds
        os.dup2(nowhere, writing)
        os.close(nowhere)
    os.close(writing)


def test_arrays_on_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:  # type: ignore[override]
            raise FULL

        def seekable(self) -> bool:
            return False

    class Out(io.StringIO):
        buffer = Full()

    monkeypatch.setattr(sys, "stdout", Out())
    with standard_streams(), pytest.raises(OSError, match="No space left"):
        data_stdout(stops=False).write(b"x")


def test_what_a_module_prints_is_no_result(run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "talking_lstm.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.lstm = torch.nn.LSTM(3, 2)\n"
        "    def forward(self, x):\n        print('\\n::error::forward\\x1b[2J')\n        return self.lstm(x)[0]\n"
        "def make():\n    torch.manual_seed(0)\n    return Net(), (torch.zeros(4, 2, 3),)\n",
        encoding="utf-8",
    )
    exported = run_cli("export", "talking_lstm:make", "-o", "m.onnx", "--json")
    done = run_cli("verify", "talking_lstm:make", "m.onnx", "--mutants", "none", "--provider", "cpu", "--json")
    monkeypatch.delitem(sys.modules, "talking_lstm")
    assert json.loads(exported.out)["path"] == "m.onnx"
    assert json.loads(done.out)["passed"] is True
    assert r"\x3a:error::forward\x1b[2J" in done.err
    assert unsafe(exported.err + done.err) == []


def test_code_that_ends_the_program_does_not_end_it_well(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def leaves() -> None:
        sys.exit(0)

    monkeypatch.setitem(cli.commands, "leaves", leaves)
    done = run_cli("leaves")
    assert done.code == 2
    assert "the model's code ended the program (SystemExit: 0)" in done.err


def test_a_report_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    class Result:
        def to_dict(self) -> dict[str, str]:
            return {"name": "a\nb"}

        def __str__(self) -> str:
            return "one\ntwo"

    with standard_streams():
        report(Result(), as_json=False)
        report(Result(), as_json=True)
    assert capsys.readouterr().out == 'one\ntwo\n{\n  "schema": 1,\n  "name": "a\\nb"\n}\n'

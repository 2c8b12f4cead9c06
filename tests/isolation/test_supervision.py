"""A command in a child process: its output is ours, its exit code too, and its death is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lstm_onnx.isolation.limits import Limits
from lstm_onnx.isolation.process import EndedError
from lstm_onnx.isolation.supervision import supervised

from . import work

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a child that inherits a pipe, as on POSIX")
COMMAND = f"{work.__name__}:command"
SHORT = Limits(stage=0.5, total=0.5)


def run(*arguments: str, limits: Limits | None = None) -> int:
    return supervised(COMMAND, {"arguments": list(arguments)}, limits or Limits())


@pytest.mark.parametrize("code", [0, 1, 2, 70, 130])
def test_its_exit_code_and_its_output_are_passed_on(code: int, capsys: pytest.CaptureFixture[str]):
    assert run("exit", str(code)) == code
    assert capsys.readouterr() == ("out of exit\n", "err of exit\n")


def test_where_nothing_stands_between_it_writes_and_reads_itself():
    script = f"""
import sys
sys.path[:] = {sys.path!r}
from lstm_onnx.isolation.limits import Limits
from lstm_onnx.isolation.supervision import supervised
print("before")
sys.exit(supervised("{COMMAND}", {{"arguments": ["read"]}}, Limits()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], input="text\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "before\nout of read\nTEXT\n", "err of read\n")


def test_a_death_is_told_and_leaves_nothing_half_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    target = tmp_path / "y.npz"
    target.write_bytes(b"before")
    with pytest.raises(EndedError, match=r"^ended the process \(SIGABRT\) in writing: Assertion 'a < b' failed\.$"):
        run("abort", str(target))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"y.npz": b"before"}
    assert capsys.readouterr() == ("out of abort\n", "err of abort\n")  # and not what the library said


def test_what_takes_too_long_is_ended_and_leaves_nothing(tmp_path: Path):
    began = time.monotonic()
    with pytest.raises(EndedError, match=r"^took longer than 0\.5 s in writing$"):
        run("sleep", str(tmp_path / "y.npz"), limits=SHORT)
    assert time.monotonic() - began < 50  # and not 60, which it sleeps
    assert not list(tmp_path.iterdir())


def test_limits_end_where_the_child_says_so():
    assert run("slowly", "2.5", limits=Limits(stage=2.0, total=2.0, memory=2**27)) == 0


INTERRUPTED = f"""
import signal, sys
sys.path[:] = {sys.path!r}
from lstm_onnx.isolation.limits import Limits
from lstm_onnx.isolation.supervision import supervised
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    supervised("{COMMAND}", {{"arguments": ["sleep", sys.argv[1]]}}, Limits())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_parent_leaves_neither_child_nor_file(number: signal.Signals, code: int, tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, tmp_path / "y.npz"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "writing\n":
            pass
        assert len(list(tmp_path.iterdir())) == 1
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(50) == code
        assert time.monotonic() - began < 40  # and not 60, which the child sleeps
        assert process.stdout.read() == ""  # which ends once nobody holds it
    assert not list(tmp_path.iterdir())

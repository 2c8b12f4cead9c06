"""A child process is asked, watched and ended; whatever becomes of it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lstm_onnx.errors import InputError, LSTMOnnxError
from lstm_onnx.isolation.limits import Limits
from lstm_onnx.isolation.process import Child, EndedError

from . import work

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's RLIMIT_DATA and PR_SET_PDEATHSIG")
WORK = work.__name__
SHORT = Limits(stage=0.5, total=1.5)


@pytest.fixture
def child() -> Iterator[Child]:
    with Child() as made:
        yield made


def alive(pid: int) -> bool:
    """Whether a process runs, and is not merely waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def soon(pid: int, seconds: float = 30.0) -> bool:
    """Whether it has ended within that time."""
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_a_function_gives_its_result_in_another_process(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    value = {"a": [1, 2.5, None], "name": "\udc80é\x1b"}
    assert child.call(f"{WORK}:echo", {"value": value}) == value
    pid = child.call(f"{WORK}:pid", {})
    assert pid != os.getpid()
    monkeypatch.chdir(tmp_path)
    assert Path(child.call(f"{WORK}:folder", {})) == tmp_path.resolve()
    assert child.call(f"{WORK}:pid", {}) == pid  # one process for all of them


def test_it_imports_what_its_function_needs_and_nothing_else(child: Child):
    found = set(child.call(f"{WORK}:modules", {}))
    assert WORK in found
    assert not found & {"numpy", "onnx", "onnxruntime", "click", "torch"}


def test_errors_of_ours_are_raised_here_and_others_are_bugs(child: Child):
    with pytest.raises(InputError, match=r"^x: does not fit; cut it$"):
        child.call(f"{WORK}:refuse", {})
    pid = child.call(f"{WORK}:pid", {})
    with pytest.raises(RuntimeError, match="KeyError: 'gone'") as raised:
        child.call(f"{WORK}:bug", {})
    assert "in bug" in raised.value.__notes__[0]
    assert child.call(f"{WORK}:pid", {}) == pid


def test_what_it_logs_is_logged_here(child: Child, caplog: pytest.LogCaptureFixture):
    child.call(f"{WORK}:warn", {})
    assert [(item.name, item.levelname, item.getMessage()) for item in caplog.records] == [
        ("lstm_onnx", "WARNING", "it is late")
    ]


@posix
def test_a_death_says_how_and_where_and_what_was_found_by_then(child: Child):
    with pytest.raises(EndedError) as ended:
        child.call(f"{WORK}:abort", {})
    assert str(ended.value) == "ended the process (SIGABRT) in another stage: Assertion 'a < b' failed."
    assert (ended.value.how, ended.value.stage) == ("ended the process (SIGABRT)", "another stage")
    assert ended.value.shared == [["a part"]]
    with pytest.raises(EndedError, match=r"^ended the process \(SIGSEGV\) in reading nothing$"):
        child.call(f"{WORK}:segmentation_fault", {})
    with pytest.raises(EndedError, match=r"^ended the process \(exit code 3\) in starting$"):
        child.call(f"{WORK}:leave", {})
    assert child.call(f"{WORK}:echo", {"value": 1}) == 1  # in a new process


@linux
def test_what_it_says_need_not_be_understood(child: Child):
    with pytest.raises(EndedError, match=r"^ended the process \(exit code 3\) in talking$"):
        child.call(f"{WORK}:stammer", {})
    with pytest.raises(EndedError, match=r"^gave an answer that cannot be read in talking$"):
        child.call(f"{WORK}:rave", {})
    began = time.monotonic()
    with pytest.raises(EndedError, match=r"^ended the process \(SIGKILL.*\) in falling silent$"):
        child.call(f"{WORK}:fall_silent", {})
    assert time.monotonic() - began < 50  # and not 60, which it sleeps


@pytest.mark.parametrize("what", ["sleep", "hold"])
def test_a_stage_that_takes_too_long_is_ended(child: Child, what: str):
    pid = child.call(f"{WORK}:pid", {})
    began = time.monotonic()
    with pytest.raises(EndedError, match=r"^took longer than 0\.5 s in (sleeping|holding)$"):
        child.call(f"{WORK}:{what}", {}, SHORT)
    assert 0.5 <= time.monotonic() - began < 40  # and not 60, which it sleeps
    assert not alive(pid)


def test_many_short_stages_have_a_limit_together(child: Child):
    child.call(f"{WORK}:pid", {})
    with pytest.raises(EndedError, match=r"^took longer than 1\.5 s in nap \d+$"):
        child.call(f"{WORK}:sleep_often", {}, SHORT)
    assert child.call(f"{WORK}:sleep", {"seconds": 0.1}, SHORT) == "awake"


@linux
def test_memory_has_a_limit(child: Child):
    small, large = Limits(memory=2**28), Limits(memory=2**30)
    with pytest.raises(EndedError, match=r"^ran out of the 0\.25 GiB of memory that it may take in growing$"):
        child.call(f"{WORK}:grow", {}, small)
    assert child.call(f"{WORK}:grow", {}, large) == 2**29
    assert child.call(f"{WORK}:grow_in_c", {}, small) is False
    assert child.call(f"{WORK}:grow_in_c", {}, large) is True


def test_a_large_file_has_larger_limits(tmp_path: Path):
    small, large = tmp_path / "small.onnx", tmp_path / "large.onnx"
    small.write_bytes(b"weights.bin")
    large.write_bytes(bytes(2**22))
    assert Limits.of(small).stage == pytest.approx(Limits.of(tmp_path / "none.onnx").stage)
    assert Limits.of(large).stage > Limits.of(small).stage
    assert Limits.of(large).total == pytest.approx(3 * Limits.of(large).stage)
    with open(tmp_path / "weights.bin", "wb") as stream:
        stream.truncate(2**30)
    with open(tmp_path / "others.bin", "wb") as stream:
        stream.truncate(2**34)
    assert Limits.of(small).memory == Limits.of(tmp_path / "none.onnx").memory + 8 * (2**30 + 11)
    assert Limits.of(small, 3.0) == Limits(3.0, 3.0, Limits.of(small).memory)


def test_a_python_that_does_not_know_itself_cannot_start_one(child: Child, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(LSTMOnnxError, match="does not know its own program"):
        child.call(f"{WORK}:pid", {})
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(LSTMOnnxError, match="cannot be started: No such file"):
        child.call(f"{WORK}:pid", {})


def test_a_frozen_program_does_not_start_itself(child: Child, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(LSTMOnnxError, match="this program is frozen into one file"):
        child.call(f"{WORK}:pid", {})


def test_the_current_folder_is_not_searched_for_modules(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Who checks the files of a folder does not run what lies in it."""
    for name in ("json", "queue", "numpy", "onnx"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this was run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    assert child.call(f"{WORK}:echo", {"value": 1}) == 1


def test_a_path_that_import_skips_is_left_out(child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [tmp_path, b"x", None, *sys.path])
    assert child.call(f"{WORK}:echo", {"value": 1}) == 1


@pytest.mark.parametrize("option", ["-I", "-E"])
def test_variables_that_this_python_ignores_are_ignored_there(option: str, tmp_path: Path):
    (tmp_path / "json.py").write_text("raise SystemExit('this was run')")
    found = subprocess.run(
        [sys.executable, option, "-c", ASKING, "pid"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (found.returncode, found.stderr) == (0, "")


ASKING = f"""
import sys
sys.path[:] = {sys.path!r}
from lstm_onnx.isolation.process import Child
with Child() as child:
    print(child.call("{WORK}:pid", {{}}), flush=True)
    child.call("{WORK}:" + sys.argv[1], {{}})
"""


@linux
@pytest.mark.parametrize("what", ["sleep", "hold"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_parent(what: str, number: signal.Signals):
    with subprocess.Popen(
        [sys.executable, "-c", ASKING, what], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        assert alive(pid)
        parent.send_signal(signal.SIGTERM if number == signal.SIGINT and _ignored(parent.pid) else number)
        parent.wait(50)
    assert soon(pid)


def _ignored(pid: int) -> bool:
    """Whether it was started with Ctrl-C ignored, as a shell does for what it runs beside."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16)
    return bool(mask >> (signal.SIGINT - 1) & 1)

"""Files from elsewhere end or hang no command: they are findings of check, and errors of the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lstm_onnx.checksum import is_intact
from lstm_onnx.cli import run as command
from tests.hostile_files import ENDING, FLOAT, ends_for_large_numbers, hanging, one_node, written
from tests.runtime.models import exported

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX exit statuses")
LONG = 120
ON_CPU = ("--provider", "cpu", "--threads", "1")
RUN = ["RandomUniform, low above high", "Max with an input of no name", "GatherND of negative batch_dims",
       "OneHot of an empty depth", "Split that miscounts, in a body"]  # fmt: skip


def cli(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which would end with the file."""
    return subprocess.run(
        [sys.executable, "-m", "tests.cli.program", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
    )


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", RUN)
def test_run_ends_with_one_line(name: str, tmp_path: Path):
    written(tmp_path, ENDING[name]())
    done = cli("run", "m.onnx", *ON_CPU, folder=tmp_path)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("lstm-onnx: m.onnx: the child process that ran it ended the process (SIG")
    assert done.stderr.count("\n") == 1


def test_inspect_and_check_end_with_what_they_found(tmp_path: Path):
    for name in RUN[:2]:
        written(tmp_path, ENDING[name]())
        done = cli("inspect", "m.onnx", "--json", folder=tmp_path)
        assert done.returncode == 0, done
        assert json.loads(done.stdout)["other_ops"] == {name.split()[0].rstrip(","): 1}
        done = cli("check", "m.onnx", "--provider", "cpu", "--json", folder=tmp_path)
        assert (done.returncode, done.stderr) == (1, "")
        found = json.loads(done.stdout)["files"][0]["findings"]
        assert [item["id"] for item in found if item["rule"] == "crashing-node" and not item["passed"]] == ["LO112"]


def test_check_has_a_time_limit_and_goes_on_with_the_next_file(run_cli, tmp_path: Path):
    written(tmp_path, hanging()).rename(tmp_path / "hangs.onnx")
    exported(tmp_path / "good.onnx")
    done = run_cli("check", "hangs.onnx", "good.onnx", "--provider", "cpu", "--time-limit", "3")
    assert done.code == 1
    assert "LO112 crashing-node  opening the file took longer than 3 s in shape inference" in done.out
    assert "good.onnx: passed on cpu" in done.out


@pytest.mark.sweep(3)
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up as Linux has them")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_interrupted_check_ends_at_once_and_leaves_no_process(number: signal.Signals, code: int, tmp_path: Path):
    """Shape inference of this file lets nobody else run Python."""
    written(tmp_path, hanging())
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cli.program", "check", "m.onnx", "--provider", "cpu", "--time-limit", "80"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
    ) as process:
        end = time.monotonic() + LONG
        while not (children := _computing(process.pid)) and time.monotonic() < end:
            time.sleep(0.1)
        assert children
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(LONG) == code
        assert time.monotonic() - began < 40  # and not 80, the time limit
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/stat").exists() for pid in children) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [pid for pid in children if Path(f"/proc/{pid}/stat").exists()]


def _computing(parent: int) -> list[int]:
    """Its children that have computed for a while."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and int(fields[11]) > 1.5 * os.sysconf("SC_CLK_TCK"):
            found.append(int(place.parent.name))
    return found


# --- run in a child, and in this process ---


@pytest.fixture
def stranger(tmp_path: Path) -> str:
    """A good file that another tool wrote."""
    return written(tmp_path, one_node("Relu", ["x"], given={"x": (FLOAT, ["n", 2])})).name


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were run in a child process."""
    ran: list[str] = []
    inner = command.run_in_child
    monkeypatch.setattr(command, "run_in_child", lambda file: ran.append(file) or inner(file))
    return ran


def test_a_file_from_elsewhere_runs_in_a_child_and_ours_does_not(run_cli, stranger, children, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.array([[1, -2]], np.float32))
    done = run_cli("run", stranger, "x.npz", "-o", "-", "--format", "jsonl", *ON_CPU)
    assert (done.code, done.out, children) == (0, '{"y": [[1.0, 0.0]]}\n', [stranger])
    done = run_cli("run", stranger, "x.npz", "-o", "y.npz", "--no-isolate", *ON_CPU)
    assert (done.code, children) == (0, [stranger])
    assert np.load("y.npz")["y"].tolist() == [[1.0, 0.0]]
    exported(tmp_path / "ours.onnx")
    assert is_intact(tmp_path / "ours.onnx")
    assert run_cli("run", "ours.onnx", *ON_CPU).code == 0
    assert children == [stranger]
    same = run_cli("run", "ours.onnx", *ON_CPU, "--isolate")
    assert children == [stranger, "ours.onnx"]
    assert same == run_cli("run", "ours.onnx", *ON_CPU)


def test_a_file_of_ours_that_was_changed_is_one_from_elsewhere(run_cli, children, tmp_path):
    path = tmp_path / "ours.onnx"
    exported(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    run_cli("run", "ours.onnx", *ON_CPU)
    assert children == ["ours.onnx"]


def test_errors_in_the_child_are_the_commands_own(run_cli, stranger, children, tmp_path):
    done = run_cli("run", stranger, "none.npz", *ON_CPU)
    assert done.code == 2
    assert done.err.startswith("lstm-onnx: none.npz: ")
    assert done.err.count("\n") == 1
    assert children == [stranger]
    assert run_cli("run", "missing.onnx").code == 2
    assert children == [stranger]  # for which no process is started


def test_output_that_was_begun_is_taken_away_where_the_child_ends(tmp_path: Path):
    """Large numbers alone make this file end the process: at its second record, and in no trial."""
    written(tmp_path, ends_for_large_numbers())
    (tmp_path / "x.jsonl").write_text('{"x": [1.0]}\n{"x": [9.0]}\n')
    done = cli("run", "m.onnx", "x.jsonl", "-o", "y.jsonl", *ON_CPU, folder=tmp_path)
    assert done.returncode == 2
    assert "the child process that ran it ended the process (SIGABRT) in the run" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "x.jsonl"}

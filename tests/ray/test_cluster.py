"""Data sets on a Ray cluster of this machine.  Ray is large, and these run only where it is installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lstm_onnx import ray as lstm_onnx_ray
from lstm_onnx.errors import InputError, ProviderError, RunError
from lstm_onnx.ray import parts

from .conftest import DataSet, assert_rows_are, write_rows

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_PART_ROWS", 10)


def test_the_rows_of_map_in_order(data_set: DataSet, tmp_path: Path, cluster: None) -> None:
    seen: list[tuple[int, int]] = []
    result = lstm_onnx_ray.map(
        data_set.model, data_set.folder, tmp_path / "out", provider="cpu", progress=lambda *both: seen.append(both)
    )
    assert (result.rows, result.parts, result.kept) == (103, 12, 0)
    assert seen[-1] == (103, 103)
    assert len(seen) == 13
    assert_rows_are(tmp_path / "out", data_set.outputs)
    again = lstm_onnx_ray.map(data_set.model, data_set.folder, tmp_path / "out", provider="cpu")
    assert again.kept == 12


def worker_processes() -> list[int]:
    """Of parts that are running."""
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "ray::run_part" in line]


def test_killed_workers_lose_and_duplicate_nothing(
    data_set: DataSet, tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.002) and len(killed) < 3:
            for pid in worker_processes():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                time.sleep(0.5)
                break

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for name in (f"out{number}" for number in range(5)):
            lstm_onnx_ray.map(data_set.model, data_set.folder, tmp_path / name, provider="cpu")
            assert_rows_are(tmp_path / name, data_set.outputs)
            if len(killed) >= 2:
                break
    finally:
        ended.set()
        killer.join()
    assert killed


def test_errors_arrive_as_they_are(data_set: DataSet, tmp_path: Path, cluster: None) -> None:
    import numpy as np

    rows = [np.zeros((2, 4), np.float32)] * 25
    rows[17] = np.zeros((2, 3), np.float32)
    write_rows(tmp_path / "x.parquet", rows)
    with pytest.raises(InputError, match=r"x\.parquet: row 18"):
        lstm_onnx_ray.map(data_set.model, tmp_path / "x.parquet", tmp_path / "out", provider="cpu")
    with pytest.raises(RunError, match=r"too small: a worker needs 3 CPUs on one machine, .* have 2 CPUs .* after 1 s"):
        lstm_onnx_ray.map(data_set.model, data_set.folder, tmp_path / "out2", provider="cpu", threads=3, wait=1)
    with pytest.raises((RunError, ProviderError), match="too small: a worker needs 1 CPU and 1 GPU"):
        lstm_onnx_ray.map(data_set.model, data_set.folder, tmp_path / "out3", provider="cuda", wait=1)


def test_a_cluster_without_cpus_is_an_error_and_no_hang(data_set: DataSet, tmp_path: Path) -> None:
    """By the command, which starts a cluster of its own and ends it."""
    script = """
import os, sys
os.sched_getaffinity = lambda pid: set()
from lstm_onnx.cli import main
sys.exit(main())
"""
    command = [sys.executable, "-c", script, "run", data_set.model, data_set.folder, "-o", tmp_path / "out"]
    done = subprocess.run(
        [*command, "--engine", "ray", "--provider", "cpu"], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "the Ray cluster is too small: a worker needs 1 CPU on one machine" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command(data_set: DataSet, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lstm_onnx", "run", data_set.model, data_set.folder, "-o", tmp_path / "out"]
    done = subprocess.run(
        [*command, "--engine", "ray", "--provider", "cpu"], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == f"wrote {tmp_path / 'out'}: 103 rows in 3 files\n"
    assert_rows_are(tmp_path / "out", data_set.outputs)


def test_the_command_ended_by_a_signal_leaves_nothing(data_set: DataSet, tmp_path: Path) -> None:
    """Once Ray has started and parts run; the same command then goes on."""
    rows = [data_set.outputs[0]["output"][:1, :4].repeat(200, 0)] * 1000
    write_rows(tmp_path / "x.parquet", rows)
    command = [sys.executable, "-m", "lstm_onnx", "run", data_set.model, tmp_path / "x.parquet", "-o", tmp_path / "out"]
    command += ["--engine", "ray", "--provider", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not worker_processes() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 143, stderr
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    while worker_processes() and time.monotonic() < end:
        time.sleep(0.05)
    assert not worker_processes()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "_SUCCESS").exists()

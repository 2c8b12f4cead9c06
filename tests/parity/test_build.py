"""The circumstances of a report."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import onnx
import pytest

import lstm_onnx
from lstm_onnx.parity.build import git_commit

from ..parity_files import net, parity_files

pytestmark = pytest.mark.sweep(3)


def _git(*arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() == ""
    _git("init", "-q")
    assert git_commit() == ""  # there is none yet
    _git("commit", "-q", "--allow-empty", "-m", "first")
    assert git_commit() == _git("rev-parse", "HEAD")[:12]
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert git_commit() == ""


def test_a_report_has_its_date_and_the_digest_of_the_weights() -> None:
    folder = parity_files()
    report = lstm_onnx.verify_golden(folder / "net.onnx", folder / "net.npz", provider="cpu", threads=1)
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(report.date)
    assert dt.timedelta(0) <= age + dt.timedelta(seconds=1) < dt.timedelta(minutes=5)
    assert report.digest == lstm_onnx.load(folder / "net.onnx", provider="cpu").metadata.digest
    assert report.digest


def test_an_output_whose_axes_have_each_others_names_is_no_parity(tmp_path: Path) -> None:
    graph = onnx.load(parity_files() / "net.onnx")
    time, batch, _ = graph.graph.output[0].type.tensor_type.shape.dim
    time.dim_param, batch.dim_param = "batch", "time"
    onnx.save(graph, tmp_path / "m.onnx")
    report = lstm_onnx.verify_golden(tmp_path / "m.onnx", parity_files() / "net.npz", provider="cpu", threads=1)
    failed = [case for case in report.judged if not case.passed]
    assert [case.error for case in failed] == [
        "the file declares output as (batch, time, 3), but PyTorch's may be (1, 3, 3)"
    ]
    assert lstm_onnx.verify(net(), parity_files() / "net.onnx", provider="cpu", mutants="none")

"""The circumstances of a report."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest

import lstm_onnx
from lstm_onnx.parity.build import git_commit

from ..parity_files import parity_files


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

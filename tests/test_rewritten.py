"""The bytecode that the workers of a run share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from . import rewritten


def test_a_worker_rewrites_its_share(
    pytestconfig: pytest.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(rewritten, "ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    for number in range(5):
        (tmp_path / f"tests/test_{number}.py").write_text("def test_it():\n    assert 1\n")
    rewritten.rewrite_share(pytestconfig, 1, 2)
    made = sorted(tmp_path.rglob("*.pyc"))
    assert [path.name.partition(".")[0] for path in made] == ["test_1", "test_3"]
    before = [path.stat().st_mtime_ns for path in made]
    rewritten.rewrite_share(pytestconfig, 1, 2)
    assert [path.stat().st_mtime_ns for path in made] == before

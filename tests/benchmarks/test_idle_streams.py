"""The benchmark of idle streams gives its ratios."""

from __future__ import annotations

from pathlib import Path

from ..runtime.models import exported
from .idle_streams import compare


def test_ratios(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx")
    ratios = compare(str(tmp_path / "m.onnx"), streams=4, rounds=2)
    assert ratios.keys() == {"idle", "all"}
    assert all(ratio > 0 for ratio in ratios.values())

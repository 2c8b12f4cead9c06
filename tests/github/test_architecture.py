"""ARCHITECTURE.md names files that exist, every package, and every file that an export goes through."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import lstm_onnx
from tests.docs.blocks import ROOT

PACKAGE = ROOT / "lstm_onnx"
TEXT = (ROOT / ".github" / "ARCHITECTURE.md").read_text(encoding="utf-8")


def expanded(path: str) -> list[str]:
    """A path with braces as the paths that a shell makes of it."""
    parts = [part.strip("{}").split(",") for part in re.split(r"(\{[^}]*\})", path)]
    return ["".join(names) for names in itertools.product(*parts)]


def named() -> list[str]:
    """The files and folders below lstm_onnx/ that the paths name."""
    paths = re.findall(r"`((?!lstm_onnx/)[\w/{},]+(?:\.py|/))`", TEXT[TEXT.index("## The path of one export") :])
    return [name for path in paths for name in expanded(path)]


def test_every_named_file_exists() -> None:
    assert len(named()) > 150
    assert [name for name in named() if not (PACKAGE / name).exists()] == []


def test_every_package_and_module_is_described() -> None:
    table = TEXT[TEXT.index("| package |") : TEXT.index("## The path of one export")]
    for path in PACKAGE.iterdir():
        if path.name not in ("__init__.py", "__main__.py", "__pycache__", "py.typed"):
            assert f"lstm_onnx/{path.name}`" in table, path.name


@pytest.mark.slow
@pytest.mark.parametrize("states", ["zero", "explicit"])
def test_every_file_of_an_export_is_named(states: str, tmp_path: Path) -> None:
    import torch
    from torch import nn

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.lstm = nn.Embedding(20, 8), nn.LSTM(8, 6, batch_first=True)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.lstm(self.embedding(tokens))[0]

    called: set[str] = set()

    def record(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        importing = "<module>" in (code.co_name, frame.f_back.f_code.co_name if frame.f_back is not None else "")
        if event == "call" and not importing:
            called.add(code.co_filename)

    tokens = torch.zeros(2, 7, dtype=torch.int64)
    sys.setprofile(record)
    try:
        lstm_onnx.export(Tagger().eval(), tmp_path / "m.onnx", example_inputs=(tokens,), states=states)
    finally:
        sys.setprofile(None)
    files = {Path(name).relative_to(PACKAGE).as_posix() for name in called if name.startswith(f"{PACKAGE}/")}
    assert len(files) > 80
    assert {
        file for file in files if not {file, *(f"{folder}/" for folder in Path(file).parents)} & set(named())
    } == set()

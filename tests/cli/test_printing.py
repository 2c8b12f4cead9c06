"""A module that prints leaves stdout to the command's own result."""

from __future__ import annotations

import json
from pathlib import Path

SOURCE = """
import torch
from torch import nn


class Loud(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.lstm.register_forward_hook(lambda module, args, result: print("hook", result[0].shape))

    def forward(self, x):
        print("forward")
        return self.lstm(x)[0]


def make():
    return Loud()
"""
CONFIG = """
[module]
factory = "loud.py:make"

[inputs.x]
shape = ["batch", "time", 3]
dtype = "float32"
"""


def test_what_a_forward_prints_goes_to_stderr(run_cli, tmp_path):
    (tmp_path / "loud.py").write_text(SOURCE)
    (tmp_path / "loud.toml").write_text(CONFIG)
    done = run_cli("export", tmp_path / "loud.toml", "-o", tmp_path / "loud.onnx", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["outputs"] == ["output"]
    assert "forward" in done.err
    assert "hook torch.Size" in done.err
    assert Path(tmp_path / "loud.onnx").exists()

"""What is shared by the tests of lstm-onnx.mjs: the files, a process of Node, and how their numbers are compared."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lstm_onnx
from lstm_onnx.deploy.web import deploy_web
from lstm_onnx.metadata import packed, unpacked

from ..docs.blocks import ROOT
from ..parity_files import parity_files

NODE_MODULES = ROOT / ".ci/node_modules"
RUNTIMES = ("onnxruntime-node", "onnxruntime-web")
NEEDS_NODE = [
    pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
    pytest.mark.skipif(
        not all((NODE_MODULES / name).exists() for name in RUNTIMES),
        reason="onnxruntime-node and onnxruntime-web are not installed; .ci/run does that",
    ),
]
FILES = Path(str(resources.files(lstm_onnx) / "deploy" / "web" / "files"))
CONFIGS = sorted(path.stem for path in (ROOT / "models").glob("*.toml") if "[lstm]" in path.read_text("utf-8"))
"""Configured bare LSTMs: exported without PyTorch, in an instant."""


class Denoiser(torch.nn.Module):
    """Two steps of look-ahead, and an output without a time axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(3, 4, 5, stride=1, padding=2)
        self.lstm = torch.nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.lstm(self.conv(x.transpose(1, 2)).relu().transpose(1, 2))[0]
        return {"y": y, "last": y[:, -1]}


class Strided(torch.nn.Module):
    """Every second step, from learned states."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(3, 4, 4, stride=2)
        self.gru = torch.nn.GRU(4, 4, batch_first=True)
        self.h0 = torch.nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.gru(y, self.h0.expand(-1, x.shape[0], -1).contiguous())[0]


class Folders:
    """Files for JavaScript, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = cache(self._file)
        self.deployed = cache(self._deployed)

    def _file(self, name: str) -> Path:
        path = self.folder / f"{name}.onnx"
        if name.endswith("_int8"):
            lstm_onnx.quantize(self.file(name.removesuffix("_int8")), path)
        elif name in CONFIGS:
            from lstm_onnx.exporter.sources.source import load_source

            load_source(str(ROOT / "models" / f"{name}.toml")).export(path)
        elif name in ("denoiser", "strided"):
            torch.manual_seed(0)
            module = (Denoiser if name == "denoiser" else Strided)().eval()
            axes = {"x": {0: "batch", 1: "time"}}
            example = torch.randn(2, 20, 3)
            lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=axes, states="explicit", max_delay=2)
        return path

    def _deployed(self, name: str, *, golden: bool = False) -> Path:
        folder = self.folder / f"{name}.web"
        if golden:
            deploy_web(parity_files() / "net.onnx", folder, golden=parity_files() / "net.npz")
        else:
            deploy_web(self.file(name), folder)
        return folder


class Node:
    """A process of Node, for all tests: ONNX Runtime takes a second to start."""

    def __init__(self) -> None:
        # Compiling all of a module that is used for a moment takes longer than the tests.
        flags = ["--no-wasm-tier-up", "--wasm-lazy-compilation"]
        command = ["node", *flags, str(Path(__file__).parent / "node" / "run.mjs"), str(NODE_MODULES), str(FILES)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The results of jobs."""
        jobs = [{name: str(value) if isinstance(value, Path) else value for name, value in job.items()} for job in jobs]
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        results = json.loads(self.process.stdout.readline())
        assert isinstance(results, list)
        assert len(results) == len(jobs)
        return results


def result_of(answer: dict[str, Any]) -> Any:
    assert "error" not in answer, answer
    return answer["result"]


def pack(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: packed(array) for name, array in arrays.items()}


def arrays_of(items: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: unpacked(item) for name, item in items.items()}


def close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance)

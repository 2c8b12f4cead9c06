"""A module with its converted files, and edits that make such a file a wrong one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import lstm_onnx
from lstm_onnx import ParityReport
from lstm_onnx.onnxgraph.write import write_model
from lstm_onnx.parity.converted.exact import Stored, read_stored

OPTIONS: dict[str, Any] = {"provider": "cpu", "threads": 1, "mutants": "none"}


class Net(nn.Module):
    """An embedding, an LSTM whose states are inputs and outputs, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 20)
        self.lstm = nn.LSTM(20, 32, batch_first=True)
        self.head = nn.Linear(32, 40)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.lstm(self.embedding(tokens))[0])
        return output


@dataclass(frozen=True)
class Files:
    """A module, and its files in int8 and float16."""

    module: Any
    int8: Path
    float16: Path

    def verified(self, path: Path | None = None, **options: Any) -> ParityReport:
        return lstm_onnx.verify(self.module, path or self.int8, **{**OPTIONS, **options})


def changed(source: Path, path: Path, change: Callable[[Stored], None]) -> Path:
    stored = read_stored(source)
    change(stored)
    write_model(stored.model, stored.arrays, path)
    return path


def number(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Stored], None]:
    def apply(stored: Stored) -> None:
        array = stored.arrays[name].copy()
        array.reshape(-1)[5] = change(array.reshape(-1)[5])
        stored.arrays[name] = array

    return apply


def all_numbers(suffix: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Stored], None]:
    def apply(stored: Stored) -> None:
        names = [name for name in stored.arrays if name.endswith(suffix)]
        assert names
        stored.arrays[names[0]] = change(stored.arrays[names[0]])

    return apply


def next_float(value: np.ndarray) -> np.ndarray:
    return np.nextafter(value, np.float32(9))


def a_zero_point(stored: Stored) -> None:
    names = [name for name, array in stored.arrays.items() if array.dtype == np.uint8]
    assert names
    stored.arrays[names[0]] = stored.arrays[names[0]] - np.uint8(1)


def crossed_states(stored: Stored) -> None:
    """The two state inputs exchanged, wherever they are read."""
    for node in stored.model.graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = {"h0": "c0", "c0": "h0"}.get(name, name)


def reversed_direction(stored: Stored) -> None:
    scan = next(node for node in stored.model.graph.node if node.op_type == "Scan")
    for item in scan.attribute:
        if item.name in ("scan_input_directions", "scan_output_directions"):
            item.ints[:] = [1 - direction for direction in item.ints]


def crossed_pairs(stored: Stored) -> None:
    for item in stored.model.metadata_props:
        if item.key == "lstm_onnx.states":
            item.value = json.dumps({"c0": "hn", "h0": "cn"})


def failed(report: ParityReport) -> set[str]:
    return {case.label for case in report.cases if not case.passed}

"""Small LSTMs, their files, and what is done to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

import lstm_onnx
from lstm_onnx import ParityReport
from lstm_onnx.parity.mutants.catalogue import MUTATORS
from lstm_onnx.parity.mutants.graph_edit import known_shapes
from lstm_onnx.parity.mutants.self_test import mutated

VALUES = (
    "all zeros",
    "input zeros",
    "states zeros",
    "all positive",
    "all negative",
    "large input",
    "huge input",
    "huge positive input",
    "large states",
    "large positive states",
    "large negative states",
    "huge states",
    "small input",
    "small states",
    "every other state zeros",
    "the other states zeros",
    "positive input, negative states",
    "negative input, positive states",
    "input from 0 to 1",
    "input near 20",
    "input near -20",
    "tiny input",
    "some input -0 or subnormal",
    "input whole numbers and halves",
    "zeros at the end",
    "zeros after the first step",
    "states of a row zeros",
)
"""The values that a bare LSTM with states is compared at, in order; see `lstm_onnx.parity.cases.value_cases`."""
BESIDE_OTHERS = ("zeros at the end", "zeros after the first step", "states of a row zeros")
"""Those of one row or one step, which must have others beside it."""


def lstm(seed: int = 3, scale: float = 1.0, hidden_size: int = 8, **arguments: Any) -> nn.LSTM:
    """nn.LSTM(5, hidden_size) with its weights times `scale`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.LSTM(5, hidden_size, **arguments)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= scale
    return module


def verified(module: nn.Module, path: Path, mutants: str = "none", **arguments: Any) -> ParityReport:
    """`verify` on one thread of the CPU, without the self-test."""
    return lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants=mutants, **arguments)


def edit_file(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    """Change a file in place."""
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def mutate_file(path: Path, name: str, site: int = 0) -> None:
    """Make the mistake of that name, of the catalogue of mutants, in a file."""
    model = onnx.load(path)
    mutator = next(mutator for mutator in MUTATORS if mutator.name == name)
    outcome, wrong = mutated(model, mutator, site, str(path.parent), known_shapes(model))
    assert outcome.applied, outcome.reason
    onnx.save(wrong, path)

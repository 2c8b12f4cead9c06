"""The generating file of each kind of step, and a step's file, written once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import lstm_onnx

from . import steps


@pytest.fixture(scope="package")
def generating(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], lstm_onnx.Model]:
    folder = tmp_path_factory.mktemp("generating")

    @cache
    def opened(kind: str) -> lstm_onnx.Model:
        steps.written(kind, folder)
        return lstm_onnx.load(folder / f"{kind}.onnx", "cpu", threads=1)

    return opened


@pytest.fixture(scope="package")
def step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `Language`, a step."""
    _, example, shapes, _ = steps.KINDS["language"]
    path = tmp_path_factory.mktemp("step") / "step.onnx"
    lstm_onnx.export(steps.module("language"), path, example_inputs=example, dynamic_shapes=shapes, states="explicit")
    return path

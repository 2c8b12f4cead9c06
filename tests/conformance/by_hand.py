"""What files written by hand share: numbers for one LSTM, a graph around it, and one way to run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

import lstm_onnx

from .nodes import INPUTS, OUTPUTS, WEIGHTS, Array

T, B, SIZE, H = 6, 2, 4, 3
PARAMETERS = 4 * H * (SIZE + H) + 8 * H


def inputs_of(*names: str, directions: int = 1, batch: int = B, seed: int = 0) -> dict[str, Array]:
    """X, W, R, B and what else is named."""
    rng = np.random.default_rng(seed)
    shapes = {
        "X": (T, batch, SIZE),
        "W": (directions, 4 * H, SIZE),
        "R": (directions, 4 * H, H),
        "B": (directions, 8 * H),
        "initial_h": (directions, batch, H),
        "initial_c": (directions, batch, H),
    }
    arrays = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["sequence_lens"] = np.arange(T, T - batch, -1, dtype=np.int32)
    return {name: arrays[name] for name in INPUTS if name in ("X", "W", "R", "B", *names)}


def graph_of(
    nodes: Sequence[NodeProto],
    inputs: dict[str, tuple[Any, ...]],
    outputs: dict[str, tuple[Any, ...]],
    stored: dict[str, Array],
    types: dict[str, int] | None = None,
) -> onnx.GraphProto:
    types = types or {}
    ends = [
        [helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape) for name, shape in side.items()]
        for side in (inputs, outputs)
    ]
    return helper.make_graph(nodes, "by_hand", *ends, [numpy_helper.from_array(a, name) for name, a in stored.items()])


def lstm_node(*inputs: str, name: str = "rnn", outputs: Sequence[str] = OUTPUTS, **attributes: Any) -> NodeProto:
    return helper.make_node("LSTM", inputs, outputs, name, hidden_size=H, **attributes)


def weights(given: dict[str, Array]) -> dict[str, Array]:
    return {name: array for name, array in given.items() if name in WEIGHTS}


def run(path: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    return lstm_onnx.load(path, provider="cpu").run(feeds)

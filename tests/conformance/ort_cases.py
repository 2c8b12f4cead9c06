"""ONNX Runtime's own LSTM cases, as numbers: see the source named in ort_lstm.json."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .nodes import OUTPUTS, Array, Node

_FILE = Path(__file__).with_name("ort_lstm.json")
_ACTIVATIONS = ["sigmoid", "tanh", "tanh"]
_CLIP = 9999.0
"""What its tests clip at where they say nothing, which is not a clip at all."""


class Case(NamedTuple):
    """One call of one of its tests: the node, and the outputs that it compares."""

    name: str
    test: str
    node: Node
    expected: dict[str, Array]


def cases() -> list[Case]:
    """All of them in the file's order; a test that compares several times has several."""
    document = json.loads(_FILE.read_text())
    again: Counter[str] = Counter()
    found = []
    for entry in document["cases"]:
        again[entry["test"]] += 1
        found.append(_case(entry, document["weights"][entry["weights"]], again[entry["test"]]))
    return found


def _case(entry: dict[str, Any], weights: dict[str, Any], number: int) -> Case:
    direction = entry.get("direction", "forward")
    both = 2 if direction == "bidirectional" else 1
    size, hidden, time, batch = weights["input_size"], weights["hidden_size"], entry["time"], entry["batch"]
    # Both directions have the same weights; a W or R given in full for one is taken twice.
    shapes = {"W": (4 * hidden, size), "R": (4 * hidden, hidden), "B": (8 * hidden,), "P": (3 * hidden,)}
    inputs = {"X": _array(entry["X"], (time, batch, size))}
    for name, shape in shapes.items():
        if name in "WR" or name in entry["use"]:
            inputs[name] = np.stack([_array(weights[name], shape)] * both)
    if "sequence_lens" in entry:
        inputs["sequence_lens"] = np.array(entry["sequence_lens"], np.int32)
    state = (both, batch, hidden)
    inputs |= {name: _array(entry[name], state) for name in ("initial_h", "initial_c") if name in entry}
    given = {"activations": _ACTIVATIONS, "clip": _CLIP, "input_forget": 0, **entry.get("attributes", {})}
    given["activations"] = given["activations"] * both
    attributes = {"direction": direction, **{name: value for name, value in given.items() if value is not None}}
    shown = {name: _array(entry[name], (time, *state) if name == "Y" else state) for name in OUTPUTS if name in entry}
    return Case(f"{entry['test']}-{number}", entry["test"], Node(inputs, attributes, tuple(shown)), shown)


def _array(numbers: list[float], shape: tuple[int, ...]) -> Array:
    return np.array(numbers, np.float32).reshape(shape)

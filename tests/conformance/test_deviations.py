"""Where ONNX Runtime leaves ONNX's specification without a word: what it does, and that `check` says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstm_onnx
from lstm_onnx.check import check

from .by_hand import inputs_of
from .nodes import Node, compare

SPECIFIED = {"ThresholdedRelu": {"activation_alpha": [1.0]}}
"""What is left out when nothing is given, by the operator of that name."""
TAKEN = {
    "ThresholdedRelu": {"activation_alpha": [0.0]},
    "Affine": {"activation_alpha": [0.0], "activation_beta": [0.0]},
    "ScaledTanh": {"activation_alpha": [0.0], "activation_beta": [0.0]},
}
"""What ONNX Runtime takes in its place."""


def large(*names: str) -> dict[str, np.ndarray]:
    """Inputs that drive the cell well beyond 1."""
    given = inputs_of("initial_c", *names)
    return {**given, "initial_c": 4 * given["initial_c"]}


def told(path: Any, rule: str) -> list[str]:
    """What a rule of `check` says of the file, which passes: it runs, if otherwise than elsewhere."""
    report = check(path, provider="cpu")
    assert report, str(report)
    return [finding.message for finding in report.warnings if finding.rule == rule]


@pytest.mark.parametrize("clip", [0.05, 0.3, 1.0])
def test_clip_does_not_reach_the_cell(clip, tmp_path):
    """The specification clips the input of every activation; ONNX Runtime not that of h (its issue 27224)."""
    node = Node(large(), {"clip": clip})
    path = node.save(tmp_path / "m.onnx")
    results = lstm_onnx.load(path, provider="cpu").run(node.feeds())
    compare(results, node.reference(clip_cell=False))
    assert np.abs(results["Y"] - node.reference()["Y"]).max() > 1e-3
    assert told(path, "clip") == [f"clip is {clip:g}, but ONNX Runtime does not clip the cell state on its way to h"]


def test_a_clip_that_nothing_reaches_changes_nothing(tmp_path):
    node = Node(large(), {"clip": 50.0})
    path = node.save(tmp_path / "m.onnx")
    results = lstm_onnx.load(path, provider="cpu").run(node.feeds())
    compare(results, node.reference())
    compare(results, Node(node.inputs).reference())
    assert told(path, "clip") == []


@pytest.mark.parametrize("name", TAKEN)
def test_activations_without_their_numbers(name, tmp_path):
    """A default that is 0: a threshold that is none, and an activation that gives zeros alone."""
    activations = {"activations": ["Sigmoid", name, "Tanh"]}
    node = Node(large(), activations)
    path = node.save(tmp_path / "m.onnx")
    results = lstm_onnx.load(path, provider="cpu").run(node.feeds())
    compare(results, Node(node.inputs, {**activations, **TAKEN[name]}).reference())
    if name in SPECIFIED:
        expected = Node(node.inputs, {**activations, **SPECIFIED[name]}).reference()
        compare(node.reference(), expected)
        assert np.abs(results["Y"] - expected["Y"]).max() > 1e-2
    missing = [attribute for attribute in ("activation_alpha", "activation_beta") if attribute in TAKEN[name]]
    assert told(path, "activation-numbers") == [f"{name} has no {item}, and ONNX Runtime uses 0" for item in missing]


def test_a_row_of_length_0_forgets_its_state(tmp_path):
    """And does not carry it on, which the specification leaves open: never pause a stream by a length of 0."""
    given = inputs_of("sequence_lens", "initial_h", "initial_c")
    given["sequence_lens"] = np.array([0, 3], np.int32)
    node = Node(given)
    results = lstm_onnx.load(node.save(tmp_path / "m.onnx"), provider="cpu").run(node.feeds())
    compare(results, node.reference())
    assert not results["Y_h"][:, 0].any()
    assert not results["Y_c"][:, 0].any()
    assert np.abs(given["initial_c"][:, 0]).min() > 0

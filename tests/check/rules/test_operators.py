"""The rules on recurrent operators: attributes, clip, activations, states; on the LSTM, the GRU and the RNN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from lstm_onnx.check import CheckReport, check
from tests.conformance.by_hand import SIZE, H, graph_of, inputs_of, lstm_node, weights
from tests.conformance.nodes import Node, save

from ..violations import STATES, Case, all_of, attributes, base, nothing, pair, without_input

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = ["Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid"]
ACTIVATIONS += ["Elu", "Softsign", "Softplus"]
RIGHT = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def checked(folder: Path, kind: str = "LSTM", **values: Any) -> CheckReport:
    """One node of that kind with these attributes, from X to Y."""
    rng = np.random.default_rng(0)
    rows = GATES[kind] * H * 1
    both = 2 if values.get("direction") == "bidirectional" else 1
    stored = {"W": rng.normal(0, 0.5, (both, rows, SIZE)), "R": rng.normal(0, 0.5, (both, rows, H))}
    stored = {name: array.astype(np.float32) for name, array in stored.items()}
    node = helper.make_node(kind, ["X", "W", "R"], ["Y"], "rnn", **{"hidden_size": H, **values})
    graph = graph_of([node], {"X": ("time", "batch", SIZE)}, {"Y": ("time", both, "batch", H)}, stored)
    return check(save(graph, folder / "m.onnx"), provider="cpu")


def said(report: CheckReport, rule: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.rule == rule and finding.violated]


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"direction": "sideways"}, 'direction is "sideways"; it must be forward, reverse, bidirectional'),
        ({"hidden_size": 0}, "hidden_size is missing, or less than 1"),
        ({"activations": ["Tanh"] * 5}, "it has 5 activations, but needs"),
        ({"activations": ["Gelu"] * 3}, "the activation Gelu, Gelu, Gelu is unknown"),
    ],
)
def test_what_attributes_cannot_be(kind: str, values: dict[str, Any], text: str, tmp_path: Path):
    report = checked(tmp_path, kind, **values)
    assert not report
    assert any(text in message for message in said(report, "attributes")), str(report)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_what_they_can_be(kind: str, direction: str, tmp_path: Path):
    activations = RIGHT[kind] * (2 if direction == "bidirectional" else 1)
    report = checked(tmp_path, kind, direction=direction, activations=activations)
    assert report, str(report)
    assert {"attributes", "activation-numbers", "clip"} <= set(report.silent)
    report = checked(tmp_path, kind, direction=direction, activations=[name.lower() for name in activations])
    # ONNX Runtime takes any spelling but of an RNN's.
    assert bool(report) is (kind != "RNN")
    assert bool(said(report, "attributes")) is (kind == "RNN")


def test_the_two_activations_that_onnx_has_as_the_default_of_an_rnn(tmp_path: Path):
    report = checked(tmp_path, "RNN", activations=["Tanh", "Tanh"])
    assert report, str(report)
    assert "attributes" in report.silent


@pytest.mark.parametrize("kind", GATES)
def test_an_empty_list_of_activations_is_the_default_but_for_an_rnn(kind: str, tmp_path: Path):
    checked(tmp_path, kind, activations=RIGHT[kind])
    path = tmp_path / "m.onnx"
    model = onnx.load_model(path)
    next(item for item in model.graph.node[0].attribute if item.name == "activations").ClearField("strings")
    path.write_bytes(model.SerializeToString())
    report = check(path, provider="cpu")
    assert bool(report) is (kind != "RNN"), str(report)
    assert bool(said(report, "attributes")) is (kind == "RNN")


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_of_the_specification_is_known(kind: str, name: str, tmp_path: Path):
    numbers = {"activation_alpha": [0.5], "activation_beta": [0.5]}
    report = checked(tmp_path, kind, activations=[*RIGHT[kind][:-1], name], **numbers)
    assert report, str(report)
    assert {"attributes", "activation-numbers"} <= set(report.silent)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("name", ["ThresholdedRelu", "Affine", "ScaledTanh", "LeakyRelu", "Elu", "HardSigmoid"])
def test_activations_without_their_numbers(kind: str, name: str, tmp_path: Path):
    """Those that have a default which ONNX Runtime knows are left alone; see tests/conformance/test_deviations.py."""
    names = [*RIGHT[kind][:-1], name]
    messages = said(checked(tmp_path, kind, activations=names), "activation-numbers")
    needs = {"ThresholdedRelu": ["alpha"], "Affine": ["alpha", "beta"], "ScaledTanh": ["alpha", "beta"]}.get(name, [])
    assert messages == [f"{name} has no activation_{which}, and ONNX Runtime uses 0" for which in needs]


def test_numbers_are_handed_out_in_order(tmp_path: Path):
    """The one alpha goes to HardSigmoid, which comes first, and nothing is left for the other."""
    names = ["HardSigmoid", "ThresholdedRelu", "Tanh"]
    report = checked(tmp_path, activations=names, activation_alpha=[0.2], activation_beta=[0.5])
    assert said(report, "activation-numbers") == ["ThresholdedRelu has no activation_alpha, and ONNX Runtime uses 0"]
    report = checked(tmp_path, activations=names, activation_alpha=[0.2, 1.0])
    assert said(report, "activation-numbers") == []


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        ("LSTM", {"clip": 0.3}, True),
        ("LSTM", {"clip": 19.0}, True),
        ("LSTM", {"clip": 20.0}, False),
        ("LSTM", {"clip": 20.0, "activations": ["Sigmoid", "Tanh", "Softsign"]}, True),
        ("LSTM", {"clip": 20.0, "activations": ["Relu", "Relu", "Tanh"]}, False),
        ("LSTM", {"clip": 3.0, "direction": "bidirectional"}, True),
        ("GRU", {"clip": 0.3}, False),
        ("RNN", {"clip": 0.3}, False),
    ],
)
def test_a_clip_that_the_cell_state_may_reach(kind: str, values: dict[str, Any], told: bool, tmp_path: Path):
    report = checked(tmp_path, kind, **values)
    assert report, str(report)
    assert said(report, "clip") == (
        [f"clip is {values['clip']:g}, but ONNX Runtime does not clip the cell state on its way to h"] * told
    )


@pytest.mark.parametrize("clip", [20.0, 100.0])
def test_a_clip_that_is_not_told_changes_nothing(clip: float, tmp_path: Path):
    """The rule's own bound, shown on cell states far above it."""
    import lstm_onnx

    given = inputs_of("initial_h", "initial_c")
    given["initial_c"] *= 200
    node = Node(given, {"clip": clip})
    results = lstm_onnx.load(node.save(tmp_path / "m.onnx"), provider="cpu").run(node.feeds())
    np.testing.assert_allclose(results["Y"], node.reference()["Y"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", GATES)
def test_batch_first(kind: str, tmp_path: Path):
    report = checked(tmp_path, kind, layout=1)
    assert said(report, "layout") == [f"{kind} has layout=1, which ONNX Runtime refuses"]
    assert "layout" in checked(tmp_path, kind, layout=0).silent


# --- States ---


def plain(folder: Path, *edits: Any) -> CheckReport:
    return check(base(folder, Case(nothing), all_of(*edits)), provider="cpu")


def test_states_that_nothing_pairs_are_named(tmp_path: Path):
    (message,) = said(plain(tmp_path, pair({})), "loose-states")
    assert message == "initial_h, initial_c are states that nothing pairs"
    assert "loose-states" in plain(tmp_path, pair(STATES)).silent


def test_a_final_state_may_go_by_way_of_others(tmp_path: Path):
    """The cell's final state is read by a node: it is not lost."""
    given = inputs_of("initial_h", "initial_c")
    nodes = [
        lstm_node("X", "W", "R", "B", "", "initial_h", "initial_c", outputs=["Y", "", "c"]),
        helper.make_node("Identity", ["c"], ["final"]),
    ]
    state = (1, "batch", H)
    ends = {"X": ("time", "batch", SIZE), "initial_h": state, "initial_c": state}
    graph = graph_of(nodes, ends, {"Y": ("time", *state), "final": state}, weights(given))
    report = check(save(graph, tmp_path / "m.onnx"), provider="cpu")
    assert said(report, "lost-state") == []
    lost = graph_of(nodes[:1], ends, {"Y": ("time", *state)}, weights(given))
    report = check(save(lost, tmp_path / "m.onnx"), provider="cpu")
    assert said(report, "lost-state") == ["it starts from the input initial_c, but nothing reads its final cell state"]


@pytest.mark.parametrize(("gone", "absent"), [("initial_h", "initial_h"), ("initial_c", "initial_c")])
def test_one_state_alone(gone: str, absent: str, tmp_path: Path):
    (message,) = said(plain(tmp_path, pair({}), without_input(gone)), "h0-without-c0")
    assert f"{absent} is left out and is zeros" in message
    both = plain(tmp_path, pair({}), without_input("initial_h"), without_input("initial_c"))
    assert "h0-without-c0" in both.silent


def test_what_an_attribute_of_another_type_says_is_no_crash(tmp_path: Path):
    report = plain(tmp_path, attributes(clip="high", activations=[1.0, 2.0], direction=3))
    assert not report
    assert str(report)

"""Drawn LSTM nodes with any of the operator's inputs and attributes: `run` and streams against the specification."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstm_onnx
from lstm_onnx.check import check
from lstm_onnx.errors import ModelError, RunError

from .nodes import INPUTS, OUTPUTS, WEIGHTS, Node, compare
from .onnx_lstm import ACTIVATIONS

GROUPS, EACH = 10, 12
BOUNDED = ["Sigmoid", "Tanh", "HardSigmoid", "Softsign", "ScaledTanh"]
"""For gates: products of unbounded ones leave float32 within a few steps."""
ANY = [*BOUNDED, "Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Softplus", "Affine"]
NO_DEFAULT = {"ThresholdedRelu", "Affine", "ScaledTanh"}
"""Where ONNX Runtime's default is 0 and not what the specification says, or where that says nothing."""


def weights_and_states(rng: np.random.Generator, directions: int, **sizes: int) -> dict[str, np.ndarray]:
    """Every input of the operator."""
    time, batch, size, hidden = (sizes[name] for name in ("time", "batch", "size", "hidden"))
    scale = rng.choice([0.1, 0.4, 1.0])
    shapes = {
        "X": (time, batch, size),
        "W": (directions, 4 * hidden, size),
        "R": (directions, 4 * hidden, hidden),
        "B": (directions, 8 * hidden),
        "initial_h": (directions, batch, hidden),
        "initial_c": (directions, batch, hidden),
        "P": (directions, 3 * hidden),
    }
    arrays = {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["sequence_lens"] = rng.integers(0, time + 1, batch).astype(np.int32)
    return {name: arrays[name] for name in INPUTS}


def functions(rng: np.random.Generator, directions: int) -> dict[str, Any]:
    names = [str(rng.choice(ANY if slot % 3 else BOUNDED)) for slot in range(3 * directions)]
    known = [ACTIVATIONS[name.lower()] for name in names]
    if not NO_DEFAULT & set(names) and rng.random() < 0.3:
        return {"activations": names}
    alpha = [float(rng.uniform(0.1, 0.6)) for function in known if function.alpha is not None]
    beta = [float(rng.uniform(0.1, 0.6)) for function in known if function.beta is not None]
    return {
        "activations": names,
        **({"activation_alpha": alpha} if alpha else {}),
        **({"activation_beta": beta} if beta else {}),
    }


def drawn(rng: np.random.Generator, direction: str | None = None) -> Node:
    direction = direction or str(rng.choice(["forward", "reverse", "bidirectional"]))
    directions = 2 if direction == "bidirectional" else 1
    sizes = {name: int(rng.integers(1, 7)) for name in ("time", "batch", "size", "hidden")}
    inputs = weights_and_states(rng, directions, **sizes)
    optional = ("B", "sequence_lens", "initial_h", "initial_c", "P")
    inputs = {name: array for name, array in inputs.items() if name not in optional or rng.random() < 0.5}
    attributes: dict[str, Any] = {"direction": direction}
    if rng.random() < 0.5:
        attributes |= functions(rng, directions)
    if rng.random() < 0.4:
        attributes["clip"] = float(rng.choice([0.05, 0.3, 1.0, 3.0]))
    if rng.random() < 0.4:
        attributes["input_forget"] = int(rng.integers(0, 2))
    outputs = tuple(name for name in OUTPUTS if rng.random() < 0.7) or ("Y_c",)
    return Node(inputs, attributes, outputs)


def nodes(group: int) -> list[tuple[Node, int, frozenset[str]]]:
    """Nodes, each with an opset and what its file stores."""
    rng = np.random.default_rng([5, group])
    found = []
    for _ in range(EACH):
        stored = WEIGHTS if rng.random() < 0.7 else frozenset(name for name in INPUTS if rng.random() < 0.3)
        found.append((drawn(rng), int(rng.integers(7, 23)), stored - {"X", "sequence_lens"}))
    return found


@pytest.mark.parametrize("group", range(GROUPS))
def test_run_is_the_specification(group, tmp_path):
    for node, opset, stored in nodes(group):
        path = node.save(tmp_path / "m.onnx", opset=opset, stored=stored)
        results = lstm_onnx.load(path, provider="cpu").run(node.feeds(stored))
        compare(results, node.reference(clip_cell=False))


def test_the_draws_hold_everything():
    drawn_nodes = [item for group in range(GROUPS) for item in nodes(group)]
    given = {name for node, _, _ in drawn_nodes for name in node.inputs}
    assert given == set(INPUTS)
    assert {opset for _, opset, _ in drawn_nodes} == set(range(7, 23))
    assert {node.attributes["direction"] for node, _, _ in drawn_nodes} == {"forward", "reverse", "bidirectional"}
    names = {name.lower() for node, _, _ in drawn_nodes for name in node.attributes.get("activations", [])}
    assert names == set(ACTIVATIONS)
    for attribute in ("clip", "input_forget", "activation_alpha", "activation_beta"):
        assert sum(bool(node.attributes.get(attribute)) for node, _, _ in drawn_nodes) >= 10, attribute
    lengths = np.concatenate([node.inputs.get("sequence_lens", []) for node, _, _ in drawn_nodes])
    assert 0 in lengths
    assert len({node.outputs for node, _, _ in drawn_nodes}) == 7


def test_a_wrong_graph_is_seen():
    """The tolerance is not a blanket: each of these wrong nodes is far outside of it."""
    rng = np.random.default_rng(1)
    inputs = weights_and_states(rng, 1, time=5, batch=3, size=4, hidden=3)
    inputs["sequence_lens"] = np.array([5, 3, 1], np.int32)
    right = Node(inputs, {"clip": 0.3})
    expected = right.reference(clip_cell=False)
    gates = inputs["W"].reshape(4, 3, 4)[[0, 2, 1, 3]].reshape(1, 12, 4)
    wrong = {
        "gates swapped": Node({**inputs, "W": gates}, right.attributes),
        "R transposed": Node(
            {**inputs, "R": inputs["R"].reshape(4, 3, 3).swapaxes(1, 2).reshape(1, 12, 3)}, right.attributes
        ),
        "no peepholes": Node({k: v for k, v in inputs.items() if k != "P"}, right.attributes),
        "no lengths": Node({k: v for k, v in inputs.items() if k != "sequence_lens"}, right.attributes),
        "no initial_c": Node({k: v for k, v in inputs.items() if k != "initial_c"}, right.attributes),
        "no clip": Node(inputs, {}),
        "coupled": Node(inputs, {"clip": 0.3, "input_forget": 1}),
        "reverse": Node(inputs, {"clip": 0.3, "direction": "reverse"}),
    }
    for node in wrong.values():
        with pytest.raises(AssertionError):
            compare(node.reference(clip_cell=False), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("group", range(3))
def test_streams_of_any_node_are_the_whole(group, tmp_path):
    rng = np.random.default_rng([6, group])
    for _ in range(6):
        node = drawn(rng, "forward")
        whole = weights_and_states(rng, 1, time=6, batch=2, size=node.inputs["W"].shape[2], hidden=node.hidden_size)
        weights = {name: array for name, array in node.inputs.items() if name in WEIGHTS}
        node = Node({"X": whole["X"], **weights, **{k: whole[k] for k in ("initial_h", "initial_c")}}, node.attributes)
        path = node.save(tmp_path / "m.onnx")
        model = lstm_onnx.load(path, provider="cpu", states={"initial_h": "Y_h", "initial_c": "Y_c"})
        stream = model.stream(batch=2)
        stream.state = {name: whole[name] for name in ("initial_h", "initial_c")}
        parts = [stream.run({"X": part})["Y"] for part in np.split(whole["X"], [1, 2, 3, 5])]
        state = stream.state
        results = {"Y": np.concatenate(parts), "Y_h": state["initial_h"], "Y_c": state["initial_c"]}
        compare(results, node.reference(clip_cell=False))


@pytest.mark.parametrize("group", range(2))
def test_check_lets_right_nodes_pass(group, tmp_path):
    """Of what ONNX Runtime computes as specified, nothing is refused."""
    for node, opset, stored in nodes(group):
        attributes = {name: value for name, value in node.attributes.items() if name != "clip"}
        path = Node(node.inputs, attributes, node.outputs).save(tmp_path / "m.onnx", opset=opset, stored=stored)
        report = check(path, provider="cpu")
        constant_state = bool({"initial_h", "initial_c"} & set(stored) & set(node.inputs))
        if constant_state:
            # It has the batch that it was stored with.
            assert not report
            assert "batch is fixed" in str(report)
        else:
            assert report, str(report)


@pytest.mark.parametrize("lengths", [[7, 1], [-1, 1]])
def test_lengths_beyond_the_sequence_are_an_error(lengths, tmp_path):
    rng = np.random.default_rng(3)
    inputs = weights_and_states(rng, 1, time=6, batch=2, size=2, hidden=2)
    inputs["sequence_lens"] = np.array(lengths, np.int32)
    node = Node(inputs)
    model = lstm_onnx.load(node.save(tmp_path / "m.onnx"), provider="cpu")
    with pytest.raises(RunError, match="sequence_lens"):
        model.run(node.feeds())


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"layout": 1}, "layout"),
        ({"clip": 0.0}, "clip"),
        ({"clip": -1.0}, "clip"),
        ({"activations": ["Sigmoid", "Tanh"]}, "activation"),
        ({"activations": ["Sigmoid", "Tanh", "Gelu"]}, "Gelu"),
        ({"direction": "sideways"}, "direction"),
    ],
)
def test_what_onnx_runtime_does_not_open_is_refused(attributes, said, tmp_path):
    rng = np.random.default_rng(4)
    inputs = weights_and_states(rng, 1, time=3, batch=2, size=2, hidden=2)
    del inputs["sequence_lens"]
    path = Node(inputs, attributes).save(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=said):
        lstm_onnx.load(path, provider="cpu")
    report = check(path, provider="cpu")
    assert not report
    assert any(said in finding.message for finding in report.failures), str(report)

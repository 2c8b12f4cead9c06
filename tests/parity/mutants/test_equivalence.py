"""What is said to be none is none: the changed file gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.parity.mutants.catalogue import MUTATORS, Mutator
from lstm_onnx.parity.mutants.equivalence import single_step, unread_padding, unread_recurrence
from lstm_onnx.parity.mutants.graph_edit import Edit, known_shapes
from lstm_onnx.parity.mutants.self_test import mutated
from tests.module_files import module_file

from ..files import lstm

pytestmark = pytest.mark.sweep(4)


def _mutator(name: str) -> Mutator:
    return next(mutator for mutator in MUTATORS if mutator.name == name)


def _reason(path: Path, name: str, site: int = 0) -> str:
    graph = onnx.load(path)
    outcome, _ = mutated(graph, _mutator(name), site, str(path.parent), known_shapes(graph))
    assert not (outcome.applied and outcome.reason)
    return outcome.reason


def _same_gates(module: nn.LSTM) -> None:
    """i and o alike."""
    with torch.no_grad():
        for parameter in module.parameters():
            i, _, _, o = parameter.chunk(4)
            o.copy_(i)


def _no_bias_ih(module: nn.LSTM) -> None:
    with torch.no_grad():
        module.bias_ih_l0.zero_()


def _no_bias(module: nn.LSTM) -> None:
    with torch.no_grad():
        module.bias_ih_l0.zero_()
        module.bias_hh_l0.zero_()


def _no_recurrence(module: nn.LSTM) -> None:
    with torch.no_grad():
        module.weight_hh_l0.zero_()


def _no_input(module: nn.LSTM) -> None:
    with torch.no_grad():
        module.weight_ih_l0.zero_()


def _identities(module: nn.LSTM) -> None:
    """As people initialize the recurrent weights."""
    with torch.no_grad():
        module.weight_hh_l0.copy_(torch.cat([factor * torch.eye(8) for factor in (1, 2, 3, 4)]))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (_same_gates, ["gates i and o exchanged"]),
        (_no_bias_ih, ["input bias dropped"]),
        (_no_bias, ["input bias dropped", "recurrent bias dropped", "both biases dropped", "bias added twice"]),
        (_no_recurrence, ["initial h ignored", "R transposed", "R too large"]),
        (_no_input, ["W too large"]),
        (_identities, ["R transposed"]),
    ],
)
def test_weights_that_make_a_mistake_none(change: Callable[[nn.LSTM], None], names: list[str], tmp_path: Path) -> None:
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    assert not any(_reason(path, name) for name in names)
    change(module)
    lstm_onnx.export(module, path)
    others = {mutator.name for mutator in MUTATORS if _reason(path, mutator.name)}
    assert others == set(names)


def test_layers_of_zeros_alone(tmp_path: Path) -> None:
    module, path = lstm(num_layers=2), tmp_path / "m.onnx"
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.zero_()
            if name == "weight_hh_l0":
                lstm_onnx.export(module, path)
                assert _reason(path, "other activations") == ""  # of the biases
                assert _reason(path, "initial h of two layers exchanged") == ""  # of the second R
    lstm_onnx.export(module, path)
    assert _reason(path, "other activations") == "each gate is the sigmoid of 0"
    assert _reason(path, "initial h of two layers exchanged") == "R of both is zeros"
    assert _reason(path, "initial c of two layers exchanged") == ""


def test_one_unit_has_nothing_to_transpose_and_a_symmetric_projection_no_order(tmp_path: Path) -> None:
    lstm_onnx.export(lstm(hidden_size=1), tmp_path / "one.onnx")
    assert _reason(tmp_path / "one.onnx", "R transposed") == "R is one number a gate"
    module = lstm(proj_size=2)
    with torch.no_grad():
        weight = module.weight_hr_l0
        weight.copy_((weight + weight.flip(1)) / 2)
    lstm_onnx.export(module, tmp_path / "symmetric.onnx")
    assert _reason(tmp_path / "symmetric.onnx", "projection misordered") == "W_hr is the same in reverse order"


@pytest.mark.parametrize(
    ("architecture", "site", "name", "reason"),
    [
        ("first_cell_step", 0, "run backwards", "it is called on one step at a time"),
        ("first_cell_step", 0, "R transposed", "it is called on one step at a time, from h = 0"),
        ("first_cell_step", 0, "R too large", "it is called on one step at a time, from h = 0"),
        ("cell_after_lstm", 1, "run backwards", "it is called on one step at a time"),
        ("packed_marked_padding", 0, "lengths ignored", "its output past a sequence's end is never read"),
        ("packed_sorted", 0, "lengths ignored", "its output past a sequence's end is never read"),
    ],
)
def test_modules_in_which_a_mistake_is_none(architecture: str, site: int, name: str, reason: str) -> None:
    path = module_file(architecture)
    assert _reason(path, name, site) == reason


@pytest.mark.parametrize(
    ("architecture", "site", "name"),
    [
        ("cell_after_lstm", 0, "run backwards"),
        ("cell_after_lstm", 1, "R transposed"),  # its h comes from the LSTM before
        ("packed_sorted", 1, "lengths ignored"),  # its output goes to the caller, padding and all
        ("packed_both_ends", 0, "lengths ignored"),  # a reverse pass begins at the end
        ("packed_tagger", 0, "lengths ignored"),
    ],
)
def test_modules_in_which_it_is_not(architecture: str, site: int, name: str) -> None:
    assert _reason(module_file(architecture), name, site) == ""


@pytest.mark.parametrize(("steps", "reason"), [(1, "it is called on one step at a time"), (2, "")])
def test_steps_that_are_repeated_for_each_row(steps: int, reason: str, tmp_path: Path) -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.start = nn.GRU(3, 4, batch_first=True), nn.Parameter(torch.randn(5, 1, 3))

        def forward(self, h: Tensor) -> Tensor:
            return self.gru(self.start.repeat(h.shape[0], steps, 1), h.repeat(1, 1, 5).view(1, -1, 4))[0]  # type: ignore[no-any-return]

    path = tmp_path / "decoder.onnx"
    lstm_onnx.export(Decoder(), path, example_inputs=(torch.randn(2, 4),), dynamic_shapes=({0: "batch"},), check=False)
    assert _reason(path, "run backwards") == reason


def test_zeros_that_a_mask_keeps_or_not_are_zeros(tmp_path: Path) -> None:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(3, 4)

        def forward(self, x: Tensor, done: Tensor) -> Tensor:
            zeros, keep = x.new_zeros(x.shape[0], 4), (1 - done)[:, None]
            return self.cell(x, (zeros * keep, zeros * keep))[0]  # type: ignore[no-any-return]

    path, inputs = tmp_path / "policy.onnx", (torch.randn(2, 3), torch.zeros(2))
    lstm_onnx.export(Policy(), path, example_inputs=inputs, dynamic_shapes=({0: "batch"}, {0: "batch"}))
    assert _reason(path, "R transposed") == "it is called on one step at a time, from h = 0"
    assert _reason(path, "initial h ignored") == "it starts from h = 0"


def _ran(graph: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    from lstm_onnx.runtime.providers import open_session

    session, _ = open_session(graph.SerializeToString(), "cpu", 1)
    return session.run(None, feeds)


def test_a_proof_is_right_where_the_change_is_made_all_the_same() -> None:
    """The proof is left out, the mistake made, and the numbers are what they were."""
    rng = np.random.default_rng(0)
    for architecture, name in (("first_cell_step", "R transposed"), ("packed_sorted", "lengths ignored")):
        path = module_file(architecture)
        graph = onnx.load(path)
        wrong = onnx.load(path)
        site = Edit(wrong).layers[0]
        if name == "lengths ignored":
            site.node.input[4] = ""
        else:
            tensor = next(item for item in wrong.graph.initializer if item.name == site.R[0].value)
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
        model = lstm_onnx.load(path, provider="cpu", threads=1)
        sizes = {"batch": 3, "time": 6}
        feeds = {}
        for info in model.inputs.values():
            shape = [sizes[dim] if isinstance(dim, str) else dim for dim in info.shape]
            feeds[info.name] = rng.standard_normal(shape).astype(np.float32)
            if info.name == "lengths":
                feeds["lengths"] = np.array([6, 4, 2], np.int64)
        for one, other in zip(_ran(graph, feeds), _ran(wrong, feeds), strict=True):
            np.testing.assert_array_equal(one, other)


def test_nothing_is_proven_without_shapes() -> None:
    graph = onnx.load(module_file("first_cell_step"))
    for node in graph.graph.node:
        if node.op_type == "Unsqueeze":
            node.op_type = "Identity"
    edit = Edit(graph)
    assert single_step(edit, edit.layers[0]) == ""
    assert unread_recurrence(edit, edit.layers[0]) == ""


@pytest.mark.parametrize(("axis", "shape_of", "proven"), [(0, "step", True), (1, "step", False), (0, "other", False)])
def test_one_step_of_a_value_of_unknown_shape(axis: int, shape_of: str, proven: bool) -> None:
    """An element of a sequence, with an axis added, and copied as exported files do to fail where it is empty."""
    layer = helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=2)
    nodes = [
        helper.make_node("Unsqueeze", ["row", "axis"], ["step"]),
        helper.make_node("Shape", [shape_of], ["sizes"]),
        helper.make_node("Gather", ["zeros", "index"], ["zero"]),
        helper.make_node("Add", ["sizes", "zero"], ["shape"]),
        helper.make_node("Reshape", ["step", "shape"], ["x"]),
        layer,
    ]
    arrays = {
        "axis": np.array([axis]),
        "zeros": np.zeros(2, np.int64),
        "W": np.ones((1, 8, 3), np.float32),
        "R": np.ones((1, 8, 2), np.float32),
    }
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("row", "other", "y")]
    values.insert(0, helper.make_tensor_value_info("index", onnx.TensorProto.INT64, []))
    stored = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    edit = Edit(helper.make_model(helper.make_graph(nodes, "step", values[:3], values[3:], stored)))
    assert bool(single_step(edit, edit.layers[0])) is proven


def test_a_mask_of_another_kind_proves_nothing() -> None:
    graph = onnx.load(module_file("packed_marked_padding"))
    shapes = known_shapes(graph)
    edit = Edit(graph, "", shapes)
    assert unread_padding(edit, edit.layers[0])
    less = next(node for node in graph.graph.node if node.op_type == "Less")
    less.op_type = "LessOrEqual"
    edit = Edit(graph, "", shapes)
    assert unread_padding(edit, edit.layers[0]) == ""


@pytest.mark.parametrize(("chosen", "layers", "proven"), [(-1, 0, True), (-1, 1, False), (1, 0, False), (0, 1, True)])
def test_final_states_that_are_not_chosen_may_be_exchanged(
    chosen: int, layers: int, proven: bool, tmp_path: Path
) -> None:
    """Encoders read ``hidden[-1]`` of several layers; the mutator exchanges layers `layers` and `layers` + 1."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 5, 3, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lstm(x)[1][0][chosen]

    path = tmp_path / "m.onnx"
    shapes = {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(Encoder().eval(), path, example_inputs=torch.randn(2, 4, 4), dynamic_shapes=shapes, check=False)
    reason = _reason(path, "final h of two layers exchanged", layers)
    assert reason == ("no output depends on it" if proven else "")


@pytest.mark.parametrize(
    ("steps", "part", "proven"),
    [(1, "c", {"gates o and f exchanged"}), (1, "h", set()), (2, "c", set()), (1, "h and c", set())],
)
def test_gates_that_nothing_reads_may_be_exchanged(steps: int, part: str, proven: set[str], tmp_path: Path) -> None:
    """In one step from c = 0, f is multiplied with 0; o makes h alone."""

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(4, 5)

        def forward(self, x: torch.Tensor) -> object:
            state = self.cell(x)
            for _ in range(steps - 1):
                state = self.cell(x, state)
            return {"h": state[0], "c": state[1], "h and c": state}[part]

    path = tmp_path / "m.onnx"
    module = Step().eval()
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 4), dynamic_shapes={"x": {0: "batch"}}, check=False)
    names = [mutator.name for mutator in MUTATORS if mutator.name.startswith("gates")]
    graph = onnx.load(path)
    last = len(Edit(graph).layers) - 1
    assert {name for name in names if _reason(path, name, last)} == proven
    for name in proven:
        wrong = onnx.load(path)
        site = Edit(wrong).layers[last]
        tensor = next(item for item in wrong.graph.initializer if item.name == site.W[0].value)
        i, o, f, c = np.split(numpy_helper.to_array(tensor), 4, axis=1)
        tensor.CopyFrom(numpy_helper.from_array(np.concatenate([i, f, o, c], axis=1), tensor.name))
        feeds = {"x": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)}
        for one, other in zip(_ran(graph, feeds), _ran(wrong, feeds), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)

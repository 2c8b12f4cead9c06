"""`verify` of generating files: right ones pass with all mutants rejected, and wrong ones do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import lstm_onnx
from lstm_onnx import ConfigError
from lstm_onnx.generation.python_loop import Decision, Looped
from lstm_onnx.onnxgraph import bodies_of
from lstm_onnx.parity.generation.verification import first_near_choice
from tests.generation import steps
from tests.parity.mutants.test_catalogue import OF_GENERATION

pytestmark = pytest.mark.sweep(9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generating")


@pytest.mark.parametrize("kind", ["sampled", "attending", "forecast"])
def test_a_right_file_is_in_parity_and_its_mutants_are_rejected(kind: str, folder: Path) -> None:
    steps.written(kind, folder)
    report = lstm_onnx.verify(steps.module(kind), folder / f"{kind}.onnx", mutants="all")
    assert report, str(report)
    outcomes = {result.name: result.outcome for result in report.mutants}
    assert set(outcomes.values()) <= {"rejected", "equivalent"}
    tried = {
        "sampled": OF_GENERATION - {"the smallest number chosen"},
        "attending": OF_GENERATION - {"temperature ignored", "the first noise for every step"},
        "forecast": {"one step more", "a state of the step unchanged", "the prompt fed to every step"},
    }
    assert {name for name in OF_GENERATION if outcomes.get(name) == "rejected"} >= tried[kind] - {"one step more"} | (
        {"one step more"} & outcomes.keys()
    )
    assert any("gates" in name or "R transposed" in name for name in outcomes)  # of the layer in the loop


@pytest.mark.parametrize("kind", ["peephole", pytest.param("convolved", marks=pytest.mark.slow)])
def test_states_that_pytorch_cannot_be_given(kind: str, folder: Path) -> None:
    """The module reads all that came before anew in each step."""
    steps.written(kind, folder)
    report = lstm_onnx.verify(steps.module(kind), folder / f"{kind}.onnx")
    assert report, str(report)
    assert {result.name for result in report.mutants} >= {
        "a state of the step unchanged",
        "the prompt fed to every step",
    }
    assert all(case.tensors and case.passed for case in report.cases)


def test_a_token_that_no_sequence_ends_with(tmp_path: Path) -> None:
    """The end is tested with another token, and the token itself by its place in the file."""
    kind, stop = "language", {"stop_token": 0}
    _, example, shapes, generate = steps.KINDS[kind]
    path = tmp_path / "m.onnx"
    module = steps.module(kind)
    with torch.no_grad():
        bias = module.head.bias.clone()
        module.head.bias[0] = -1e3
    try:
        lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=shapes, generate={**generate, **stop})
        report = lstm_onnx.verify(module, path)
        assert report, str(report)
        assert any("with the stop token" in case.label for case in report.cases)
        model = onnx.load(path)
        (token,) = (item for item in model.graph.initializer if item.name == "generate/stop/token/0")
        token.CopyFrom(numpy_helper.from_array(np.array([[1]], np.int64), token.name))
        _saved(model, path)
        report = lstm_onnx.verify(module, path, mutants="none")
        assert not report
        assert "the metadata say that 0 ends a sequence, but in the graph it does not" in str(report)
        token.CopyFrom(numpy_helper.from_array(np.array([[0]], np.int64), token.name))
        (pad,) = (item for item in model.graph.initializer if item.name == "generate/stop/padding")
        pad.CopyFrom(numpy_helper.from_array(np.array(7, np.int64), pad.name))
        _saved(model, path)
        assert not lstm_onnx.verify(module, path, mutants="none")
    finally:
        with torch.no_grad():
            module.head.bias.copy_(bias)


def test_other_weights_and_other_modules(folder: Path) -> None:
    steps.written("time first", folder)
    torch.manual_seed(1)
    report = lstm_onnx.verify(steps.TimeFirst().eval(), folder / "time first.onnx", mutants="none")
    assert not report
    assert any("exported from other weights" in note for note in report.notes)
    assert report.location is not None
    with pytest.raises(ConfigError, match="is the file this module's"):
        lstm_onnx.verify(
            steps.module("attending"),
            folder / "time first.onnx",
            example_inputs=steps.KINDS["attending"][1],
        )


def test_one_wrong_token_fails(folder: Path) -> None:
    """Of other integers the criterion lets one in many differ; a token more or less is another text."""
    steps.written("hand-written", folder)
    path = folder / "hand-written.onnx"
    model = onnx.load(path)
    (body,) = bodies_of(next(node for node in model.graph.node if node.op_type == "Loop"))
    place = next(i for i, value in enumerate(body.output) if value.name.endswith("choose/token"))
    name = body.output[place].name
    # The last token that is given, and not what is fed back, is 0 after three steps.
    late = [
        helper.make_node("Constant", [], ["mutant/three"], value_int=3),
        helper.make_node("Less", ["generate/step/number", "mutant/three"], ["mutant/early"]),
        helper.make_node("Constant", [], ["mutant/zero"], value_int=0),
        helper.make_node("Where", ["mutant/early", name, "mutant/zero"], ["mutant/token"]),
    ]
    body.node.extend(late)
    body.output[place].name = "mutant/token"
    _saved(model, path)
    report = lstm_onnx.verify(steps.module("hand-written"), path, mutants="none")
    assert not report
    assert {tensor.output for case in report.cases for tensor in case.tensors if not tensor.passed} >= {"generated"}


def test_a_choice_is_near_where_rounding_may_change_it() -> None:
    def looped(*numbers: list[float]) -> Looped:
        decisions = []
        for row in numbers:
            gaps = [max(row) - number if number < max(row) else np.inf for number in row]
            decisions.append([Decision(np.array([row]), np.array([gaps]), np.array([row.index(max(row))]))])
        return Looped({}, decisions)

    far, near = [1.0, 3.0], [1.0, 1.00001]
    assert first_near_choice(looped(far, far), looped(far, far), "float32") is None
    assert first_near_choice(looped(far, near, far), looped(far, near, far), "float32") == 1
    assert first_near_choice(looped(far, near), looped(far, near), "float64") == 1
    # PyTorch's own error is large here, so that a larger gap counts as near.
    assert first_near_choice(looped(far, far), looped(far, [1.1, 3.0]), "float32") == 1
    assert first_near_choice(looped(far, far), looped(far), "float32") == 1


def _saved(model: onnx.ModelProto, path: Path) -> None:
    helper.set_model_props(model, {item.key: item.value for item in model.metadata_props if "checksum" not in item.key})
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("what", "found"), [("c0", "large numbers"), ("rows", "batch 130"), ("steps", "max_steps 130")], ids=str
)
def test_a_file_that_is_wrong_past_the_usual_sizes_and_numbers(what: str, found: str, folder: Path) -> None:
    kind = "language"
    steps.written(kind, folder)
    model = onnx.load(folder / f"{kind}.onnx")
    given = {"c0": next(name for name in _inputs(model) if "c0" in name), "steps": "max_steps"}
    name = given.get(what, "tokens")
    for node in model.graph.node:
        node.input[:] = ["limited" if each == name else each for each in node.input]
    most = {"c0": np.float32(20), "steps": np.int64(100), "rows": np.array([100])}[what]
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(most), "most"))
    added = [helper.make_node("Min", [name, "most"], ["limited"])]
    if what == "rows":
        for value, number in (("zero", 0), ("one", 1)):
            model.graph.initializer.append(numpy_helper.from_array(np.array([number]), value))
        added = [helper.make_node("Slice", [name, "zero", "most", "zero", "one"], ["limited"])]
    for node in reversed(added):
        model.graph.node.insert(0, node)
    onnx.save(model, folder / "wrong.onnx")
    report = lstm_onnx.verify(steps.module(kind), folder / "wrong.onnx", mutants="none")
    assert not report
    assert all(found in case.label for case in report.cases if not case.passed)


def _inputs(model: onnx.ModelProto) -> list[str]:
    return [item.name for item in model.graph.input]

"""Where in an output, and in which layer, a file first differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import lstm_onnx
from lstm_onnx.parity.criterion import compare
from lstm_onnx.parity.expected import Call, Expected, first_difference
from lstm_onnx.parity.lstm.locate import locate
from lstm_onnx.parity.lstm.verification import LSTMVerification
from lstm_onnx.parity.results import CaseResult, Location

from ..files import edit_file, lstm, mutate_file

pytestmark = pytest.mark.sweep(3)


def _pair(label: str, wrong: tuple[int, int, int] | None, kind: str = "whole") -> tuple[Expected, CaseResult]:
    """A case of output (time 6, batch 2, features 3), with one number that is wrong."""
    reference = np.random.default_rng(0).standard_normal((6, 2, 3))
    actual = reference.copy()
    if wrong is not None:
        actual[wrong] += 0.5
    axes = {"output": 0}, {"output": 1}
    expected = Expected(
        label, (Call({}, {"output": reference}, {"output": reference}),), "float32", 1.0, kind, (), *axes
    )
    return expected, expected.judge([{"output": actual}])


def test_the_first_wrong_number_is_where_it_is() -> None:
    assert first_difference([_pair("a", (4, 1, 2))]) == Location("a", "output", step=4, row=1, feature=2)


def test_whole_runs_come_before_streams() -> None:
    found = first_difference([_pair("chunked", (1, 0, 0), "chunks"), _pair("whole", (4, 1, 2))])
    assert found is not None
    assert found.case == "whole"
    alone = first_difference([_pair("chunked", (1, 0, 0), "chunks")])
    assert alone is not None
    assert (alone.case, alone.step) == ("chunked", 1)


def test_what_did_not_run_or_has_another_shape_has_no_place() -> None:
    expected, _ = _pair("a", None)
    assert first_difference([(expected, CaseResult("a", error="it broke"))]) is None
    assert first_difference([(expected, expected.judge([{"output": np.zeros((6, 2))}]))]) is None
    assert first_difference([]) is None


def test_an_output_without_time_has_no_step() -> None:
    reference = np.zeros((1, 2, 3))
    result = compare("hn", reference + 1, reference, reference, dtype="float32", scale=1.0)
    expected = Expected("a", (), "float32", 1.0, batch_axes={"hn": 1})
    found = first_difference([(expected, CaseResult("a", (result,)))])
    assert found == Location("a", "hn", step=None, row=0, feature=0)


@pytest.mark.parametrize(
    ("name", "gate"), [("gates i and c exchanged", "i or g"), ("gates o and f exchanged", "f and o")]
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_gates_are_told_by_two_values_of_c(name: str, gate: str, batch_first: bool, tmp_path: Path) -> None:
    module, path = lstm(batch_first=batch_first), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    mutate_file(path, name)
    done = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), module)
    results = list(done.results())
    wrong = done.compared[4]
    place = Location(wrong.expected.label, "output")
    found = locate(done.models, done.spec, wrong.expected.calls[0].feeds, place)
    assert not results[4].passed
    assert (found.step, found.layer, found.direction, found.gate) == (0, 0, None, gate)


def test_a_fault_that_begins_later_is_placed_at_its_step(tmp_path: Path) -> None:
    """The file goes wrong from the third step on: it hears 1.5 where x is above it, which it is there alone."""
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)

    def clip(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1.5), "most"))
        for node in model.graph.node:
            node.input[:] = ["clipped" if name == "input" else name for name in node.input]
        model.graph.node.insert(0, onnx.helper.make_node("Clip", ["input", "", "most"], ["clipped"], name="clip"))

    edit_file(path, clip)
    done = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), module)
    case = done.cases[4]
    x = case.feeds["input"]
    assert x.shape[0] == 7
    np.clip(x, None, 1.4, out=x)
    x[3, 1, 0] = 3.0
    place = Location(case.label, "output")
    found = locate(done.models, done.spec, case.feeds, place)
    assert (found.step, found.layer) == (3, 0)


def test_a_right_file_keeps_the_place_that_it_was_given(tmp_path: Path) -> None:
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    done = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), module)
    place = Location("somewhere", "output", step=5)
    assert locate(done.models, done.spec, done.cases[4].feeds, place) == place

"""ONNX Runtime's own LSTM cases: its numbers against the specification, `run` and `check`."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_onnx
from lstm_onnx.check import check
from lstm_onnx.inspect import inspect

from .nodes import Node, compare
from .ort_cases import Case, cases

CASES = cases()
ATOL = 1e-6
"""Its numbers have six to nine digits."""
ROUGH = {
    # Five digits.
    "ONNXRuntime_TestLSTMBatchReallocation-2": 1e-5,
    # One number of Y, -0.04350187, is -0.04356322 by the specification, by ONNX Runtime, and by their own Y of the
    # other direction; its test compares to 5e-3.
    "ONNXRuntime_TestLSTMShorterSeqInMiddle-1": 1e-4,
    "ONNXRuntime_TestLSTMZeroSeqInMiddle-1": 1e-4,
}
"""What its own numbers are good to, where that is less."""
TESTS = 26
"""In the file that ort_lstm.json names; all run, so that all must be right."""

by_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def test_all_its_tests_are_here():
    assert len({case.test for case in CASES}) == TESTS
    assert len(CASES) == 30
    assert set(ROUGH) < {case.name for case in CASES}
    used = {name for case in CASES for name in case.node.attributes}
    assert used == {"direction", "activations", "clip", "input_forget"}


@by_case
def test_its_numbers_are_the_specifications(case: Case):
    compare(case.node.reference(), case.expected, atol=ROUGH.get(case.name, ATOL), rtol=0)


@pytest.mark.sweep(4)
@by_case
def test_it_runs_right_and_is_not_refused(case: Case, tmp_path):
    path = case.node.save(tmp_path / "m.onnx")
    results = lstm_onnx.load(path, provider="cpu").run(case.node.feeds())
    compare(results, case.expected, atol=ROUGH.get(case.name, ATOL), rtol=0)
    compare(results, case.node.reference())
    report = check(path, provider="cpu")
    assert report, str(report)
    states = {"initial_h", "initial_c"} & set(case.node.inputs)
    expected = {
        "clip": case.node.attributes.get("clip", np.inf) < 20,  # where a cell state may reach it
        "loose-states": bool(states),
        "lost-state": False,
        "h0-without-c0": len(states) == 1,
        "not-streamable": len(states) == 1,  # the other state starts again at each call
    }
    if "initial_c" in states and "Y_c" not in case.expected:
        expected |= {"loose-states": False, "lost-state": True}
    assert {finding.rule for finding in report.warnings} == {rule for rule, is_told in expected.items() if is_told}
    (found,) = inspect(path).lstms
    assert (found.input_size, found.hidden_size) == (case.node.inputs["W"].shape[2], case.node.hidden_size)
    assert found.direction == case.node.attributes["direction"]
    assert found.bias is ("B" in case.node.inputs)
    assert ("peepholes" in found.notes) is ("P" in case.node.inputs)
    assert found.parameters == sum(a.size for name, a in case.node.inputs.items() if name in "WRBP")


@pytest.mark.sweep(4)
@by_case
def test_it_runs_right_without_the_sequence(case: Case, tmp_path):
    outputs = tuple(name for name in case.expected if name != "Y")
    if not outputs:
        pytest.fail("a case that compares Y alone has nothing left: give it its own test")
    node = Node(case.node.inputs, case.node.attributes, outputs)
    path = node.save(tmp_path / "m.onnx", stored=())  # and with the weights as inputs
    results = lstm_onnx.load(path, provider="cpu").run(node.feeds(stored=()))
    compare(results, {name: case.expected[name] for name in outputs}, atol=ROUGH.get(case.name, ATOL), rtol=0)


@pytest.mark.sweep(4)
@by_case
def test_the_command_line_gives_the_same(case: Case, run_cli, tmp_path):
    case.node.save(tmp_path / "m.onnx")
    np.savez(tmp_path / "in.npz", **case.node.feeds())
    done = run_cli("run", "m.onnx", "in.npz", "-o", "out.npz", "--provider", "cpu")
    assert done.code == 0, done.err
    with np.load(tmp_path / "out.npz") as written:
        compare(dict(written), case.expected, atol=ROUGH.get(case.name, ATOL), rtol=0)

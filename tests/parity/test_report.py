"""A report is truthy for one reason and false for several."""

from __future__ import annotations

import json

import pytest

from lstm_onnx.parity.criterion import TensorResult
from lstm_onnx.parity.report import ParityReport
from lstm_onnx.parity.results import CaseResult, Cause, Location, MutantResult

_RIGHT = CaseResult("a", (TensorResult("output", 1e-7, 1e-7, 1.0, (0,)),))
_WRONG = CaseResult("b", (TensorResult("output", 1.0, 1e-7, 1e7, (0,)),))
_UNCLEAR = CaseResult("c", (TensorResult("output", 1.0, 1.0, 1.0, (0,), inconclusive=True),))
_UNCLEAR_AND_WRONG = CaseResult("e", (*_UNCLEAR.tensors, TensorResult("hn", 1.0, 1e-7, 1e7, (0,))))
_UNCLEAR_AND_RIGHT = CaseResult("f", (*_UNCLEAR.tensors, *_RIGHT.tensors))
_REJECTED = MutantResult("R transposed", "rejected", float("inf"), "a")
_SURVIVED = MutantResult("run backwards", "survived", 0.5, "a")
_EQUIVALENT = MutantResult("input bias dropped", "equivalent", 0.0, "", "that bias is zeros")


def _report(*cases: CaseResult, mutants: tuple[MutantResult, ...] = ()) -> ParityReport:
    return ParityReport("m.onnx", "LSTM", "cpu", cases, mutants=mutants)


@pytest.mark.parametrize(
    ("report", "in_parity", "passed"),
    [
        (_report(_RIGHT), True, True),
        (_report(_RIGHT, _UNCLEAR), True, True),
        (_report(_RIGHT, mutants=(_REJECTED, _EQUIVALENT)), True, True),
        (_report(_RIGHT, mutants=(_REJECTED, _SURVIVED)), True, False),
        (_report(_RIGHT, _WRONG), False, False),
        (_report(_RIGHT, CaseResult("d", error="it broke")), False, False),
        (_report(_UNCLEAR), False, False),
        (_report(_RIGHT, _UNCLEAR_AND_WRONG), False, False),  # an output that fails is not hidden by another
        (_report(_RIGHT, _UNCLEAR_AND_RIGHT), True, True),
        (_report(), False, False),
    ],
)
def test_what_passes(report: ParityReport, in_parity: bool, passed: bool) -> None:
    assert report.in_parity is in_parity
    assert bool(report) is passed
    table = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (table["in_parity"], table["passed"]) == (in_parity, passed)


def test_the_repr_is_one_short_line() -> None:
    report = _report(*[_RIGHT] * 500, CaseResult("d\n\x1b[31m", error="it broke\n" * 500))
    assert repr(report) == "<ParityReport m.onnx: NOT in parity with PyTorch, LSTM: 1 of 501 cases failed on cpu>"
    assert len(repr(ParityReport("m" * 10_000, "s" * 10_000, "p\n" * 10_000, ()))) < 2000
    assert repr(ParityReport("m\n", "s\n", "c\npu", ())).isprintable()


def test_the_dictionary_has_a_version_and_what_was_allowed() -> None:
    table = _report(CaseResult("a", (TensorResult("output", 1e-7, 1e-7, 1.0, (0,), allowed=3.2e-6),))).to_dict()
    assert table["schema"] == 1
    assert table["outputs"]["output"]["allowed"] == 3.2e-6
    assert table["cases"][0]["outputs"]["output"]["allowed"] == 3.2e-6
    assert {"date", "command", "commit", "digest"} <= table.keys()


def test_survivors_are_those_that_survived() -> None:
    report = _report(_RIGHT, mutants=(_REJECTED, _SURVIVED, _EQUIVALENT))
    assert report.survivors == (_SURVIVED,)
    rows = report.to_dict()["mutants"]
    assert rows[0]["ratio"] == "inf"
    assert rows[2]["reason"] == "that bias is zeros"


@pytest.mark.parametrize("order", [1, -1])
def test_the_worst_ratio_of_an_output_is_one_that_is_not_a_number(order: int) -> None:
    unknown = CaseResult("g", (TensorResult("output", 0.0, 0.0, float("nan"), (0,)),))
    assert _report(*(_RIGHT, unknown)[::order]).worst["output"][0].label == "g"


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (Location("a", "output", 3, 1, 2), "from step 3 on, output (row 1, feature 2) in a"),
        (Location("a", "hn", layer=1, direction="reverse"), "layer 1, reverse, hn in a"),
        (Location("a", "y", module="encoder.lstm", layer=0, gate="f"), "encoder.lstm, layer 0, gate f, y in a"),
    ],
)
def test_a_location_reads_from_the_outside_in(location: Location, words: str) -> None:
    assert str(location) == words


def test_where_and_why_are_in_the_dictionary() -> None:
    cause = Cause("gate order", "it gives the file's numbers", "reorder them")
    report = ParityReport("m.onnx", "LSTM", "cpu", (_WRONG,), location=Location("b", "output", 2), causes=(cause,))
    table = report.to_dict()
    assert table["location"]["step"] == 2
    assert table["causes"] == [{"name": "gate order", "evidence": cause.evidence, "fix": cause.fix}]

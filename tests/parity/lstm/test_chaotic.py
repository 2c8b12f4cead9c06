"""Chaotic models: compared step by step, and never passed on what tells nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

import lstm_onnx
from lstm_onnx import ParityReport
from lstm_onnx.parity.cases import SHAPES
from lstm_onnx.parity.criterion import TensorResult
from lstm_onnx.parity.lstm import reference
from lstm_onnx.parity.lstm.cases import lstm_cases
from lstm_onnx.parity.lstm.verification import LSTMVerification, expectations
from lstm_onnx.parity.replay import replay
from lstm_onnx.parity.results import CaseResult
from lstm_onnx.parity.tolerances import K
from lstm_onnx.parity.verification import make_report

from ..files import lstm, mutate_file, verified

pytestmark = pytest.mark.sweep(9)

_CHAOTIC = (3, 120)
"""(batch, time) at which such a model's rounding has grown past all use."""


def _chaotic(path: Path, **arguments: object) -> nn.LSTM:
    module = lstm(hidden_size=32, scale=20.0, **arguments)
    lstm_onnx.export(module, path)
    return module


def _over(module: nn.LSTM, path: Path, *shapes: tuple[int, int], whole_only: bool = False) -> ParityReport:
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    verification = LSTMVerification(model, module, shapes=shapes)
    if whole_only:
        verification.cases = verification.cases[: len(shapes)]
        verification.sweeps = []
    return make_report(verification, verification.results(), mutants="none")


@pytest.mark.parametrize("arguments", [{}, {"batch_first": True, "num_layers": 2}, {"bidirectional": True}])
def test_a_chaotic_model_is_compared_step_by_step(arguments: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = _chaotic(path, **arguments)
    report = _over(module, path, *SHAPES, _CHAOTIC)
    labels = [case.label for case in report.cases]
    unclear = [index for index, case in enumerate(report.cases) if case.inconclusive]
    assert unclear
    for index in unclear:
        assert labels[index + 1] == f"{labels[index]}, 2 at a time"
        assert report.cases[index + 1].kind == "steps"
        assert not report.cases[index + 1].inconclusive
        assert report.cases[index + 1].passed
    assert report, str(report)
    assert len(report.judged) == len(report.cases) - len(unclear)
    assert any("single steps" in note for note in report.notes)
    table = report.to_dict()
    assert sum(case["inconclusive"] for case in table["cases"]) == len(unclear)


@pytest.mark.parametrize("name", ["gates i and f exchanged", "gates o and f exchanged", "R transposed"])
def test_a_wrong_chaotic_model_fails(name: str, tmp_path: Path) -> None:
    """Also where the steps alone could tell: nothing but the inconclusive shape is swept."""
    path = tmp_path / "m.onnx"
    module = _chaotic(path)
    right = _over(module, path, _CHAOTIC, whole_only=True)
    assert right
    assert [case.inconclusive for case in right.cases] == [True, False]
    mutate_file(path, name)
    report = _over(module, path, _CHAOTIC, whole_only=True)
    assert not report
    assert max(tensor.ratio for _, tensor in report.worst.values()) > 10 * K
    assert report.location is not None
    assert report.location.case.endswith("2 at a time")
    assert report.causes[0].name.startswith("gate order" if "gates" in name else "R transposed")


def test_a_report_of_nothing_but_inconclusive_cases_is_no_pass(tmp_path: Path) -> None:
    tensor = TensorResult("hn", 0.0, 1.0, 0.0, (0,), inconclusive=True)
    case = CaseResult("chaos", (tensor,))
    assert case.passed
    assert not ParityReport("f", "LSTM", "cpu", (case,))
    assert not ParityReport("f", "LSTM", "cpu", ())
    assert not CaseResult("nothing").passed


@pytest.mark.parametrize("batch_first", [False, True])
def test_single_steps_are_those_of_the_whole_run(batch_first: bool) -> None:
    module = lstm(batch_first=batch_first, num_layers=2).double().eval()
    spec = lstm_onnx.LSTMSpec(5, 8, num_layers=2, batch_first=batch_first, dtype="float64")
    case = next(case for case in lstm_cases(spec, lengths=False) if case.label == "batch 3, time 7, states")
    whole = reference.run_torch(module, case.feeds)
    steps = reference.run_torch(module, reference.windows(module, case, 1).feeds)
    output = whole["output"].swapaxes(0, 1) if batch_first else whole["output"]
    each = steps["output"].swapaxes(0, 1) if batch_first else steps["output"]
    assert each.shape == (1, 21, 8)
    np.testing.assert_allclose(each.reshape(7, 3, 8), output, atol=1e-14)
    np.testing.assert_allclose(steps["hn"][:, -3:], whole["hn"], atol=1e-14)


def _reversed_in_time(path: Path, time_axis: int) -> None:
    """The file reads its input backwards, by a Slice with a step of -1 in front of everything."""
    model = onnx.load(path)
    for name, value in (("begin", -1), ("end", np.iinfo(np.int64).min), ("axis", time_axis), ("step", -1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "input":
                node.input[index] = "backwards"
    node = onnx.helper.make_node("Slice", ["input", "begin", "end", "axis", "step"], ["backwards"])
    model.graph.node.insert(0, node)
    onnx.save(model, path)


@pytest.mark.slow
def test_a_chaotic_model_that_reads_time_backwards_fails(tmp_path: Path) -> None:
    """Single steps alone have no order in time; pairs of steps do."""
    path = tmp_path / "m.onnx"
    module = lstm(hidden_size=64, num_layers=4, scale=40.0)
    lstm_onnx.export(module, path)
    assert verified(module, path)
    _reversed_in_time(path, 0)
    report = verified(module, path)
    assert not report
    assert any(case.label.endswith("2 at a time") and not case.passed for case in report.cases)


def test_windows_keep_lengths_and_drop_what_lies_past_them() -> None:
    module = lstm().double().eval()
    spec = lstm_onnx.LSTMSpec(5, 8, dtype="float64")
    case = next(case for case in lstm_cases(spec, lengths=True) if case.label.startswith("batch 3, time 7, states, le"))
    made = reference.windows(module, case, 2)
    assert made.feeds["input"].shape == (2, sum(min(int(n), 6) for n in case.feeds["lengths"]), 5)
    assert set(made.feeds["lengths"].tolist()) == {1, 2}


def test_nothing_conclusive_at_all_fails_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, module = tmp_path / "m.onnx", lstm()
    lstm_onnx.export(module, path)
    monkeypatch.setattr(lstm_onnx.parity.criterion, "CHAOS", 0.0)
    monkeypatch.setitem(lstm_onnx.parity.criterion.EPSILON, "float32", 1e-12)
    report = verified(module, path)
    assert not report
    assert "so no verdict is possible" in str(report)


def test_a_chaotic_stream_is_judged_by_pairs_of_its_steps(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = _chaotic(path)
    verification = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), module, shapes=(_CHAOTIC,))
    whole = verification.cases[0]
    case = replace(whole, kind="chunks", chunkings=((1,) * _CHAOTIC[1],))
    long, pairs = expectations(verification.models, verification.spec, case)
    assert long.inconclusive
    assert (pairs.kind, pairs.chunkings, pairs.inconclusive) == ("chunks", ((1, 1),), False)
    assert replay(verification.models.file, pairs).passed
    # A stream that carries h and c exchanged is seen.
    swapped = lstm_onnx.load(path, provider="cpu", threads=1)
    swapped.states = {"h0": "cn", "c0": "hn"}
    assert not replay(swapped, pairs).passed

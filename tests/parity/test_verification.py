"""Verification of bare LSTMs: right files pass, wrong ones fail, and the report says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx import ConfigError, ExportError, FileError, InputError, ModelError, ParityReport, ProviderError
from lstm_onnx.parity.cases import FEW_AND_MANY, SHAPES, Case
from lstm_onnx.parity.lstm.cases import lstm_cases
from lstm_onnx.parity.lstm.verification import LSTMVerification
from lstm_onnx.parity.tolerances import K
from lstm_onnx.parity.verification import make_report, verify_all

from .files import BESIDE_OTHERS, VALUES, edit_file, lstm, mutate_file, verified


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ParityReport]:
    """The file of `lstm()`, which nobody may change, and its report."""
    module, path = lstm(), tmp_path_factory.mktemp("right") / "m.onnx"
    lstm_onnx.export(module, path)
    return path, verified(module, path)


def test_a_right_file_is_in_parity(right: tuple[Path, ParityReport]) -> None:
    path, report = right
    assert bool(report) is True
    assert (report.file, report.source, report.provider) == (str(path), "LSTM", "cpu")
    assert report.notes == ()
    assert set(report.worst) == {"output", "hn", "cn"}
    assert report.judged == report.cases
    assert [case.label for case in report.cases] == [
        *(f"batch {batch}, time {time}, states" for batch, time in SHAPES),
        "batch 2, time 60, states",
        "batch 1, time 7, no states",
        "batch 3, time 7, no states",
        "batch 3, time 7, states, every chunking",
        "batch 1, time 12, no states, some chunkings",
        "batch 3, time 5, no states, in a pool",
        *(
            f"batch {batch}, time {time}, states, {values}"
            for batch, time in ((3, 4), *FEW_AND_MANY)
            for values in VALUES
            if (batch, time) != (1, 1) or values not in BESIDE_OTHERS
        ),
        *(case.label for case in report.cases if case.kind == "sweep"),
    ]
    sweeps = [case.label for case in report.cases if case.kind == "sweep"]
    assert [label.partition(" of ")[0] for label in sweeps] == ["every batch", "batch 1, every time", "4 larger sizes"]
    for name, (case, tensor) in report.worst.items():
        assert tensor.output == name
        assert tensor.ratio == max(t.ratio for c in report.cases for t in c.tensors if t.output == name)
        assert tensor in case.tensors
        assert 0 < tensor.ratio <= K
    assert "in parity with PyTorch" in str(report)
    assert "NOT" not in str(report)
    assert "FAILS" not in str(report)


def test_lengths_are_swept_where_the_file_takes_them(tmp_path: Path) -> None:
    module, path = lstm(bidirectional=True), tmp_path / "m.onnx"
    lstm_onnx.export(module, path, lengths=True)
    report = verified(module, path)
    assert report
    cut = [case for case in report.cases if "lengths" in case.label]
    assert len(cut) == 4
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    planned = LSTMVerification(model, module).cases
    assert [case.label for case in planned] == [case.label for case in report.cases if case.kind != "sweep"]
    for case in planned:
        if "lengths" in case.feeds:
            lengths, (time, batch) = case.feeds["lengths"], case.feeds["input"].shape[:2]
            assert lengths.shape == (batch,)
            assert lengths.dtype == np.int32
            assert 1 <= lengths.min() < time
            assert lengths.max() <= time


def test_the_sweep_has_several_sizes_of_both_axes_and_states_that_are_not_zero() -> None:
    assert len({batch for batch, _ in SHAPES}) > 2
    assert len({time for _, time in SHAPES}) > 2
    drawn = lstm_cases(lstm_onnx.LSTMSpec(5, 8), lengths=True)
    with_states = [(case.feeds["h0"], case.feeds["c0"]) for case in drawn if case.feeds.keys() & {"h0", "c0"}]
    assert 0 < len(with_states) < len(drawn)
    assert all(np.abs(state).min() > 0 for states in with_states for state in states)


def test_the_same_seed_draws_the_same_and_another_does_not(right: tuple[Path, ParityReport]) -> None:
    path, report = right
    reports = (report, *(verified(lstm(), path, seed=seed) for seed in (0, 2)))
    first, again, other = ({**each.to_dict(), "seconds": 0, "date": ""} for each in reports)
    assert first == again
    assert first != other


def test_to_dict_is_json(right: tuple[Path, ParityReport]) -> None:
    path, report = right
    table = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert table["passed"] is True
    assert table["file"] == str(path)
    assert table["provider"] == "cpu"
    assert table["limit"] == K
    assert table["notes"] == []
    assert set(table["outputs"]) == {"output", "hn", "cn"}
    assert all(values["ratio"] <= K and values["case"] for values in table["outputs"].values())
    # the long one; absent states; streams; sweeps
    assert len(table["cases"]) == len(SHAPES) + 1 + 2 + 3 + 3 * len(VALUES) - len(BESIDE_OTHERS) + 3
    for case in table["cases"]:
        assert case["passed"] is True
        assert case["inconclusive"] is False
        assert case["error"] is None
        assert set(case["outputs"]) == {"output", "hn", "cn"}


def test_nan_fails_and_is_json_all_the_same(tmp_path: Path) -> None:
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)

    def poison(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.output[:] = ["right" if value == "hn" else value for value in node.output]
        zero = onnx.helper.make_node("Sub", ["right", "right"], ["zero"], name="zero")
        model.graph.node.extend([zero, onnx.helper.make_node("Div", ["zero", "zero"], ["hn"], name="nan")])

    edit_file(path, poison)
    report = verified(module, path)
    assert not report
    table = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert table["passed"] is False
    assert table["outputs"]["hn"]["ratio"] == "inf"
    assert "is not finite where PyTorch is" in str(report)


def test_str_names_the_output_that_fails(tmp_path: Path) -> None:
    module, path = lstm(num_layers=2), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    mutate_file(path, "final h of two layers exchanged")
    report = verified(module, path)
    assert not report
    assert "NOT in parity" in str(report)
    for kind, wrong in (("whole", {"hn"}), ("chunks", {"output", "hn", "cn"})):  # what is carried on spoils the rest
        cases = [case for case in report.cases if case.kind == kind]
        assert {tensor.output for case in cases for tensor in case.tensors if not tensor.passed} == wrong


def test_other_weights_fail_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    lstm_onnx.export(lstm(seed=1), path)
    report = verified(lstm(seed=2), path)
    assert not report
    assert any("digest" in note for note in report.notes)
    assert "note: the file was exported from other weights" in str(report)


def test_other_arguments_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    lstm_onnx.export(lstm(dropout=0.0, num_layers=2), path)
    report = verified(lstm(dropout=0.5, num_layers=2), path)
    assert report  # dropout does nothing here
    assert [note for note in report.notes if "other arguments" in note]
    assert not [note for note in report.notes if "digest" in note]


@pytest.mark.sweep(2)
@pytest.mark.parametrize("training", [True, False])
def test_the_module_is_not_changed(training: bool, tmp_path: Path) -> None:
    module, path = lstm(num_layers=2, dropout=0.5).train(training), tmp_path / "m.onnx"
    module.weight_hh_l0.requires_grad_(False)
    loss = module(torch.ones(3, 2, 5))[0].sum()
    loss.backward()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    assert gradients
    random = torch.get_rng_state()
    lstm_onnx.export(module, path)
    assert verified(module, path)
    assert module.training is training
    assert torch.equal(torch.get_rng_state(), random)
    assert {name: p.requires_grad for name, p in module.named_parameters() if not p.requires_grad} == {
        "weight_hh_l0": False
    }
    for name, parameter in module.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, before[name])
        if name in gradients:
            assert torch.equal(parameter.grad, gradients[name])


def test_a_file_of_other_sizes_fails_at_every_case(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    lstm_onnx.export(nn.LSTM(6, 8), path)
    report = verified(lstm(), path)
    assert not report
    assert all("axis 2 must be 6" in case.error for case in report.cases)
    assert "failed to run at batch 1, time 1" in str(report)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["cases"][0]["error"]


def _say_no_spec(model: onnx.ModelProto, states: dict[str, str]) -> None:
    """A file that does not claim to be a bare LSTM: one that does and lacks a state is refused when opened."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"lstm_onnx.states": json.dumps(states)})


def test_a_file_without_a_states_input_fails(tmp_path: Path) -> None:
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)

    def without_h0(model: onnx.ModelProto) -> None:
        held = [value for value in model.graph.input if value.name != "h0"]
        del model.graph.input[:]
        model.graph.input.extend(held)
        for node in model.graph.node:
            node.input[:] = ["" if value == "h0" else value for value in node.input]
        _say_no_spec(model, {"c0": "cn"})

    edit_file(path, without_h0)
    report = verified(module, path)
    assert not report
    failed = {case.label for case in report.cases if case.error}
    assert failed == {case.label for case in report.cases if ", states" in case.label or case.kind == "sweep"}
    assert all("h0 is not an input" in case.error for case in report.cases if case.error)


def test_a_file_without_an_output_fails(tmp_path: Path) -> None:
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)

    def without_cn(model: onnx.ModelProto) -> None:
        held = [value for value in model.graph.output if value.name != "cn"]
        del model.graph.output[:]
        model.graph.output.extend(held)
        _say_no_spec(model, {"h0": "hn"})

    edit_file(path, without_cn)
    report = verified(module, path)
    assert not report
    assert all(case.error for case in report.cases)
    with_states = [case for case in report.cases if case.label.endswith(", states")]
    assert with_states
    assert all("no output cn" in case.error for case in with_states)


def test_cases_come_one_by_one(tmp_path: Path) -> None:
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    assert next(LSTMVerification(model, module).results()).label == "batch 1, time 1, states"


@pytest.mark.sweep(2)
@pytest.mark.parametrize("arguments", [{}, {"proj_size": 3}])
def test_a_float16_file_is_judged_in_float16(arguments: dict[str, int], tmp_path: Path) -> None:
    module, path = lstm(**arguments).half(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    report = verified(module, path)
    assert report, str(report)
    assert max(tensor.error for _, tensor in report.worst.values()) > 1e-5  # float32 would not be this far off
    mutate_file(path, "gates f and c exchanged")
    assert not verified(module, path)


def test_a_projected_float64_file_is_judged_in_float64(tmp_path: Path) -> None:
    module, path = lstm(proj_size=3).double(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    report = verified(module, path)
    assert report, str(report)
    assert max(tensor.error for _, tensor in report.worst.values()) < 1e-13


def test_what_cannot_be_opened_raises(tmp_path: Path) -> None:
    module = lstm()
    with pytest.raises(FileError, match="No such file"):
        verified(module, tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ModelError, match="broken"):
        verified(module, broken)
    lstm_onnx.export(module, tmp_path / "m.onnx")
    with pytest.raises(ProviderError, match="tpu"):
        lstm_onnx.verify(module, tmp_path / "m.onnx", provider="tpu")
    with pytest.raises(ExportError, match=r"GRU is not an nn\.LSTM"):
        lstm_onnx.verify(nn.GRU(5, 8), tmp_path / "m.onnx")


def test_a_float16_file_that_transposes_before_a_matmul_opens(tmp_path: Path) -> None:
    """ONNX Runtime 1.31.1 crashes on it with all of its optimizers."""
    module, path = lstm(proj_size=3, batch_first=True).half(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path, projection="scan")
    assert verified(module, path)


def test_a_model_that_is_loaded_is_verified_as_it_is(tmp_path: Path) -> None:
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    report = lstm_onnx.verify(module, model, provider="auto")
    assert report
    assert report.provider == "cpu"
    assert not model.closed
    assert set(report.versions) == {"lstm-onnx", "torch", "onnxruntime", "onnx", "numpy", "python"}
    assert report.seconds > 0


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"provider": "gpu"}, ProviderError), ({"threads": 0}, InputError), ({"max_drift": -1.0}, ConfigError)],
)
def test_wrong_options_are_said_before_anything_is_read(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        lstm_onnx.verify(lstm(), "none.onnx", **wrong)
    with pytest.raises(error):
        lstm_onnx.verify_golden("none.onnx", "none.npz", **wrong)


def test_mutants_are_tried_at_the_level_asked_for(tmp_path: Path, right: tuple[Path, ParityReport]) -> None:
    assert right[1].mutants == ()
    module, path = lstm(num_layers=2), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    quick, every = (verified(module, path, mutants=level) for level in ("quick", "all"))
    assert len(quick.mutants) >= 12
    assert len(every.mutants) > len(quick.mutants)
    assert {mutant.outcome for mutant in every.mutants} == {"rejected"}
    assert quick
    assert every
    assert f"{len(every.mutants)} rejected" in str(every)
    with pytest.raises(ConfigError, match="mutants = 'some' is not known; it must be one of none, quick, all"):
        verified(module, path, mutants="some")


def test_a_survivor_is_no_pass(tmp_path: Path) -> None:
    """Where all cases are one step from zeros, half of the mistakes cannot be seen."""
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    verification = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), module)
    verification.cases = [
        Case("blind", {"input": np.ones((1, 1, 5), np.float32)}),
    ]
    verification.sweeps = []
    report = make_report(verification, verification.results())
    assert report.in_parity
    assert not report
    names = {mutant.name for mutant in report.survivors}
    assert {"initial h ignored", "initial c ignored", "run backwards", "R transposed"} <= names
    assert "gates f and c exchanged" not in names
    assert "R transposed" in str(report)
    assert report.to_dict()["passed"] is False
    assert report.to_dict()["in_parity"] is True


def test_the_users_own_inputs_are_compared_too(tmp_path: Path) -> None:
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    own = {"input": np.random.default_rng(0).standard_normal((30, 2, 5)).astype(np.float32)}
    report = verified(module, path, data=[own])
    assert report
    assert [case.label for case in report.cases if case.kind == "data"] == ["data 0"]


@pytest.mark.sweep(2)
@pytest.mark.parametrize("as_path", [False, True])
def test_a_configured_model_is_exported_and_compared(as_path: bool, tmp_path: Path) -> None:
    """`verify` takes what the command line takes, and exports a file where there is none."""
    source = tmp_path / "net.toml"
    source.write_text("[lstm]\ninput_size = 5\nhidden_size = 4\n[weights]\nseed = 1\n")
    report = lstm_onnx.verify(source if as_path else str(source), provider="cpu", threads=1, mutants="none")
    assert report
    assert (report.source, report.file) == (str(source), "a fresh export")
    assert lstm_onnx.verify(lstm(), provider="cpu", threads=1, mutants="none").file == "a fresh export"
    with pytest.raises(ConfigError, match="leave example_inputs out"):
        lstm_onnx.verify(source, example_inputs=1)


def test_each_precision_and_provider_has_a_report(tmp_path: Path) -> None:
    source = tmp_path / "net.toml"
    source.write_text("[lstm]\ninput_size = 5\nhidden_size = 4\n[weights]\nseed = 1\n")
    options = {"providers": ("cpu", "auto"), "precisions": ("float16", "float32"), "mutants": "none", "threads": 1}
    done = verify_all(source, command="lstm-onnx verify", **options)
    assert [one.report.file for one in done] == [
        f"a fresh export in {precision}" for precision in ("float16", "float16", "float32", "float32")
    ]
    assert all(one.report for one in done)
    assert {one.report.command for one in done} == {"lstm-onnx verify"}
    assert [len(one.golden.cases) > 0 for one in done] == [True] * 4
    with pytest.raises(ConfigError, match="precisions are for fresh exports"):
        verify_all(source, tmp_path / "net.onnx", precisions=("float16",))
    with pytest.raises(ConfigError, match=r"precisions are for configured models; .* precision="):
        verify_all(lstm(), precisions=("float16",))

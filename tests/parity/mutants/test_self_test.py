"""The self-test rejects what is wrong, and says what it would have let pass."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import lstm_onnx
from lstm_onnx import ConfigError
from lstm_onnx.parity.cases import Case
from lstm_onnx.parity.lstm.verification import LSTMVerification
from lstm_onnx.parity.mutants.catalogue import MUTATORS
from lstm_onnx.parity.mutants.self_test import LEVELS, self_test

from ..files import lstm
from .bases import BASES, base, verification

pytestmark = pytest.mark.sweep(5)


@pytest.mark.sweep(12)
@pytest.mark.parametrize("scale", [1.0, 0.01])
@pytest.mark.parametrize("name", BASES)
def test_every_mutant_of_every_base_is_rejected(name: str, scale: float) -> None:
    done = verification(name, scale)
    results = list(self_test(done.model, done.expected, "all", amplified=done.amplified))
    assert len(results) > 12
    assert {result.outcome for result in results} == {"rejected"}
    assert all(result.ratio > 32 and result.case for result in results)


def test_the_levels_are_those_of_the_command_line() -> None:
    from lstm_onnx.cli.verify import verify

    option = next(option for option in verify.params if option.name == "mutants")
    assert tuple(option.type.choices) == LEVELS


def test_none_tries_none_and_no_other_level_is_known() -> None:
    done = verification("plain")
    assert list(self_test(done.model, done.expected, "none")) == []
    with pytest.raises(ConfigError, match="mutants = 'few' is not known"):
        list(self_test(done.model, done.expected, "few"))


def test_a_quick_one_tries_each_kind_once_and_goes_through_the_layers() -> None:
    done = verification("stacked")
    results = list(self_test(done.model, done.expected))
    kinds = [result.name.split(", l")[0] for result in results]
    assert len(set(kinds)) == len(kinds)
    assert set(kinds) <= {mutator.name for mutator in MUTATORS if mutator.quick}
    assert {result.name[-8:] for result in results} >= {" l0/LSTM", " l1/LSTM"}
    by_seed = [[r.name for r in self_test(done.model, done.expected, seed=seed)] for seed in (0, 0, 1)]
    assert by_seed[0] == by_seed[1] != by_seed[2]


def test_all_tries_every_layer() -> None:
    done = verification("stacked")
    names = [result.name for result in self_test(done.model, done.expected, "all")]
    assert {"R transposed, l0/LSTM", "R transposed, l1/LSTM"} <= set(names)
    assert sum("batch baked in" in name for name in names) == 1


def _blind(module: object, path: Path, case: Case) -> LSTMVerification:
    done = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), module)
    done.cases = [case]
    done.sweeps = []
    assert all(result.passed for result in done.results())
    return done


def _ones(batch: int, time: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((time, batch, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("case", "seen", "unseen"),
    [
        (Case("one step", {"input": _ones(3, 1)}), "gates i and o exchanged", "run backwards"),
        (Case("no states", {"input": _ones(3, 7)}), "run backwards", "initial c ignored"),
        (Case("one size", {"input": _ones(3, 7)}), "R transposed", "batch baked in"),
    ],
)
def test_what_a_blind_comparison_does_not_see_is_said(case: Case, seen: str, unseen: str, tmp_path: Path) -> None:
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    done = _blind(module, path, case)
    outcomes = {result.name: result for result in self_test(done.model, done.expected, "all")}
    assert outcomes[seen].outcome == "rejected"
    assert outcomes[unseen].outcome == "survived"
    assert outcomes[unseen].ratio < 1
    assert outcomes[unseen].case == case.label
    assert "streams' states mispaired" not in outcomes  # there is no case that carries states


def test_what_is_proven_is_not_run(tmp_path: Path) -> None:
    module, path = lstm(bias=False), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    done = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), module)
    assert all(result.passed for result in done.results())
    assert not any("bias" in result.name for result in self_test(done.model, done.expected, "all"))
    zero = lstm()
    zero.bias_hh_l0.data.zero_()
    lstm_onnx.export(zero, path)
    done = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), zero)
    assert all(result.passed for result in done.results())
    results = {result.name: result for result in self_test(done.model, done.expected, "all")}
    assert results["recurrent bias dropped"].outcome == "equivalent"
    assert results["recurrent bias dropped"].reason == "that bias is zeros"
    assert results["input bias dropped"].outcome == "rejected"


def test_a_model_with_external_data_and_one_behind_a_link(tmp_path: Path) -> None:
    made = base("plain")
    folder = tmp_path / "held"
    folder.mkdir()
    graph = onnx.load(made.path)
    onnx.save(graph, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=100)
    assert (folder / "m.data").stat().st_size > 0
    link = tmp_path / "link.onnx"
    link.symlink_to(folder / "m.onnx")
    for path in (folder / "m.onnx", link):
        report = lstm_onnx.verify(made.module, path, provider="cpu", threads=1, mutants="all")
        assert report, str(report)
        assert {mutant.outcome for mutant in report.mutants} == {"rejected"}


def test_states_that_the_caller_named_are_kept(tmp_path: Path) -> None:
    """A file of somebody else's, which does not say how its states are paired."""
    made = base("plain")
    graph = onnx.load(made.path)
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "m.onnx")
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", threads=1, states={"h0": "hn", "c0": "cn"})
    report = lstm_onnx.verify(made.module, model, mutants="all")
    assert report, str(report)
    assert {case.kind for case in report.cases} == {"whole", "chunks", "pool", "values", "sweep"}
    assert len(report.mutants) > 12


def test_a_mutant_that_does_not_open_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    from lstm_onnx import ModelError

    def refuse(*_: object) -> None:
        raise ModelError("no")

    # The package has a function of the module's name.
    monkeypatch.setattr(sys.modules[self_test.__module__], "opened", refuse)
    done = verification("plain")
    results = list(self_test(done.model, done.expected))
    assert {(result.outcome, result.case) for result in results} == {("rejected", "opening it")}


@pytest.mark.parametrize("threads", [1, 2, None])
def test_copies_are_what_is_run_in_pools_too(threads: int | None) -> None:
    """A pool on several threads opens its model's file again, which is the right one."""
    made = base("plain")
    model = lstm_onnx.load(made.path, provider="cpu", threads=threads)
    done = LSTMVerification(model, made.module)
    assert all(result.passed for result in done.results())
    pooled = [case for case in done.expected if case.kind == "pool"]
    assert len(pooled) == 1
    results = {result.name: result for result in self_test(model, pooled, "all")}
    assert results["R transposed"].outcome == "rejected"
    assert results["streams' states mispaired"].outcome == "rejected"
    assert results["batch baked in"].outcome == "rejected"

"""``lstm-onnx verify``: what is compared, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from lstm_onnx.parity.mutants.catalogue import MUTATORS
from lstm_onnx.parity.mutants.self_test import mutated

from .conftest import Done

Run = Callable[..., Done]


@pytest.fixture
def source(toml: Callable[..., Path]) -> str:
    return toml().name


def _mutate(path: Path, name: str) -> None:
    mutator = next(mutator for mutator in MUTATORS if mutator.name == name)
    outcome, wrong = mutated(onnx.load(path), mutator)
    assert outcome.applied
    onnx.save(wrong, path)


def _table(done: Done) -> Any:
    result = json.loads(done.out)
    return result.get("reports", result)


def test_a_right_file(run_cli: Run, source: str) -> None:
    assert run_cli("export", source, "-o", "m.onnx").code == 0
    done = run_cli("verify", source, "m.onnx", "--threads", 1)
    assert done.code == 0, done.out
    assert "m.onnx: in parity with PyTorch, net.toml" in done.out
    assert "rejected" in done.out
    assert done.err == ""


def test_a_wrong_file_is_said_where_and_why(run_cli: Run, source: str, tmp_path: Path) -> None:
    run_cli("export", source, "-o", "m.onnx")
    _mutate(tmp_path / "m.onnx", "gates f and c exchanged")
    done = run_cli("verify", source, "m.onnx")
    assert done.code == 1
    assert "NOT in parity" in done.out
    assert "layer 0" in done.out
    assert "gate order: i,g,f,o" in done.out
    table = _table(run_cli("verify", source, "m.onnx", "--json"))
    assert table["passed"] is False
    assert table["location"]["layer"] == 0
    assert [cause["name"] for cause in table["causes"]] == ["gate order: i,g,f,o"]
    assert table["mutants"] == []
    assert table["command"] == f"lstm-onnx verify {source} m.onnx --json"


@pytest.mark.parametrize(("level", "least", "most"), [("none", 0, 0), ("quick", 12, 25), ("all", 20, 60)])
def test_mutants(run_cli: Run, source: str, level: str, least: int, most: int) -> None:
    done = run_cli("verify", source, "--mutants", level, "--json")
    assert done.code == 0
    table = _table(done)
    assert least <= len(table["mutants"]) <= most
    assert {mutant["outcome"] for mutant in table["mutants"]} <= {"rejected"}
    assert table["file"] == "a fresh export"


def test_quick_mutants_are_the_default(run_cli: Run, source: str) -> None:
    plain, quick = (_table(run_cli("verify", source, *more, "--json")) for more in ([], ["--mutants", "quick"]))
    assert [mutant["name"] for mutant in plain["mutants"]] == [mutant["name"] for mutant in quick["mutants"]]


def test_a_survivor_fails(run_cli: Run, toml: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bidirectional model has no streams, so that without explicit states nothing starts from any."""
    from lstm_onnx.parity.lstm import cases as sweep

    source = toml(bidirectional=True).name

    real = sweep.draw_case

    def without_states(*args: Any, **keywords: Any) -> Any:
        case = real(*args, **keywords)
        return sweep.Case(case.label, {name: case.feeds[name] for name in case.feeds.keys() - {"h0", "c0"}})

    monkeypatch.setattr(sweep, "draw_case", without_states)
    monkeypatch.setattr("lstm_onnx.parity.lstm.verification.lstm_value_cases", lambda *_, **__: [])
    monkeypatch.setattr("lstm_onnx.parity.lstm.verification.LSTMVerification._sweeps", lambda *_: [])
    done = run_cli("verify", source, "--json")
    assert done.code == 1
    table = _table(done)
    assert table["in_parity"] is True
    assert table["passed"] is False
    survived = {mutant["name"] for mutant in table["mutants"] if mutant["outcome"] == "survived"}
    assert survived == {"initial h ignored", "initial c ignored", "initial h and c exchanged"}


def test_precisions_and_providers_are_reports_of_their_own(run_cli: Run, toml: Callable[..., Path]) -> None:
    source = toml(hidden_size=40, proj_size=30).name
    arguments = ["--precision", "int8", "--precision", "float64", "--provider", "cpu", "--provider", "auto"]
    done = run_cli("verify", source, *arguments, "--json", "--mutants", "none")
    assert done.code == 0, done.out
    tables = _table(done)
    files = [table["file"] for table in tables]
    assert files == ["a fresh export in int8"] * 2 + ["a fresh export in float64"] * 2
    assert all(table["provider"] in ("cpu", "cuda") for table in tables)
    assert [table["precision"] for table in tables] == ["int8", "int8", "", ""]
    largest = [max(values["error"] for values in table["outputs"].values()) for table in tables]
    assert largest[0] > 1e-12 > largest[2]
    done = run_cli("verify", source, *arguments[2:], "--mutants", "none")
    assert done.out.count("in parity with PyTorch") == 2


def test_one_report_of_several_that_fails_fails_them_all(
    run_cli: Run, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lstm_onnx.parity import criterion

    arguments = ["--precision", "float32", "--precision", "float16", "--mutants", "none", "--json"]
    monkeypatch.setattr(criterion, "K", 1e-3)
    done = run_cli("verify", source, *arguments)
    assert done.code == 1
    assert [table["passed"] for table in _table(done)] == [False, False]


def test_the_seed_draws_the_inputs(run_cli: Run, source: str) -> None:
    one, same, other = (
        _table(run_cli("verify", source, "--json", "--mutants", "none", "--seed", seed)) for seed in (1, 1, 2)
    )
    errors = [[case["outputs"] for case in table["cases"]] for table in (one, same, other)]
    assert errors[0] == errors[1] != errors[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["net.toml", "m.onnx", "--precision", "float16"], "--precision is for fresh exports, but m.onnx was given"),
        (["net.toml", "none.onnx"], "none.onnx"),
        (["net.toml", "--precision", "int4"], "int4"),
        (["net.toml", "--max-drift", "-1"], "--max-drift"),
        (["net.toml", "--mutants", "some"], "some"),
        (["net.toml", "--provider", "tpu"], "tpu"),
        (["net.toml", "--seed", "-1"], "--seed"),
        (["m.onnx"], "put the SOURCE to compare it with before it"),
    ],
)
def test_what_cannot_be_meant_is_one_line(run_cli: Run, source: str, arguments: list[str], words: str) -> None:
    run_cli("export", source, "-o", "m.onnx")
    done = run_cli("verify", *arguments)
    assert done.code == 2
    assert done.out == ""
    assert words in done.err
    assert "Traceback" not in done.err


def test_lengths_that_the_source_asks_for_and_the_file_lacks(run_cli: Run, toml: Callable[..., Path]) -> None:
    plain = toml().name
    run_cli("export", plain, "-o", "m.onnx")
    asking = toml(export="lengths = true").name
    done = run_cli("verify", asking, "m.onnx")
    assert done.code == 1
    assert "asks for the input lengths, but the file has none" in done.out

"""`lstm-onnx verify` with --data: the user's own inputs are compared as well."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import MODELS, Done

pytestmark = pytest.mark.sweep(6)

Run = Callable[..., Done]
QUICK = ("--provider", "cpu", "--mutants", "none", "--json")


@pytest.fixture
def source(toml: Callable[..., Path]) -> str:
    return str(toml(export="lengths = true"))


def _lines(*times: int, width: int = 4) -> str:
    rng = np.random.default_rng(0)
    return "".join(json.dumps({"input": rng.standard_normal((time, width)).tolist()}) + "\n" for time in times)


def _own(done: Done) -> list[dict[str, Any]]:
    return [case for case in json.loads(done.out)["cases"] if case["kind"] == "data"]


def test_each_record_is_a_case(run_cli: Run, source: str) -> None:
    Path("x.jsonl").write_text(_lines(3, 30, 1))
    done = run_cli("verify", source, "--data", "x.jsonl", *QUICK)
    assert done.code == 0, done.err
    assert [case["case"] for case in _own(done)] == ["data 0", "data 1", "data 2"]
    assert json.loads(done.out)["notes"] == []


def test_stdin_is_read_once_for_several_files(run_cli: Run, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(_lines(4, 2).encode())

    monkeypatch.setattr(sys, "stdin", Stdin)
    two = ("--precision", "float32", "--precision", "float16")
    done = run_cli("verify", source, "--data", "-", *two, *QUICK)
    assert done.code == 0, done.err
    for report in json.loads(done.out)["reports"]:
        cases = [case["case"].removeprefix("in float32: ") for case in report["cases"] if case["kind"] == "data"]
        assert cases == ["data 0", "data 1"]


def test_a_table_by_its_columns(run_cli: Run, source: str) -> None:
    Path("x.csv").write_text("t,a,b,c,d\n1,2,3,4,5\n2,3,4,5,6\n")
    done = run_cli("verify", source, "--data", "x.csv", *QUICK)
    assert done.code == 2
    assert "choose the features among a table's columns with --columns" in done.err
    done = run_cli("verify", source, "--data", "x.csv", "--columns", "d, c,b,a", *QUICK)
    assert done.code == 0, done.err
    assert len(_own(done)) == 1


def test_a_modules_tokens(run_cli: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", tokens=np.arange(40).reshape(2, 20))
    done = run_cli("verify", MODELS / "charlm.toml", "--data", "x.npz", *QUICK)
    assert done.code == 0, done.err
    assert [case["passed"] for case in _own(done)] == [True]
    np.savez(tmp_path / "x.npz", tokens=np.full((2, 20), 1000))
    done = run_cli("verify", MODELS / "charlm.toml", "--data", "x.npz", *QUICK)
    assert done.code == 2
    assert "data 0: the module itself fails on it" in done.err


def test_what_is_left_out_and_what_is_odd_is_noted(run_cli: Run, source: str) -> None:
    Path("x.jsonl").write_text(_lines(*([2] * 65)))
    done = run_cli("verify", source, "--data", "x.jsonl", *QUICK)
    assert done.code == 0, done.err
    assert len(_own(done)) == 64
    assert json.loads(done.out)["notes"] == ["of x.jsonl only the first 64 records were compared"]
    Path("x.jsonl").write_text('{"input": [[1, 2, 3, NaN], [1, 2, 3, 4]]}\n')
    done = run_cli("verify", source, "--data", "x.jsonl", "--provider", "cpu", "--mutants", "none")
    assert done.code == 1
    assert (
        "note: input contains NaN or infinity; where PyTorch's LSTM gives NaN, ONNX Runtime's may give numbers"
        in done.out
    )


def test_data_are_stored_in_a_golden_file_too(run_cli: Run, source: str) -> None:
    Path("x.jsonl").write_text(_lines(5))
    assert run_cli("export", source, "-o", "m.onnx").code == 0
    assert run_cli("verify", source, "m.onnx", "--data", "x.jsonl", "--golden", "m.npz", *QUICK).code == 0
    done = run_cli("verify", "m.onnx", "--golden", "m.npz", "--provider", "cpu", "--json")
    assert done.code == 0
    assert [case["case"] for case in _own(done)] == ["data 0"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.csv", None, "none.csv: No such file"),
        ("x.txt", "1,2", "the suffix .txt is unknown"),
        ("x.csv", "a,b,three,d\n1,2,3,4\n1,2,x,4\n", "x.csv: line 3, column 3 (three): 'x' is not a number"),
        ("x.jsonl", '{"input": [[1, 2, 3, 4]]}\n{"input": [[1]]}\n', "x.jsonl: line 2: input has shape"),
        ("x.jsonl", '{"x": [[1, 2, 3, 4]]}\n', "x.jsonl: x is not an input of the model; its inputs are input"),
        ("x.jsonl", '{"input": [[[1, 2, 3, 4]]], "lengths": [2]}\n', "lengths[0] is 2; it must be from 1 to time, 1"),
    ],
)
def test_what_is_wrong_with_the_data_is_one_line(
    run_cli: Run, source: str, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        Path(name).write_text(text)
    done = run_cli("verify", source, "--data", name, *QUICK)
    assert done.code == 2
    assert done.out == ""
    assert message in done.err
    assert done.err.count("\n") == 1

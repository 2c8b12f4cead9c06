"""``lstm-onnx bench``: options, errors, what it prints and writes."""

from __future__ import annotations

import json

import pytest

from lstm_onnx.bench.sizes import CASES, DEFAULT_ROUNDS, DEFAULT_SECONDS, FURTHER_CASES
from lstm_onnx.cli import cli

from .conftest import MODELS

STEP = ("--case", "step", "--rounds", "3", "--threads", "1")


def test_a_run_prints_a_table_and_draws(run_cli, tmp_path):
    done = run_cli("bench", MODELS / "tutorial.toml", *STEP, "--case", "chunk", "--plot", "out.svg")
    assert done.code == 0, done.err
    for said in ("one step", "chunk of 16 steps", "InferenceSession.run", "PyTorch, mkldnn off", "times"):
        assert said in done.out
    assert done.err == "wrote out.svg\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.svg"]


def test_json(run_cli):
    done = run_cli("bench", MODELS / "tutorial.toml", *STEP, "--json", "--seed", "3", "--seconds", "1")
    assert done.code == 0, done.err
    told = json.loads(done.out, parse_constant=lambda name: pytest.fail(name))
    assert told["schema"] == 1
    (comparison,) = told["comparisons"]
    assert comparison["case"] == "step"
    assert comparison["rounds"] == 3
    assert {timing["candidate"] for timing in comparison["timings"]} >= {"InferenceSession.run", "lstm-onnx", "PyTorch"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none.toml",), "none.toml"),
        (("math:pi",), "callable"),
        (("net.toml", "--case", "stpe"), "'step'"),
        (("net.toml", "--rounds", "0"), "--rounds"),
        (("net.toml", "--seconds", "0"), "--seconds"),
        (("net.toml", "--threads", "0"), "--threads"),
        (("net.toml", "--plot", "out.pdf"), ".png or .svg"),
        (("net.toml", "--plot", "none/out.svg"), "none"),
        (("net.toml", "--hidden-sizes", "--threads", "2"), "without --threads; leave it out"),
        (("net.toml", "--hidden-sizes", "--case", "step"), "without --case; leave it out"),
        ((), "SOURCE"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_timed(run_cli, toml, monkeypatch, arguments, said):
    from lstm_onnx import bench

    toml()
    monkeypatch.setattr(bench, "compare", lambda *_, **__: pytest.fail("timed"))
    done = run_cli("bench", *arguments)
    assert (done.code, len(done.err.splitlines())) == (2, 1), done
    assert said in done.err


def test_the_help_has_the_defaults_of_the_package():
    options = {parameter.name: parameter for parameter in cli.commands["bench"].params}
    assert tuple(options["cases"].type.choices) == (*CASES, *FURTHER_CASES)
    for name, default in (("rounds", DEFAULT_ROUNDS), ("seconds", DEFAULT_SECONDS)):
        assert f"[default: {default:g}]" in options[name].help

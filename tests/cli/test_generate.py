"""``lstm-onnx generate``, a [generate] table, and the other commands on their files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import lstm_onnx
from lstm_onnx import ConfigError
from lstm_onnx.exporter.sources.config import load_config
from tests.generation import steps

from .conftest import Invoke


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> str:
    _, example, shapes, _ = steps.KINDS["language"]
    path = tmp_path_factory.mktemp("step") / "step.onnx"
    lstm_onnx.export(steps.module("language"), path, example_inputs=example, dynamic_shapes=shapes, states="explicit")
    return str(path)


def test_a_file_is_written_reported_checked_and_run(invoke: Invoke, step: str, tmp_path: Path) -> None:
    target = str(tmp_path / "g.onnx")
    options = ("--feed", "tokens=output", "--choose", "sample", "--top-k", "4", "--stop-token", "2", "--pad", "9")
    code, output = invoke("generate", step, "-o", target, *options, "--json")
    assert code == 0, output
    found = json.loads(output)
    assert found["generation"]["choose"] == "sample"
    assert found["inputs"][:3] == ["tokens", "noise", "temperature"]
    for command in ("inspect", "check"):
        code, output = invoke(command, target)
        assert code == 0, output
    tokens, noise = np.array([[1, 2]]), np.full((1, 6), 0.3, np.float32)
    np.savez(tmp_path / "x.npz", tokens=tokens, noise=noise, temperature=np.array(1, np.float32))
    code, output = invoke("run", target, str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz"))
    assert code == 0, output
    assert np.load(tmp_path / "y.npz")["generated"].shape[1] <= 6
    code, output = invoke("run", target, "--stream")
    assert code == 2
    assert "it makes its own inputs" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--feed", "tokens"), "'tokens' is not INPUT=OUTPUT"),
        (("--feed", "tokens=output", "--state", "a"), "'a' is not INPUT=OUTPUT"),
        (("--feed", "tokens=output", "--state", "a=b", "--state", "a=c"), "a was given twice; give it once"),
        (("--feed", "tokens=output", "--pad", "nan"), "pad = nan is not possible"),
        (("--feed", "text=output"), "text is not an input"),
        (("--feed", "tokens=output", "-o", "-"), "is not written to stdout"),
        (("--feed", "tokens=output", "-o", "m.toml"), "is not an ONNX file"),
        (("--feed", "tokens=output", "--top-k", "2"), 'top_k goes with choose = "sample"'),
    ],
)
def test_wrong_options(invoke: Invoke, step: str, options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    target = () if "-o" in options else ("-o", str(tmp_path / "g.onnx"))
    code, output = invoke("generate", step, *target, *options)
    assert code == 2
    assert message in output
    assert not list(tmp_path.iterdir())


def test_bench_compares_the_loop_with_its_step(invoke: Invoke) -> None:
    model = str(Path(__file__).parents[2] / "models" / "charlm_generate.toml")
    code, output = invoke("bench", model, "--rounds", "1", "--seconds", "0.1", "--threads", "1", "--json")
    assert code == 0, output
    assert '"generating 200 steps"' in output
    code, output = invoke("bench", model, "--case", "pool", "--rounds", "1", "--threads", "1")
    assert "repeats a step, but this case times single steps; leave out [generate] for it" in output


TABLES = """
[module]
factory = "file.py:make"
[inputs.tokens]
shape = ["batch", "time"]
dtype = "int64"
"""


def test_a_generate_table_is_read_and_makes_states_explicit(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(TABLES + '[generate]\ninput = "tokens"\noutput = "y"\nstop_token = [1, 2]\nstates = { h = "hn" }\n')
    config = load_config(path)
    assert config.options.states == "explicit"
    wanted = lstm_onnx.Generation("tokens", "y", stop_token=(1, 2), states={"h": "hn"})
    assert config.options.generation == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[generate]\ninput = "tokens"\n', "output is missing"),
        ('[generate]\ninput = "tokens"\noutput = "y"\nchoice = 1\n', "choice"),
        ('[generate]\ninput = "tokens"\noutput = "y"\nstop_token = -1\n', "stop_token = -1 is not possible"),
        ('[generate]\ninput = "tokens"\noutput = "y"\nstop_above = "a"\n', "stop_above = 'a' is not possible"),
        ('[generate]\ninput = "tokens"\noutput = "y"\npad = true\n', "pad = True is not possible"),
        ('[generate]\ninput = "tokens"\noutput = "y"\nstates = { h = 1 }\n', "states = "),
    ],
)
def test_a_wrong_generate_table(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(TABLES + text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_bare_lstm_has_no_generate_table(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text("[lstm]\ninput_size = 1\nhidden_size = 1\n[weights]\nseed = 0\n[generate]\n")
    with pytest.raises(ConfigError, match=r"\[generate\] goes with \[module\]"):
        load_config(path)

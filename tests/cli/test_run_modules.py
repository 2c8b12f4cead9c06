"""``lstm-onnx run`` on files that hold a whole module."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import lstm_onnx
from tests.module_files import module_file, with_initial
from tests.runtime.models import accumulator


def arrays(path):
    with np.load(path) as found:
        return dict(found)


def test_random_input_is_what_the_file_says_of_it(run_cli):
    path = module_file("packed_gru_and_lstm")
    done = run_cli("run", path, "--size", "batch=3", "--size", "time=4", "-o", "a.npz")
    assert (done.code, done.out) == (0, "")
    assert {name: array.shape for name, array in arrays("a.npz").items()} == {
        "output.0": (3, 4, 3),
        "output.1": (3, 3),
        "output.2": (3, 4),
    }
    assert run_cli("run", path, "--size", "batch=3", "--size", "time=4", "-o", "b.npz").code == 0
    assert run_cli("run", path, "--size", "batch=3", "--size", "time=4", "--seed", "1", "-o", "c.npz").code == 0
    first, again, other = (arrays(name)["output.0"] for name in ("a.npz", "b.npz", "c.npz"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_tokens_are_drawn_in_their_range_and_ten_steps_by_default(run_cli):
    done = run_cli("run", module_file("tutorial_tagger"), "--json")
    assert done.code == 0
    assert np.shape(json.loads(done.out)["output"]) == (10, 4)


def test_an_axis_that_is_none_names_those_that_are(run_cli):
    done = run_cli("run", module_file("packed_gru_and_lstm"), "--size", "words=3")
    assert done.code == 2
    assert "the model's named axes are batch, time" in done.err


@pytest.mark.parametrize("options", [["--stream"], ["--chunk", "3"], ["--chunk", "100"]])
def test_a_stream_equals_the_whole(run_cli, tmp_path, options):
    path = module_file("exogenous_forecaster", "explicit")
    rng = np.random.default_rng(0)
    state = rng.standard_normal(
        tuple(d if isinstance(d, int) else 2 for d in lstm_onnx.load(path, "cpu").inputs["lstm.h0"].shape)
    )
    feeds = {"series": rng.standard_normal((2, 7)), "drivers": rng.standard_normal((2, 7, 3)), "lstm.h0": state}
    np.savez(tmp_path / "x.npz", **{name: array.astype(np.float32) for name, array in feeds.items()})
    assert run_cli("run", path, "x.npz", "-o", "whole.npz").code == 0
    done = run_cli("run", path, "x.npz", *options, "-o", "chunks.npz")
    assert done.code == 0, done.err
    whole, chunks = arrays("whole.npz"), arrays("chunks.npz")
    assert set(chunks) == set(whole) == {"output", "lstm.hn", "lstm.cn"}
    for name, array in whole.items():
        np.testing.assert_allclose(chunks[name], array, rtol=0, atol=1e-6)


def test_random_input_streams_too(run_cli):
    path = module_file("policy")
    assert run_cli("run", path, "--size", "batch=2", "-o", "whole.npz").code == 0
    assert run_cli("run", path, "--size", "batch=2", "--chunk", "4", "-o", "chunks.npz").code == 0
    for name, array in arrays("whole.npz").items():
        np.testing.assert_allclose(arrays("chunks.npz")[name], array, rtol=0, atol=1e-6)


def test_each_record_starts_from_what_the_file_says(run_cli, tmp_path, monkeypatch):
    start = {"lstm.h0": np.ones((2, 1, 8), np.float32)}
    path = with_initial(tmp_path / "m.onnx", module_file("learned_start", "explicit"), start)
    x = np.random.default_rng(1).standard_normal((1, 4, 3)).round(3).astype(np.float32)
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"x": x.tolist()}) + "\n" for _ in range(2)))
    expected = lstm_onnx.load(path, "cpu").run({"x": x})["output"]
    for options in ([], ["--stream"]):
        done = run_cli("run", path, "x.jsonl", *options, "-o", "-")
        assert done.code == 0, done.err
        for line in done.out.splitlines():
            np.testing.assert_allclose(json.loads(line)["output"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "said"),
    [("packed_gru_and_lstm", "has no states to carry"), ("tutorial_tagger", "")],
)
def test_what_cannot_be_streamed_says_why_in_one_line(run_cli, name, said):
    done = run_cli("run", module_file(name), "--stream")
    assert done.code == (2 if said else 0)
    assert said in done.err
    assert done.err.count("\n") == bool(said)


def test_data_of_two_times_is_named(run_cli, tmp_path):
    np.savez(tmp_path / "x.npz", series=np.zeros((1, 4), np.float32), drivers=np.zeros((1, 6, 3), np.float32))
    done = run_cli("run", module_file("exogenous_forecaster", "explicit"), "x.npz", "--stream")
    assert done.code == 2
    assert "time is 6, but series has time = 4" in done.err


def test_nothing_of_torch_is_needed_to_run_a_module(run_cli, monkeypatch):
    path = module_file("policy")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run_cli("run", path).code == 0


def test_a_state_of_another_tools_file_is_named_with_state(run_cli, tmp_path):
    accumulator(tmp_path / "other.onnx")
    np.savez(tmp_path / "x.npz", x=np.ones((2, 3), np.float32), scale=np.array(2))
    assert "missing input: state" in run_cli("run", "other.onnx", "x.npz", "-o", "y.npz").err
    done = run_cli("run", "other.onnx", "x.npz", "--state", "state=stateN", "-o", "y.npz")
    assert done.code == 0, done.err
    assert arrays("y.npz")["y"].tolist() == [[2] * 3] * 2

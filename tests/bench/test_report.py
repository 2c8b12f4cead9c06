"""Reports of invented samples: tables, JSON and pictures."""

from __future__ import annotations

import dataclasses
import json
import math
import sys

import pytest

from lstm_onnx.bench import BenchmarkReport, Comparison, LeftOut, Machine
from lstm_onnx.bench.measure import Spread
from lstm_onnx.bench.plot import check_plot, write_plot
from lstm_onnx.bench.report import duration, speedup_text, timings_of
from lstm_onnx.errors import FileError, MissingDependencyError
from lstm_onnx.terminal_text import one_line

SAMPLES = {
    "InferenceSession.run": [2e-6, 4e-6, 2e-6],
    "lstm-onnx": [1e-6, 2e-6, 1.2e-6],
    "PyTorch": [2e-5, 3e-5, 3e-5],
}


def made() -> BenchmarkReport:
    timings = timings_of(SAMPLES, baseline="InferenceSession.run", lstm_onnx=["lstm-onnx"])
    comparison = Comparison(
        case="step",
        label="one step",
        batch=1,
        time=1,
        unit="step",
        baseline="InferenceSession.run",
        rounds=3,
        timings=timings,
        left_out={"PyTorch, packed": "not here"},
    )
    machine = Machine("a processor", "cpu", 2, (0, 1), "a system", {"Python": "3.14", "numpy": "2.4"})
    return BenchmarkReport(
        source="model.toml",
        machine=machine,
        comparisons=(comparison, dataclasses.replace(comparison, label="batch 8, 50 steps")),
        left_out=(LeftOut("pool of 64 streams", "is bidirectional"),),
        notes=("the machine was busy",),
    )


def test_timings():
    base, ours, torch = timings_of(SAMPLES, baseline="InferenceSession.run", lstm_onnx=["lstm-onnx"])
    assert base.ratio == Spread(1, 1, 1)
    assert ours.ratio.median == pytest.approx(0.5)
    assert ours.ratio.high == pytest.approx(0.55)
    assert ours.speedup == Spread(1, 1, 1)
    assert torch.speedup is not None
    assert torch.speedup.median == pytest.approx(20)  # of 20, 15 and 25
    assert (base.is_lstm_onnx, ours.is_lstm_onnx) == (False, True)
    assert torch.samples == tuple(SAMPLES["PyTorch"])


def test_timings_without_this_runtime():
    timings = timings_of({"a": [1.0], "b": [2.0]}, baseline="a", lstm_onnx=[])
    assert [timing.speedup for timing in timings] == [None, None]


@pytest.mark.parametrize(
    ("speedup", "text"),
    [
        (Spread(20, 17.5, 22.5), "20 [17.5, 22.5] times faster"),
        (Spread(1, 0.8, 1.25), "1 [0.8, 1.25] times faster"),
        (Spread(0.127, 0.125, 0.25), "7.87 [4, 8] times slower"),
    ],
)
def test_a_speedup_below_1_is_a_factor_of_being_slower(speedup, text):
    assert speedup_text(speedup) == text


def finite(value) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def test_json_round_trips_and_is_finite():
    told = made().to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == json.loads(json.dumps(told))
    assert finite(told)
    assert told["comparisons"][0]["timings"][1]["ratio"]["median"] == pytest.approx(0.5)


def test_the_text_has_everything_and_notes_come_first():
    text = str(made())
    assert text.startswith("note: the machine was busy\n")
    for said in (
        "model.toml on cpu, 2 threads, pinned to CPU 0, 1",
        "a processor; a system; Python 3.14, numpy 2.4",
        "0.5 [0.5, 0.55]",
        "20 [17.5, 22.5] times faster",
        "1.2 us",
        "PyTorch, packed: left out: not here",
        "pool of 64 streams: is bidirectional",
        "note: the machine was busy",
    ):
        assert said in text
    bare = dataclasses.replace(made(), comparisons=(), left_out=(), notes=())
    bare = dataclasses.replace(bare, machine=dataclasses.replace(bare.machine, threads=1, cores=()))
    assert "1 thread, not pinned" in str(bare)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.234e-6, "1.23 us"), (9.996e-4, "1000 us"), (2.5e-2, "25 ms"), (3, "3 s"), (4e-8, "0.04 us")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", ["a.svg", "a.png", "a.SVG"])
def test_a_plot_is_the_same_bytes(tmp_path, name):
    write_plot(made(), tmp_path / name)
    first = (tmp_path / name).read_bytes()
    assert first.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    write_plot(made(), tmp_path / f"again{name}")
    assert (tmp_path / f"again{name}").read_bytes() == first


def test_a_plot_names_cases_and_candidates(tmp_path):
    write_plot(made(), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    for said in ("one step, 3 rounds", "batch 8, 50 steps", "InferenceSession.run", "PyTorch", "a processor"):
        assert said in text


@pytest.mark.parametrize("name", ["$\\frac$.toml", "a\x1b[2J\n::error::$x$.toml", "n" * 100_000])
def test_a_plot_of_what_has_an_odd_name(tmp_path, name):
    write_plot(dataclasses.replace(made(), source=name), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "\x1b" not in text
    assert one_line(name, 100) in text


def test_a_plot_of_nothing(tmp_path):
    write_plot(dataclasses.replace(made(), comparisons=()), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "said"), [("a.pdf", ".png or .svg"), ("a", ".png"), ("none/a.svg", "none"), ("folder.svg", "directory")]
)
def test_what_cannot_be_a_plot_is_refused_at_once(tmp_path, name, said):
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(FileError, match=said):
        check_plot(tmp_path / name)


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"lstm-onnx\[plot\]"):
        check_plot(tmp_path / "a.svg")

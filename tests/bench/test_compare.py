"""Whole runs, as short as they can be: what is in them, never how fast."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from lstm_onnx.bench import Settings, compare
from lstm_onnx.errors import ConfigError
from lstm_onnx.exporter.module_options import ModuleOptions
from lstm_onnx.exporter.sources.source import LSTMSource, ModuleSource, load_source
from lstm_onnx.input_spec import InputSpec

pytestmark = pytest.mark.sweep(2)

MODELS = Path(__file__).parents[2] / "models"
SHORT = {"rounds": 2, "threads": 1, "provider": "cpu"}


class Tagger(nn.Module):
    def __init__(self, bidirectional=False):
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(6 if bidirectional else 3, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


class Held(Tagger):
    """Keeps its state, of a batch of 2, in an attribute."""

    def __init__(self):
        super().__init__()
        self.hidden = (torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))

    def forward(self, x):
        output, self.hidden = self.lstm(x, self.hidden)
        return self.head(output)


def module_source(module: nn.Module, states: str = "explicit") -> ModuleSource:
    return ModuleSource("module", module, (InputSpec("x", ("batch", "time", 4)),), ModuleOptions(states=states))


def names(comparison) -> list[str]:
    return [timing.candidate for timing in comparison.timings]


def test_a_bare_lstm_in_every_case_that_streams():
    source = load_source(str(MODELS / "tutorial.toml"))
    assert isinstance(source, LSTMSource)
    said: list[str] = []
    report = compare(source, Settings(("step", "chunk", "stream", "batch", "pool", "map"), **SHORT), say=said.append)
    found = {comparison.case: comparison for comparison in report.comparisons}
    assert list(found) == ["step", "chunk", "stream", "batch", "pool", "map"]
    assert report.left_out == ()
    assert not [note for note in report.notes if "busy" not in note]
    for case in ("step", "chunk", "batch"):
        assert names(found[case]) == ["InferenceSession.run", "lstm-onnx", "PyTorch", "PyTorch, mkldnn off"]
    assert names(found["stream"]) == [
        "InferenceSession.run, at once",
        "lstm-onnx stream, step by step",
        "ONNX Runtime's part, step by step",
        "lstm-onnx stream, chunks of 10 steps",
        "ONNX Runtime's part, chunks of 10 steps",
    ]
    cost = found["stream"].per_call
    assert cost is not None
    assert f"in ONNX Runtime whatever its length; the steps alone take {cost.compute.median:.3g} [" in str(report)
    assert names(found["pool"]) == [
        "InferenceSession.run, one at a time",
        "lstm-onnx pool",
        "lstm-onnx stream, one at a time",
        "PyTorch",
        "PyTorch, mkldnn off",
    ]
    assert names(found["map"]) == [
        "InferenceSession.run, padded batches of 32",
        "lstm-onnx map",
        "InferenceSession.run, one by one",
        "PyTorch, packed, batches of 32",
    ]
    for comparison in report.comparisons:
        assert comparison.rounds == 2
        assert comparison.left_out == {}
        assert all(len(timing.samples) == 2 and min(timing.samples) > 0 for timing in comparison.timings)
    assert report.machine.threads == 1
    assert {"numpy", "torch", "Python"} <= set(report.machine.versions)
    assert any("pool" in sentence for sentence in said)
    json.dumps(report.to_dict(), allow_nan=False)


class Samples(nn.Module):
    """A stride of 3 before a GRU."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 5, 3, stride=3)
        self.gru = nn.GRU(5, 3, batch_first=True)

    def forward(self, x):
        return self.gru(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]


def test_a_model_with_strides_is_timed_in_hops():
    report = compare(module_source(Samples()), Settings(("step", "stream", "batch", "pool"), **SHORT))
    assert [comparison.case for comparison in report.comparisons] == ["step", "stream", "batch", "pool"]
    notes = [note for note in report.notes if "busy" not in note]
    assert notes == ["a step stands for 3 steps of the input, which make one step of the output"]


def test_a_bidirectional_lstm_is_not_streamed_with_the_reason():
    source = load_source(str(MODELS / "bidirectional.toml"))
    report = compare(source, Settings(("step", "pool", "batch"), **SHORT))
    assert [comparison.case for comparison in report.comparisons] == ["batch"]
    assert [item.label for item in report.left_out] == ["one step", "pool of 64 streams"]
    for item in report.left_out:
        assert item.reason.startswith("is bidirectional")


def test_a_module_with_explicit_states():
    report = compare(module_source(Tagger()), Settings(("step", "batch", "pool", "map"), **SHORT))
    found = {comparison.case: comparison for comparison in report.comparisons}
    assert list(found) == ["step", "batch", "pool", "map"]
    assert names(found["step"]) == ["InferenceSession.run", "lstm-onnx", "PyTorch", "PyTorch, mkldnn off"]
    assert names(found["map"])[:2] == ["InferenceSession.run, one by one", "lstm-onnx map"]
    assert "PyTorch" in found["pool"].left_out
    assert report.left_out == ()
    assert not [note for note in report.notes if "busy" not in note]


def test_a_module_that_only_runs_at_its_own_batch_leaves_pytorch_out():
    module = Held()
    report = compare(module_source(module), Settings(("batch",), **SHORT))
    (comparison,) = report.comparisons
    assert names(comparison) == ["InferenceSession.run", "lstm-onnx"]
    assert list(comparison.left_out) == ["PyTorch", "PyTorch, mkldnn off"]
    assert not torch.any(module.hidden[0])  # the source's own module is as it was


def test_a_module_without_states_is_not_streamed():
    report = compare(module_source(Tagger(bidirectional=True), "zero"), Settings(("step", "batch"), **SHORT))
    assert [comparison.case for comparison in report.comparisons] == ["batch"]
    assert "no states" in report.left_out[0].reason


def test_all_settings_are_restored(monkeypatch):
    before = (torch.get_num_threads(), torch.backends.mkldnn.enabled, gc.isenabled(), torch.is_grad_enabled())
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    source = load_source(str(MODELS / "tutorial.toml"))
    compare(source, Settings(("step",), **SHORT))
    after = (torch.get_num_threads(), torch.backends.mkldnn.enabled, gc.isenabled(), torch.is_grad_enabled())
    assert after == before
    assert affinity is None or os.sched_getaffinity(0) == affinity


def test_without_torch_the_rest_is_timed(monkeypatch):
    from lstm_onnx.bench import pytorch
    from lstm_onnx.errors import MissingDependencyError

    def missing(why):
        raise MissingDependencyError(f"PyTorch is not installed, and {why}")

    source = load_source(str(MODELS / "tutorial.toml"))
    monkeypatch.setattr(pytorch, "import_torch", missing)
    (comparison,) = compare(source, Settings(("step",), **SHORT)).comparisons
    assert names(comparison) == ["InferenceSession.run", "lstm-onnx"]
    assert "not installed" in comparison.left_out["PyTorch"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cases": ("stpe",)}, "stpe"),
        ({"threads": 0}, "threads"),
        ({"rounds": 1.5}, "rounds"),
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
    ],
)
def test_settings_that_are_not_possible(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Settings(**wrong)

"""What LSTMs compute and read, and the inputs that are drawn for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lstm_onnx.bench.subject import Opened, Subject, Work
from lstm_onnx.errors import ConfigError
from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.exporter.sources.source import LSTMSource
from lstm_onnx.inspect import inspect
from lstm_onnx.spec import ExportOptions, LSTMSpec


def state_of(spec: LSTMSpec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in spec.parameter_shapes().items()}


def subject_of(tmp_path: Path, *, lengths: bool = False, **sizes) -> Subject:
    spec = LSTMSpec(**{"input_size": 4, "hidden_size": 3, **sizes})
    source = LSTMSource("net", spec, state_of(spec), ExportOptions(lengths=lengths))
    source.export(tmp_path / "m.onnx")
    opened = Opened.at(str(tmp_path / "m.onnx"), "cpu", 1)
    return Subject(source, opened, None, opened, None, None, "no torch", 0, 1)


@pytest.mark.parametrize("sizes", [{}, {"num_layers": 2, "bidirectional": True}, {"proj_size": 2}])
def test_work_of_a_file(tmp_path, sizes):
    spec = LSTMSpec(input_size=4, hidden_size=3, **sizes)
    export_lstm(spec, ExportOptions(), state_of(spec), tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    work = Work.of(found.lstms)
    assert work is not None
    assert work.flops == found.flops_per_step
    merged = 4 * 4 * spec.hidden_size if spec.proj_size else 0  # a Scan's two bias vectors are one
    assert work.weights == spec.num_bytes - merged
    recurrent = [name for name in spec.parameter_shapes() if "weight_h" in name]  # weight_hh and weight_hr
    assert work.recurrent == sum(4 * int(np.prod(spec.parameter_shapes()[name])) for name in recurrent)
    assert work.needed(steps=30, longest=10) == (30 * work.flops, work.weights + 9 * work.recurrent)


def test_work_that_is_not_known(tmp_path):
    spec = LSTMSpec(input_size=4, hidden_size=3)
    export_lstm(spec, ExportOptions(), state_of(spec), tmp_path / "m.onnx")
    info = inspect(tmp_path / "m.onnx").lstms[0]
    assert Work.of([]) is None
    assert Work.of([info, dataclasses.replace(info, flops_per_step=0)]) is None
    assert Work.of([dataclasses.replace(info, parameters=0)]) is None


def test_inputs_in_the_models_layout(tmp_path):
    subject = subject_of(tmp_path, batch_first=True)
    assert subject.feeds(2, 5)["input"].shape == (2, 5, 4)
    assert subject.batch_axis(subject.specs[0]) == 0
    assert subject.without_batch(subject.feeds(1, 5))["input"].shape == (5, 4)
    assert subject.dtype == "float32"
    assert np.array_equal(subject.feeds(2, 5)["input"], subject.feeds(2, 5)["input"])


def test_a_plain_session_is_given_states_and_whole_lengths(tmp_path):
    subject = subject_of(tmp_path, lengths=True)
    feeds = subject.feeds(2, 5)
    given = subject.session_feeds(subject.opened, feeds, {"h0": np.zeros((1, 2, 3)), "c0": np.ones((1, 2, 3))})
    assert given["lengths"].tolist() == [5, 5]
    assert given["lengths"].dtype == np.int32
    assert set(given) == {"input", "h0", "c0", "lengths"}


def test_an_axis_that_is_fixed_is_said():
    subject = Subject(None, None, None, None, None, None, "", 0, 1)  # type: ignore[arg-type]
    subject._require_axes(["batch", "time"], 8, 50)
    subject._require_axes([], 1, 1)
    subject._require_axes(["a", "b"], 8, 50)
    with pytest.raises(ConfigError, match="no open axis time"):
        subject._require_axes(["batch"], 8, 50)
    with pytest.raises(ConfigError, match="no open axis batch"):
        subject._require_axes(["time"], 8, 50)
    with pytest.raises(ConfigError, match="no open axis time"):
        subject._require_axes(["a"], 8, 50)

"""The random inputs of the benchmark's model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lstm_onnx.bench.opened import BenchmarkSubject, OpenedModel, axis_names, require_axes
from lstm_onnx.errors import ConfigError
from lstm_onnx.exporter.sources.source import LSTMSource
from lstm_onnx.spec import ExportOptions, LSTMSpec


def state_of(spec: LSTMSpec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in spec.parameter_shapes().items()}


def subject_of(tmp_path: Path, *, lengths: bool = False, **sizes) -> BenchmarkSubject:
    spec = LSTMSpec(**{"input_size": 4, "hidden_size": 3, **sizes})
    source = LSTMSource("net", spec, state_of(spec), ExportOptions(lengths=lengths))
    source.export(tmp_path / "m.onnx")
    opened = OpenedModel.at(str(tmp_path / "m.onnx"), "cpu", 1)
    return BenchmarkSubject(source, opened, None, opened, None, "no torch", 0, 1)


def test_inputs_in_the_models_layout(tmp_path):
    subject = subject_of(tmp_path, batch_first=True)
    assert subject.feeds(2, 5)["input"].shape == (2, 5, 4)
    assert subject.batch_axis(subject.specs[0]) == 0
    assert subject.without_batch(subject.feeds(1, 5))["input"].shape == (5, 4)
    assert subject.dtype == "float32"
    assert np.array_equal(subject.feeds(2, 5)["input"], subject.feeds(2, 5)["input"])


def test_a_plain_session_gets_states_and_full_lengths(tmp_path):
    subject = subject_of(tmp_path, lengths=True)
    feeds = subject.feeds(2, 5)
    given = subject.session_feeds(subject.opened, feeds, {"h0": np.zeros((1, 2, 3)), "c0": np.ones((1, 2, 3))})
    assert given["lengths"].tolist() == [5, 5]
    assert given["lengths"].dtype == np.int32
    assert set(given) == {"input", "h0", "c0", "lengths"}


@pytest.mark.parametrize(
    ("names", "roles", "found"),
    [
        (["batch", "time"], {}, {"batch": "batch", "time": "time"}),
        (["a", "b"], {}, {"batch": "a", "time": "b"}),
        (["time"], {}, {"time": "time"}),
        (["rows", "time"], {"rows": "batch", "time": "time"}, {"batch": "rows", "time": "time"}),
        (["frames", "rows"], {"rows": "batch", "frames": "time"}, {"batch": "rows", "time": "frames"}),
        ([], {}, {}),
    ],
)
def test_axes_are_known_by_name_by_role_or_by_order(names, roles, found):
    assert axis_names(names, roles) == found


def test_a_fixed_axis_is_an_error():
    require_axes({"batch": "a", "time": "b"}, 8, 50)
    require_axes({}, 1, 1)
    with pytest.raises(ConfigError, match="no dynamic axis time"):
        require_axes({"batch": "batch"}, 8, 50)
    with pytest.raises(ConfigError, match="no dynamic axis batch"):
        require_axes({"time": "time"}, 8, 50)

"""The limits of the machine, and what LSTMs compute and read."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from lstm_onnx.bench.report import Comparison
from lstm_onnx.bench.sizes import draw_lengths
from lstm_onnx.errors import RunError
from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.inspect import inspect
from lstm_onnx.runtime.pool.pinned_threads import allowed_cores
from lstm_onnx.spec import ExportOptions, LSTMSpec

from . import limits_child
from .limits import PeakMeter, Peaks, Work


def test_the_limit_is_the_slower_of_computing_and_reading():
    peaks = Peaks(gemm=100.0, read=5.0, read_weights=10.0, dtype="float32", cores=1)
    assert peaks.limit(flops=200, weight_bytes=10) == 2
    assert peaks.limit(flops=200, weight_bytes=40) == 4


def test_the_larger_of_two_measurements_counts():
    first, second = Peaks(3, 2, 9, "float32", 2), Peaks(4, 1, 8, "float32", 2)
    assert first.larger(second) == Peaks(4, 2, 9, "float32", 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_measured_on_a_core(dtype):
    with PeakMeter(allowed_cores()[:1], dtype) as meter:
        children = list(meter._children)
        peaks = meter.measure(1000, seconds=0.02)
        assert peaks.dtype == dtype
        assert peaks.cores == 1
        assert min(peaks.gemm, peaks.read, peaks.read_weights) > 1e6
    assert all(child.poll() is not None for child in children)


def test_a_process_that_ended_is_an_error():
    with PeakMeter(allowed_cores()[:1], pin=False) as meter:
        meter._children[0].kill()
        meter._children[0].wait()
        with pytest.raises(RunError, match="limits"):
            meter.measure(1000, seconds=0.02)


def test_rates_of_all_cores_are_added():
    meter = PeakMeter([0, 1])
    with meter:
        for child in meter._children:
            child.kill()
            child.communicate()
        script = "import sys\nfor line in sys.stdin: print(7.5, flush=True)"
        meter._children[:] = [
            subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) for _ in range(2)
        ]
        assert meter.measure(10) == Peaks(15, 15, 15, "float32", 2)


def test_the_best_sample_counts():
    assert limits_child.fastest(lambda: None, work=1.0, seconds=0.0) > 0
    assert limits_child.read(10, "float64", 0.0) > 0


def state_of(spec: LSTMSpec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in spec.parameter_shapes().items()}


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


def test_work_of_one_unit():
    work = Work(flops=10, weights=100, recurrent=40)
    step = Comparison("batch", "batch 2, 5 steps", 2, 5, "step", "a", 1, (), {})
    assert work.per_unit(step, 0) == (10, (100 + 4 * 40) / 10)
    sequences = dataclasses.replace(step, case="map", batch=7, time=0, unit="sequence")
    lengths = draw_lengths(7, 3)
    assert work.per_unit(sequences, 3) == (10 * sum(lengths) / 7, (100 + (max(lengths) - 1) * 40) / 7)

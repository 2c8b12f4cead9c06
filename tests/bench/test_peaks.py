"""The machine's limits, from processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lstm_onnx.bench import peak_child
from lstm_onnx.bench.measure import allowed_cores
from lstm_onnx.bench.peaks import PeakMeter, Peaks
from lstm_onnx.errors import RunError


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
    assert peak_child.fastest(lambda: None, work=1.0, seconds=0.0) > 0
    assert peak_child.read(10, "float64", 0.0) > 0

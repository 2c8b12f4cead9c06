"""Time per step against the hidden size: every candidate at every size, limits, and the plot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lstm_onnx.bench.hidden_sizes import FLOAT32, TORCH, HiddenSizes, compare_hidden_sizes, write_hidden_sizes_plot
from lstm_onnx.quantization.kernels import KERNELS

pytestmark = pytest.mark.sweep(3)


@pytest.fixture(scope="module")
def report() -> HiddenSizes:
    return compare_hidden_sizes(sizes=(8, 16), rounds=3)


def test_every_candidate_has_a_time_at_every_size(report: HiddenSizes):
    names = {FLOAT32, *(f"int8 {kernel}" for kernel in KERNELS)}
    assert set(report.seconds) - {TORCH} == names
    for times in report.seconds.values():
        assert list(times) == [8, 16]
        assert all(0 < seconds < 1 for seconds in times.values())
    assert report.weights == {8: 4 * 8 * 16, 16: 4 * 16 * 32}


def test_the_limits_are_bytes_by_bandwidth(report: HiddenSizes):
    assert report.bandwidth > 1e8
    assert report.limit(16, 4) == pytest.approx(4 * report.limit(16, 1))
    told = json.loads(json.dumps(report.to_dict()))
    assert told["limits"]["int8"]["16"] == report.weights[16] / report.bandwidth
    text = str(report)
    assert "H8" in text
    assert "with 1 layer, one sequence" in text
    assert "int8 weights at" in text


def test_the_plot_is_the_same_from_run_to_run(report: HiddenSizes, tmp_path: Path):
    for name in ("a.svg", "b.svg"):
        write_hidden_sizes_plot(report, tmp_path / name)
    content = (tmp_path / "a.svg").read_text()
    assert content == (tmp_path / "b.svg").read_text()
    for name in (*report.seconds, "int8 weights from memory", "hidden size", "with 1 layer:", ">1 us<"):
        assert name in content
    assert "mathdefault" not in content

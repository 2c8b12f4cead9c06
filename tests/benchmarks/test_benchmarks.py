"""Every benchmark once, as short as possible: what it measures, never how fast."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from lstm_onnx.bench import Settings, compare
from lstm_onnx.bench.opened import open_subject
from lstm_onnx.bench.sizes import CASES
from lstm_onnx.exporter.sources.source import load_source

from . import int8, pool_peak, streaming
from .limits import Peaks
from .memory import Memory, map_memory
from .servers import compare_servers
from .start import PLAIN, RUNTIME, start_times
from .sweep import GRID, limit_lines, work_of

pytestmark = pytest.mark.sweep(3)

TUTORIAL = str(Path(__file__).parents[2] / "models" / "tutorial.toml")


def test_start_is_measured_in_processes(tmp_path):
    times = start_times(tmp_path, rounds=1)
    assert list(times) == [PLAIN, RUNTIME]
    assert all(len(samples) == 1 and samples[0] > 0 for samples in times.values())


def test_memory_is_measured_in_processes(tmp_path):
    memory = map_memory(load_source(TUTORIAL), 512, tmp_path)
    assert memory.peak_bytes >= memory.base_bytes / 2 > 1e6
    assert memory.ahead_sequences >= 1
    assert memory.ahead_bytes > 0


def test_memory():
    memory = Memory(130_000_000, 70_000_000, 10_000_000, 20_000_000, 40)
    assert memory.working_set_bytes == 100_000_000
    assert memory.ratio == 1.3
    assert "peak 130.0 MB is 1.30 times the working set" in str(memory)


def test_servers(tmp_path):
    with open_subject(load_source(TUTORIAL), "cpu", 1, 0, tmp_path) as subject:
        comparison = compare_servers(subject, 4, rounds=2)
    assert [timing.candidate for timing in comparison.timings] == [
        "InferenceSession.run, one at a time",
        "lstm-onnx batcher, a thread per stream",
        "lstm-onnx batcher, 4 threads",
        "lstm-onnx batcher, asyncio",
    ]
    assert all(len(timing.samples) == 2 and min(timing.samples) > 0 for timing in comparison.timings)


@pytest.mark.slow
def test_streaming_is_compared_with_whole_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "SIZES", (1, 2))
    files = streaming.open_files(tmp_path)
    lines = streaming.compare_chunks(files, 0.1, 1)
    assert len(lines) == 8
    assert lines[0].startswith("any chunks: 10 chunks of 10 ms differ from the whole by at most ")
    error, speed = streaming.compare_pool(files.equal, 1, streams=3)
    assert error < 1e-6
    assert speed > 0


def test_int8_files_are_compared_with_their_float32_files(tmp_path, monkeypatch):
    monkeypatch.setitem(int8.MODULES, "small", lambda: nn.GRU(16, 24))
    monkeypatch.setattr(int8, "SHAPES", ((1, 1), (3, 2)))
    row = int8.measure("small", 1, tmp_path)
    assert len(row.shares) == 2
    assert min(row.shares) > 0
    assert 1e-4 < row.difference < 0.1
    assert str(row).count("|") == 6


def test_the_products_of_a_pools_step(tmp_path, monkeypatch):
    monkeypatch.setattr(pool_peak, "_SECONDS", 1e-4)
    multiply, flops = pool_peak.products(tmp_path, 1)
    shapes = [product.shape for product in multiply()]
    assert shapes == [(64, 1024)] * 4
    assert flops == 2 * 64 * 1024 * (80 + 3 * 256)
    assert pool_peak.rate(multiply, flops) > 0


def test_every_case_is_in_the_sweep_in_order():
    cases = [point.case for point in GRID]
    assert list(dict.fromkeys(cases)) == list(CASES)
    assert [CASES.index(case) for case in cases] == sorted(CASES.index(case) for case in cases)
    labels = [str(point) for point in GRID]
    assert len(labels) == len(set(labels))


def test_times_as_a_share_of_the_limits():
    source = load_source(TUTORIAL)
    settings = Settings(rounds=1, threads=1, provider="cpu")
    report = compare(source, settings, at=[point for point in GRID if point.case in ("chunk", "map")][-2:])
    assert [comparison.label for comparison in report.comparisons] == ["chunk of 64 steps", "map of 512 sequences"]
    work = work_of(source)
    assert work is not None
    lines = limit_lines(report, work, Peaks(1e9, 1e9, 1e9, "float32", 1), 0)
    assert len(lines) == 4 + 4
    assert all(line.endswith("%") and float(line.rpartition(" ")[2][:-1]) > 0 for line in lines)

"""A grid of sizes, with each time as a share of this machine's measured limits.

``python -m tests.benchmarks.sweep SOURCE [--case CASE] [--threads N] [--seconds S] [--seed N]``
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from lstm_onnx.bench import BenchmarkReport, Settings, compare
from lstm_onnx.bench.sizes import CASES, Point
from lstm_onnx.exporter.sources.source import Source, load_source
from lstm_onnx.inspect import inspect
from lstm_onnx.runtime.pool.pinned_threads import allowed_cores

from .limits import PeakMeter, Peaks, Work

GRID = (
    Point("step"),
    Point("step", 8),
    *(Point("chunk", 1, time) for time in (4, 16, 64)),
    Point("stream", 1, 100),
    *(Point("batch", batch, time) for batch in (1, 8, 32, 64) for time in (20, 100)),
    *(Point("pool", streams) for streams in (8, 64)),
    Point("map", 512, 0),
)
SECONDS, ROUNDS = 600.0, 31


def limit_lines(report: BenchmarkReport, work: Work, peaks: Peaks, seed: int) -> list[str]:
    """For each time, the least time that the machine allows as a percentage of it."""
    lines = []
    for comparison in report.comparisons:
        limit = peaks.limit(*work.per_unit(comparison, seed))
        lines += [
            f"{comparison.label}, {timing.candidate}: {100 * limit / timing.seconds.median:.2g}%"
            for timing in comparison.timings
        ]
    return lines


def work_of(source: Source) -> Work | None:
    """What a step of the model computes and reads."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        source.export(path, check=False)
        return Work.of(inspect(path).lstms)


def main() -> None:
    """Measure the limits before and after the comparison; the larger ones count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--case", choices=CASES, action="append", default=[])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = load_source(options.source)
    settings = Settings(
        provider="cpu", threads=options.threads, rounds=ROUNDS, seconds=options.seconds, seed=options.seed
    )
    work = work_of(source)
    weights = 0 if work is None else work.weights
    with PeakMeter(allowed_cores()[: options.threads]) as meter:
        before = meter.measure(weights)
        report = compare(source, settings, at=[point for point in GRID if point.case in (options.case or CASES)])
        peaks = before.larger(meter.measure(weights))
    print(report)
    if work is not None:
        print("\nshare of the machine's limits", *limit_lines(report, work, peaks, options.seed), sep="\n  ")


if __name__ == "__main__":
    main()

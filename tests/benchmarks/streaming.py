"""A voice-activity model in chunks against whole runs, and 200 streams in a pool against one at a time.

``python -m tests.benchmarks.streaming [--rounds N] [--seconds-of-sound N]``

All are seconds of CPU time of one thread, medians of rounds that take turns.  A call has a part that does not depend on
the length of its chunk (Python, the session, the dispatch of each node); it is found by a line through the times of
chunks of 1 to 64 hops, and reported by itself.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import lstm_onnx
from lstm_onnx.bench.stream_calls import inside
from lstm_onnx.exporter.sources.source import ModuleSource, load_source
from lstm_onnx.runtime import Model

VAD = Path(__file__).parents[2] / "models" / "vad.toml"
RATE, HOP = 16_000, 160
STREAMS = 200
SIZES = 1, 2, 4, 8, 16, 32, 64
"""Hops in a chunk, for the part of a call that does not depend on its length."""


@dataclass(frozen=True)
class Files:
    """The same model three times."""

    whole: Model
    stream: Model
    equal: Model
    """For chunks of multiples of `HOP`."""


def open_files(folder: Path) -> Files:
    """Export the voice-activity model in its three forms."""
    source = load_source(str(VAD))
    assert isinstance(source, ModuleSource)
    forms = {"whole": replace(source, states="zero"), "stream": source, "equal": source.with_options(chunk=HOP)}
    models = {}
    for name, form in forms.items():
        form.export(folder / f"{name}.onnx", check=False)
        models[name] = lstm_onnx.load(folder / f"{name}.onnx", "cpu", threads=1)
    return Files(**models)


def medians(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of CPU time of each call, in turns, after two calls that bind."""
    for call in (*calls.values(), *calls.values()):
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.process_time()
            call()
            times[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def in_chunks(model: Model, x: np.ndarray, steps: int = HOP) -> Callable[[], np.ndarray]:
    """A call that streams `x`, (1, samples)."""
    stream = model.stream()
    chunks = [np.ascontiguousarray(x[:, start : start + steps]) for start in range(0, x.shape[1], steps)]

    def run() -> np.ndarray:
        stream.reset()
        return np.concatenate([stream(chunk) for chunk in chunks], axis=1)

    return run


def per_call(model: Model, rounds: int) -> tuple[float, float, float]:
    """Seconds of a call without its steps, those of it in ONNX Runtime, and those of each hop.

    Lines through the times of several lengths.
    """
    x = np.random.default_rng(1).standard_normal((1, HOP * max(SIZES))).astype(np.float32) * 0.1
    calls = {}
    for size in SIZES:
        stream, chunk = model.stream(), np.ascontiguousarray(x[:, : size * HOP])
        for _ in range(3):
            stream(chunk)
        calls[str(size)] = lambda stream=stream, chunk=chunk: [stream(chunk) for _ in range(32)]
        [runs] = inside(stream, {"audio": chunk}, f"{size} inside", 32)
        calls[runs.name] = runs.run
    found = medians(calls, rounds)
    lines = []
    for suffix in ("", " inside"):
        times = np.array([found[f"{size}{suffix}"] for size in SIZES]) / 32
        lines.append(np.polyfit(SIZES, times, 1, w=1 / times))
    (slope, base), (_, own) = lines
    return float(base), float(own), float(slope)


def compare_chunks(files: Files, seconds: float, rounds: int) -> list[str]:
    """Chunks of 10 ms against one whole run, and against running one second of context for each chunk."""
    x = np.random.default_rng(0).standard_normal((1, int(seconds * RATE))).astype(np.float32) * 0.1
    context, count = x[:, :RATE], x.shape[1] // HOP
    lines = []
    for name, model in (("any chunks", files.stream), ("chunks of 160", files.equal)):
        streamed = in_chunks(model, x)
        whole = files.whole.run({"audio": x})["speech"]
        error = float(np.abs(streamed() - whole).max())
        found = medians(
            {
                "whole": lambda: files.whole.run({"audio": x}),
                "chunks": streamed,
                "recomputed": lambda: [files.whole.run({"audio": context}) for _ in range(10)],
            },
            rounds,
        )
        base, own, each = per_call(model, rounds)
        share, call = found["chunks"] / found["whole"], 1e6 * found["chunks"] / count
        slope, recomputed = count * each / found["whole"], count * found["recomputed"] / 10 / found["chunks"]
        lines += [
            f"{name}: {count} chunks of 10 ms differ from the whole by at most {error:.1e}",
            f"  CPU time of the steps alone: {slope:.2f} of the whole's",
            f"  a call whatever its length: {1e6 * (base - own):.1f} us in Python, {1e6 * own:.1f} us in ONNX Runtime",
            f"  both together: {share:.2f} of the whole's, {call:.1f} us a call",
            f"  one second run again for each chunk: {recomputed:.1f} times the time",
        ]
    return lines


def compare_pool(model: Model, rounds: int, streams: int = STREAMS) -> tuple[float, float]:
    """The largest difference of a pool's outputs from those of streams, and how many times as fast it is."""
    x = np.random.default_rng(2).standard_normal((streams, 8 * HOP)).astype(np.float32) * 0.1
    pool, alone = model.pool(streams), [model.stream() for _ in range(streams)]
    slots = [pool.open() for _ in range(streams)]
    error = 0.0
    for start in range(0, x.shape[1], HOP):
        chunk = x[:, start : start + HOP]
        rows = [stream(chunk[row : row + 1]) for row, stream in enumerate(alone)]
        error = max(error, float(np.abs(pool.step(slots, chunk) - np.concatenate(rows)).max()))
    chunk = np.ascontiguousarray(x[:, :HOP])
    each = [np.ascontiguousarray(chunk[row : row + 1]) for row in range(streams)]
    found = medians(
        {
            "pool": lambda: pool.step(slots, chunk),
            "alone": lambda: [stream(row) for stream, row in zip(alone, each, strict=True)],
        },
        rounds,
    )
    return error, found["alone"] / found["pool"]


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds-of-sound", type=float, default=1.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = open_files(Path(folder))
        for line in compare_chunks(files, args.seconds_of_sound, args.rounds):
            print(line)
        for name, model in (("any chunks", files.stream), ("chunks of 160", files.equal)):
            error, speed = compare_pool(model, args.rounds)
            print(f"{name}: a pool of {STREAMS} differs by {error:.1e}, {speed:.1f} times as fast as one at a time")


if __name__ == "__main__":
    main()

"""How long `lstm-onnx serve` takes to start, over a bare server with the same libraries, as a ratio in one run.

``python -m tests.benchmarks.serving_start FILE [ROUNDS]``
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds_to_first_line(arguments: list[str]) -> float:
    """From the start of a process to the first line that it prints."""
    began = time.perf_counter()
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        spent = time.perf_counter() - began
        process.kill()
    return spent


def compare(path: str, rounds: int = 9) -> float:
    """The ratio of the medians."""
    serve = ["lstm_onnx", "serve", path, "--port", "0", "--grpc-port", "0", "--provider", "cpu"]
    bare = ["tests.benchmarks.bare_server", path]
    times = [(seconds_to_first_line(serve), seconds_to_first_line(bare)) for _ in range(rounds)]
    return statistics.median(ours for ours, _ in times) / statistics.median(other for _, other in times)


if __name__ == "__main__":
    print(f"{compare(sys.argv[1], *map(int, sys.argv[2:3])):.2f}")

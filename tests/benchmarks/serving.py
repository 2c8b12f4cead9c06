"""`lstm-onnx serve` beside one InferenceSession per stream under the same server, as ratios in one run.

``python -m tests.benchmarks.serving [STREAMS] [SECONDS] [ROUNDS]``
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

FRAME_BYTES = 2 * 80 * 4
"""Two time steps of 10 ms."""


def export_module(path: Path) -> None:
    """A module with an LSTM of 80 inputs, 256 hidden units and 2 layers, and a head."""
    import torch

    import lstm_onnx

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(80, 256, 2, batch_first=True)
            self.head = torch.nn.Linear(256, 40)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0])

    torch.manual_seed(0)
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("time")
    example = (torch.zeros(2, 4, 80),)
    lstm_onnx.export(
        Net().eval(), path, example_inputs=example, dynamic_shapes={"x": {0: batch, 1: steps}}, states="explicit"
    )


@dataclass
class Running:
    """A server's process, its port, and the path of its websockets."""

    process: subprocess.Popen[str]
    port: int
    path: str

    def cpu(self) -> float:
        """CPU seconds since it started."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def running(arguments: list[str], path: str, *, as_json: bool) -> Iterator[Running]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        text = process.stdout.readline()
        port = int(json.loads(text)["http"].rpartition(":")[2]) if as_json else int(text)
        yield Running(process, port, path)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@dataclass
class Load:
    """What clients saw, and what it cost the server.

    Attributes:
        frames: answered frames per second.
        p50, p99: seconds of an answer.
        cpu: the server's CPU seconds for a frame.
        memory: bytes that the server grew by with the streams.
    """

    frames: float
    p50: float
    p99: float
    cpu: float
    memory: float


def load(server: Running, streams: int, active: int, seconds: float, interval: float = 0.0) -> Load:
    """Clients of `streams` streams, of which `active` send frames."""
    before = server.memory()
    arguments = [server.port, server.path, streams, active, seconds, interval, FRAME_BYTES]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.websocket_client", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "open\n"
        memory = server.memory() - before
        cpu = server.cpu()
        client.stdin.write("go\n")
        client.stdin.flush()
        times = json.loads(client.stdout.readline())
        cpu = server.cpu() - cpu
        client.stdin.write("end\n")
        client.stdin.flush()
    time.sleep(0.3)
    p50, p99 = np.quantile(times, [0.5, 0.99])
    return Load(len(times) / seconds, float(p50), float(p99), cpu / len(times), memory)


def compare(streams: int = 200, seconds: float = 5.0, rounds: int = 3) -> dict[str, float]:
    """Ratios of medians: ours over one session per stream; and one active stream over one alone."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "net.onnx"
        export_module(file)
        ours = [
            "lstm_onnx",
            "serve",
            str(file),
            "--port",
            "0",
            "--no-grpc",
            "--json",
            "--provider",
            "cpu",
            "--threads",
            "1",
        ]
        found: dict[str, list[Load]] = {name: [] for name in ("full", "full sessions", "paced", "paced sessions")}
        found |= {"alone": [], "among": []}
        with (
            running(ours, "/v2/models/net/stream", as_json=True) as served,
            running(["tests.benchmarks.session_server", str(file)], "/", as_json=False) as sessions,
        ):
            for _ in range(rounds):
                found["full"].append(load(served, streams, streams, seconds))
                found["full sessions"].append(load(sessions, streams, streams, seconds))
                found["paced"].append(load(served, streams, streams // 4, seconds, 0.02))
                found["paced sessions"].append(load(sessions, streams, streams // 4, seconds, 0.02))
                found["alone"].append(load(served, 1, 1, seconds))
                found["among"].append(load(served, streams, 1, seconds))

    def ratio(name: str, field: str, other: str) -> float:
        values = [statistics.median(getattr(item, field) for item in found[key]) for key in (name, other)]
        return values[0] / values[1]

    def first(name: str) -> float:
        return found[name][0].memory

    return {
        "full load: frames per second": ratio("full", "frames", "full sessions"),
        "full load: p50": ratio("full", "p50", "full sessions"),
        "full load: p99": ratio("full", "p99", "full sessions"),
        "full load: CPU seconds per frame": ratio("full", "cpu", "full sessions"),
        "20 ms frames of a quarter of the streams: p50": ratio("paced", "p50", "paced sessions"),
        "20 ms frames of a quarter of the streams: p99": ratio("paced", "p99", "paced sessions"),
        "20 ms frames of a quarter of the streams: CPU seconds per frame": ratio("paced", "cpu", "paced sessions"),
        "memory for the streams": first("full") / first("full sessions"),
        "one active stream among all open ones: p50, over one alone": ratio("among", "p50", "alone"),
    }


def main() -> None:
    """Print the ratios."""
    numbers = [int(sys.argv[1])] if len(sys.argv) > 1 else []
    for name, ratio in compare(*numbers, *map(float, sys.argv[2:3]), *map(int, sys.argv[3:4])).items():
        print(f"{name}: {ratio:.3g}")


if __name__ == "__main__":
    main()

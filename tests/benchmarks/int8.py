"""Times of int8 files as shares of the float32 files that they were made from, for the table in docs/int8.md.

``python -m tests.benchmarks.int8 [--rounds N] [NAME...]``: one thread, a stream of each file, runs in pairs, medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import nn

import lstm_onnx
from lstm_onnx.atomic_io import temporary_folder

SHAPES = ((1, 1), (1, 8), (100, 1), (100, 8))
"""(time, batch)"""
MODULES: dict[str, Callable[[], nn.Module]] = {
    "LSTM I64 H64": lambda: nn.LSTM(64, 64),
    "LSTM I256 H256": lambda: nn.LSTM(256, 256),
    "LSTM I512 H512 L2": lambda: nn.LSTM(512, 512, 2),
    "LSTM I1024 H1024 L2": lambda: nn.LSTM(1024, 1024, 2),
    "LSTM I512 H1024 P256": lambda: nn.LSTM(512, 1024, proj_size=256),
    "GRU I512 H512 L2": lambda: nn.GRU(512, 512, 2),
    "RNN I512 H512 L2": lambda: nn.RNN(512, 512, 2),
}


@dataclass(frozen=True)
class Row:
    """A module: how much smaller its int8 file is, how far off, and the shares of the time by (time, batch)."""

    name: str
    bytes: float
    difference: float
    shares: tuple[float, ...]

    def __str__(self) -> str:
        """A row of a Markdown table."""
        cells = [f"{self.bytes:.2f}", f"{self.difference:.1%}", *(f"{share:.2f}" for share in self.shares)]
        return f"| {self.name} | {' | '.join(cells)} |"


def measure(name: str, rounds: int, folder: Path) -> Row:
    """One module at every shape."""
    torch.manual_seed(0)
    module = MODULES[name]().eval()
    size, hidden = int(module.input_size), int(module.hidden_size)  # type: ignore[arg-type]
    example = None
    if not isinstance(module, nn.LSTM):
        example = (torch.zeros(5, 2, size), torch.zeros(int(module.num_layers), 2, hidden))  # type: ignore[arg-type]
    lstm_onnx.export(module, folder / "float32.onnx", example_inputs=example)
    result = lstm_onnx.quantize(folder / "float32.onnx", folder / "int8.onnx")
    shares = []
    with (
        lstm_onnx.load(folder / "float32.onnx", provider="cpu", threads=1) as exact,
        lstm_onnx.load(folder / "int8.onnx", provider="cpu", threads=1) as int8,
    ):
        for time, batch in SHAPES:
            feeds = {
                next(iter(exact.inputs)): np.random.default_rng(0).standard_normal((time, batch, size), np.float32)
            }
            runs = [partial(model.stream(batch=batch).run, feeds) for model in (exact, int8)]
            shares.append(share(runs, rounds if time > 1 else 10 * rounds))
    difference = next(iter(result.proof.differences.values()))
    return Row(name, result.num_bytes / result.source_bytes, difference, tuple(shares))


def share(runs: Sequence[Callable[[], object]], rounds: int) -> float:
    """The median time of the second as a share of the first's, in pairs after some runs to warm up."""
    times: list[list[float]] = [[], []]
    for index in range(rounds + 5):
        for run, taken in zip(runs, times, strict=True):
            began = perf_counter()
            run()
            if index >= 5:
                taken.append(perf_counter() - began)
    return median(times[1]) / median(times[0])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", default=list(MODULES), choices=[[], *MODULES], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    print("| | bytes | difference | T1 B1 | T1 B8 | T100 B1 | T100 B8 |\n| --- | --- | --- | --- | --- | --- | --- |")
    for name in arguments.names:
        with temporary_folder() as folder:
            print(measure(name, arguments.rounds, folder), flush=True)


if __name__ == "__main__":
    main()

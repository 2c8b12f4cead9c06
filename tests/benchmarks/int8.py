"""Times of int8 files as shares of the float32 files that they were made from.

``python -m tests.benchmarks.int8``: what an int8 file must reach, by kernel: steps, sequences, `map`, a pool, PyTorch's
own int8, size, load time and memory.  ``--shares [NAME...]``: the table in docs/int8.md.  One thread where nothing else
is said, a stream of each file, runs of all files by turns, medians.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
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
from lstm_onnx.bench.sizes import draw_lengths, random_sequence
from lstm_onnx.quantization.kernels import KERNELS
from lstm_onnx.runtime.cpu import cpu_flags, int8_instructions
from lstm_onnx.runtime.providers import open_session

from .processes import child

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


_LOOP = 8
"""Steps of one model in a row, of which the last is timed."""


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


def kernels_of(module: nn.Module) -> tuple[str, ...]:
    """The kernels that compute a module."""
    plain = isinstance(module, nn.LSTM) and not module.proj_size
    return KERNELS if plain else tuple(kernel for kernel in KERNELS if kernel != "DynamicQuantizeLSTM")


def write_files(module: nn.Module, folder: Path, *, lengths: bool = False) -> dict[str, Path]:
    """The float32 file of a module, by "float32", and an int8 file by each kernel."""
    example = None
    if not isinstance(module, nn.LSTM):
        size, hidden = int(module.input_size), int(module.hidden_size)  # type: ignore[arg-type]
        example = (torch.zeros(5, 2, size), torch.zeros(int(module.num_layers), 2, hidden))  # type: ignore[arg-type]
    source = folder / "float32.onnx"
    lstm_onnx.export(module, source, example_inputs=example, lengths=lengths)
    files = {"float32": source}
    for kernel in kernels_of(module):
        files[kernel] = folder / f"{kernel}.onnx"
        lstm_onnx.quantize(source, files[kernel], kernel=kernel)
    return files


def by_turns(runs: Mapping[str, Callable[[], object]], rounds: int, warm: int = 3, before: int = 1) -> dict[str, float]:
    """The median time of each, of its last run in a turn.

    The one before it brings the model's weights back to the nearer caches; after several, as in a loop of steps of one
    model, they are in the last one where it holds them.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + warm):
        for name, run in runs.items():
            for _ in range(before):
                run()
            began = perf_counter()
            run()
            if index >= warm:
                times[name].append(perf_counter() - began)
    return {name: median(taken) for name, taken in times.items()}


def told(what: str, times: Mapping[str, float], bar: str, *, times_as_fast: bool = False) -> None:
    """Print a row: each kernel's time as a share of float32's, or how many times as fast it is."""
    base = times["float32"]
    cells = [f"{base / taken if times_as_fast else taken / base:.2f}" for taken in times.values()]
    absolute = ", ".join(f"{1e6 * taken:.0f}" for taken in times.values())
    names = dict(zip(times, cells, strict=True))
    print(
        f"| {what} | {' | '.join(names.get(kernel, '-') for kernel in KERNELS)} | {bar} | {absolute} us |", flush=True
    )


def streams(files: Mapping[str, Path], time: int, batch: int) -> dict[str, Callable[[], object]]:
    """A call of a stream of each file."""
    runs: dict[str, Callable[[], object]] = {}
    for name, path in files.items():
        model = lstm_onnx.load(path, provider="cpu", threads=1)
        first, info = next(iter(model.inputs.items()))
        x = np.random.default_rng(0).standard_normal((time, batch, int(info.shape[-1] or 0)), np.float32)
        runs[name] = partial(model.stream(batch=batch).run, {first: x})
    return runs


STEPS = {
    "one step, I512 H512 L2": (lambda: nn.LSTM(512, 512, 2), 1, 1, "0.40 / 0.25"),
    "one step, I1024 H1024 L2": (lambda: nn.LSTM(1024, 1024, 2), 1, 1, "0.30 / 0.20"),
    "one step, I512 H1024 P256": (lambda: nn.LSTM(512, 1024, proj_size=256), 1, 1, "0.5 / 0.4"),
    "one step, GRU I512 H512 L2": (lambda: nn.GRU(512, 512, 2), 1, 1, "0.5 / 0.4"),
    "T 100, B 8, I512 H512 L2": (lambda: nn.LSTM(512, 512, 2), 100, 8, "0.5 / 0.35"),
}
"""(module, time, batch, the shares to reach: default / best other kernel)"""


def bars(rounds: int) -> None:
    """Print what int8 must reach, and what it reaches here."""
    print(f"CPU: {int8_instructions(cpu_flags())[1]}")
    print(f"| | {' | '.join(KERNELS)} | to reach: default / best other | float32 and each |")
    print("| --- | --- | --- | --- | --- | --- |")
    torch.manual_seed(0)
    for what, (module, time, batch, bar) in STEPS.items():
        with tempfile.TemporaryDirectory() as folder:
            files = write_files(module().eval(), Path(folder))
            count = max(3, rounds if time == 1 else rounds // 20)
            told(what, by_turns(streams(files, time, batch), count), bar)
            if "step, I" in what and time == 1 and "P256" not in what:
                told(f"{what}, in a loop", by_turns(streams(files, time, batch), count // 2, before=_LOOP), bar)
            if "1024 L2" in what:
                cost_of_loading(files)
    of_many(rounds)
    against_torch(rounds)


def cost_of_loading(files: Mapping[str, Path]) -> None:
    """Print the size of H1024 L2, the time to load it, and its memory beyond that of a small model."""
    sizes = {name: float(path.stat().st_size) for name, path in files.items()}
    base = sizes["float32"]
    print(f"| size | {' | '.join(f'{sizes[kernel] / base:.2f}' for kernel in KERNELS)} | 0.3 | |")
    loads = {name: partial(lstm_onnx.load, path, provider="cpu", threads=1) for name, path in files.items()}
    told("load time", by_turns(loads, 3, warm=1), "0.5")
    with tempfile.TemporaryDirectory() as folder:
        lstm_onnx.export(nn.LSTM(4, 3), Path(folder) / "small.onnx")
        peaks = {}
        for name, path in {"small": Path(folder) / "small.onnx", **files}.items():
            answer = child(["-m", "tests.benchmarks.map_child", path, "cpu", "1", "0", "0"], Path(folder))
            peaks[name] = json.loads(answer)["peak_bytes"]
    net = {name: peak - peaks["small"] for name, peak in peaks.items()}
    shares = " | ".join(f"{net[kernel] / net['float32']:.2f}" for kernel in KERNELS)
    print(f"| memory | {shares} | 0.5 | {', '.join(f'{net[name] / 1e6:.0f} MB' for name in files)} |", flush=True)


def of_many(rounds: int) -> None:
    """Print map and a pool: how many times as fast as float32's map, and as one at a time through ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(nn.LSTM(80, 256, 2, bidirectional=True).eval(), Path(folder), lengths=True)
        sequences = [random_sequence(length, 80, "float32", at) for at, length in enumerate(draw_lengths(512, 0))]
        models = {name: lstm_onnx.load(path, provider="cpu", threads=1) for name, path in files.items()}
        runs = {name: lambda model=model: list(model.map(sequences, workers=1)) for name, model in models.items()}
        times = {name: [0.0] for name in runs}
        for _ in range(2):  # the first calibrates
            for name, run in runs.items():
                began = perf_counter()
                run()
                times[name] = [perf_counter() - began]
        told("map of 512, I80 H256 L2 bidirectional, times as fast", {n: t[0] for n, t in times.items()}, "1.4 / 2",
             times_as_fast=True)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(nn.LSTM(80, 256, 2).eval(), Path(folder))
        session, _ = open_session(files["float32"], "cpu", 1)
        one = np.zeros((1, 1, 80), np.float32)
        state = np.zeros((2, 1, 256), np.float32)
        alone = {"float32": lambda: [session.run(None, {"input": one, "h0": state, "c0": state}) for _ in range(64)]}
        pools: dict[str, Callable[[], object]] = {}
        for name, path in files.items():
            pool = lstm_onnx.load(path, provider="cpu", threads=2).pool(slots=64)
            slots = [pool.open() for _ in range(64)]
            x = np.random.default_rng(0).standard_normal((1, 64, 80), np.float32)
            pools["pool of float32" if name == "float32" else name] = partial(pool.step, slots, x)
        what = "pool of 64, I80 H256 L2, 2 threads, times one at a time"
        told(what, by_turns({**alone, **pools}, max(5, rounds // 10)), "7", times_as_fast=True)


def against_torch(rounds: int) -> None:
    """Print a step of H512 by PyTorch's own dynamic int8, in times of each kernel's."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        module = nn.LSTM(512, 512).eval()
        files = write_files(module, Path(folder))
        torch.set_num_threads(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, and is what people use
            quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(module), {nn.LSTM}, dtype=torch.qint8)
        x, state = torch.zeros(1, 1, 512), (torch.zeros(1, 1, 512), torch.zeros(1, 1, 512))
        times = by_turns({"torch.ao": lambda: quantized(x, state), **streams(files, 1, 1)}, max(5, rounds // 2))
        times["float32"] = times.pop("torch.ao")
        told("a step of H512, times torch.ao's dynamic int8", times, "3", times_as_fast=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of --shares: {', '.join(MODULES)}")
    parser.add_argument("--shares", action="store_true", help="the table in docs/int8.md")
    parser.add_argument("--rounds", type=int, default=None, help="of a single step  [default: 200; 15 with --shares]")
    arguments = parser.parse_args()
    if not arguments.shares:
        bars(arguments.rounds or 200)
        return
    print("| | bytes | difference | T1 B1 | T1 B8 | T100 B1 | T100 B8 |\n| --- | --- | --- | --- | --- | --- | --- |")
    for name in arguments.names or MODULES:
        with temporary_folder() as folder:
            print(measure(name, arguments.rounds or 15, folder), flush=True)


if __name__ == "__main__":
    main()

"""Times a step of LSTMs by their hidden size: in float32, in int8 by each kernel, and in PyTorch's own dynamic int8.

A step of a large layer takes as long as reading its weights from memory, so the times are compared with a limit: the
bytes of the weights divided by the measured bandwidth.
"""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..atomic_io import temporary_folder
from ..errors import MissingDependencyError
from ..exporter.bare_lstm import export_lstm
from ..exporter.dependencies import import_torch
from ..quantization import quantize
from ..quantization.kernels import KERNELS
from ..runtime import load
from ..runtime.cpu import cpu_name
from ..spec import ExportOptions, LSTMSpec
from ..terminal_text import table_lines
from .compare import Say, versions
from .measure import Candidate, interleaved
from .plot import INK, MUTED, new_figure
from .pytorch import torch_setting
from .report import Machine, duration

HIDDEN_SIZES = (32, 64, 128, 256, 512, 1024, 2048)
FLOAT32, TORCH = "float32", "PyTorch dynamic int8"
WEIGHT_BYTES = {"float32": 4, "int8": 1}
_BANDWIDTH_BYTES, _BANDWIDTH_REPEATS = 2**28, 5
ROUNDS = 9


@dataclass(frozen=True)
class HiddenSizes:
    """Times of one step of one sequence, on one thread; input_size is hidden_size.

    Attributes:
        num_layers: the number of layers of each LSTM.
        seconds: the median of the rounds, by candidate and hidden size.
        weights: the number of weights, by hidden size.
        bandwidth: bytes per second that one thread reads from memory.
        machine: the machine on which it ran.
    """

    num_layers: int
    seconds: dict[str, dict[int, float]]
    weights: dict[int, int]
    bandwidth: float
    machine: Machine

    @property
    def layers(self) -> str:
        """The number of layers as text, such as ``1 layer``."""
        return "1 layer" if self.num_layers == 1 else f"{self.num_layers} layers"

    def limit(self, size: int, bytes_per_weight: int) -> float:
        """The seconds that reading the weights from memory takes."""
        return self.weights[size] * bytes_per_weight / self.bandwidth

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, with the limits of float32 and int8."""
        limits = {
            name: {size: self.limit(size, count) for size in self.weights} for name, count in WEIGHT_BYTES.items()
        }
        return {**asdict(self), "limits": limits}

    def __str__(self) -> str:
        """A table of times, and of the limits."""
        sizes = list(self.weights)
        rows = [["", *(f"H{size}" for size in sizes)]]
        rows += [[name, *(duration(times[size]) for size in sizes)] for name, times in self.seconds.items()]
        rows += [
            [
                f"{name} weights at {self.bandwidth / 1e9:.0f} GB/s",
                *(duration(self.limit(size, count)) for size in sizes),
            ]
            for name, count in WEIGHT_BYTES.items()
        ]
        title = f"One step of an LSTM with {self.layers}, one sequence, one thread, {self.machine.device}"
        joined = "\n".join(table_lines(rows, right=range(1, len(rows[0]))))
        return f"{title}\n{joined}"


def compare_hidden_sizes(
    num_layers: int = 1, *, sizes: Sequence[int] = HIDDEN_SIZES, rounds: int = ROUNDS, say: Say = lambda _: None
) -> HiddenSizes:
    """Time one step of LSTMs with random weights, which takes a minute or two.

    Args:
        num_layers: the number of layers of each LSTM.
        sizes: the values of hidden_size, which input_size equals.
        rounds: the number of samples of each candidate.
        say: called with a sentence about what is done next.
    """
    seconds: dict[str, dict[int, float]] = {}
    weights = {}
    for size in sizes:
        say(f"hidden size {size}")
        spec = LSTMSpec(input_size=size, hidden_size=size, num_layers=num_layers)
        shapes = spec.parameter_shapes()
        rng = np.random.default_rng(0)
        state = {name: (rng.standard_normal(shape) / np.sqrt(size)).astype("float32") for name, shape in shapes.items()}
        weights[size] = sum(array.size for array in state.values() if array.ndim > 1)
        with temporary_folder() as folder:
            found = interleaved([*_onnx(spec, state, folder), *_torch(spec, state)], rounds=rounds)
        for name, samples in found.items():
            seconds.setdefault(name, {})[size] = median(samples)
    machine = Machine(cpu_name(), "cpu", 1, (), platform.platform(), versions())
    return HiddenSizes(num_layers, seconds, weights, _bandwidth(), machine)


def _onnx(spec: LSTMSpec, state: dict[str, np.ndarray], folder: Path) -> list[Candidate]:
    """The candidates that stream the float32 file and each int8 file."""
    source = folder / "float32.onnx"
    export_lstm(spec, ExportOptions(), state, source)
    files = {FLOAT32: source}
    for kernel in KERNELS:
        files[kernel] = folder / f"{kernel}.onnx"
        quantize(source, files[kernel], kernel=kernel)
    x = np.random.default_rng(1).standard_normal((1, 1, spec.input_size), np.float32)
    streams = {name: load(path, provider="cpu", threads=1).stream() for name, path in files.items()}
    return [
        Candidate(name if name == FLOAT32 else f"int8 {name}", partial(stream, x), is_lstm_onnx=True)
        for name, stream in streams.items()
    ]


def _torch(spec: LSTMSpec, state: dict[str, np.ndarray]) -> list[Candidate]:
    """PyTorch's own dynamic quantization of the same LSTM; none if PyTorch or its quantization is not available."""
    try:
        from ..exporter.sources.torch_lstm import module_of

        torch = import_torch("bench times it")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, but widely used
            quantized: Any = torch.ao.quantization
            module = quantized.quantize_dynamic(module_of(spec, state), {torch.nn.LSTM}, dtype=torch.qint8)
    except (ImportError, AttributeError, RuntimeError, MissingDependencyError):
        return []
    x = torch.zeros(1, 1, spec.input_size)
    return [Candidate(TORCH, partial(module, x), partial(torch_setting, torch, 1))]


def _bandwidth() -> float:
    """Bytes per second that one thread reads from memory: the best of some sums of an array beyond the caches."""
    array = np.ones(_BANDWIDTH_BYTES // 4, np.float32)
    best = 0.0
    for _ in range(_BANDWIDTH_REPEATS):
        began = time.perf_counter()
        array.max()
        best = max(best, array.nbytes / (time.perf_counter() - began))
    return best


_COLORS = {FLOAT32: "#424a53", TORCH: "#bc4c00"}
_INT8_COLORS = ("#0969da", "#1a7f37", "#8250df", "#bf3989")


def write_hidden_sizes_plot(report: HiddenSizes, path: str | os.PathLike[str]) -> None:
    """Plot the times; for the errors see `new_figure`."""
    with new_figure(path, 8, 5.5) as figure:
        axes = figure.subplots()
        sizes = list(report.weights)
        others = iter(_INT8_COLORS)
        for name, times in report.seconds.items():
            color = _COLORS.get(name) or next(others)
            axes.plot(sizes, [times[size] for size in sizes], color=color, marker="o", markersize=3, label=name)
        for name, count in WEIGHT_BYTES.items():
            limits = [report.limit(size, count) for size in sizes]
            label = f"{name} weights from memory at {report.bandwidth / 1e9:.0f} GB/s"
            axes.plot(sizes, limits, color=MUTED, linestyle=":" if count == 1 else "--", linewidth=0.9, label=label)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.yaxis.set_major_formatter(lambda seconds, _: duration(seconds))
        axes.set_xlabel("hidden size = input size")
        axes.set_ylabel("time per step")
        axes.grid(visible=True, color="#d0d7de", linewidth=0.5)
        axes.legend(fontsize=8, frameon=False, labelcolor=INK)
        title = f"One step of an LSTM with {report.layers}: one sequence, one thread"
        installed = ", ".join(f"{name} {version}" for name, version in report.machine.versions.items())
        figure.suptitle(f"{title}\n{report.machine.device}; {installed}", fontsize=9)

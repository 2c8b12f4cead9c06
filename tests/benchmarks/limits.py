"""The limits of this machine, matrix products and reading memory, and how much of each a model needs.

Each core gets a process that is pinned to it, with one BLAS thread; all run at the same time, and their
rates are added.  Threads within this process would depend on numpy's BLAS, which fixes its number of threads
when it is loaded.

``python -m tests.benchmarks.limits [WEIGHT_BYTES]`` prints the limits; `sweep` compares times with them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from lstm_onnx.bench.report import Comparison
from lstm_onnx.bench.sizes import draw_lengths
from lstm_onnx.errors import RunError
from lstm_onnx.inspect import LSTMInfo
from lstm_onnx.runtime.pool.pinned_threads import allowed_cores

_SECONDS = 0.24
"""Seconds of each measurement."""
_BEYOND_CACHES = 128 * 2**20
"""Bytes for each core, more than today's last-level caches hold."""
_LEAST_BYTES = 256 * 2**10
"""Below this numpy's call takes longer than reading the array."""
_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True)
class Peaks:
    """The limits of the cores in use, together.

    Attributes:
        gemm: FLOP/s of numpy's matrix product in `dtype`.
        read: bytes/s of reading an array that is larger than the caches.
        read_weights: bytes/s of reading an array as large as the model's weights again and again: where
            those fit into a cache, faster than `read`.
        dtype: "float32" or "float64".
        cores: how many worked at the same time.
    """

    gemm: float
    read: float
    read_weights: float
    dtype: str
    cores: int

    def limit(self, flops: float, weight_bytes: float) -> float:
        """Seconds that work of so many FLOPs takes at least, when it reads so many bytes of weights."""
        return max(flops / self.gemm, weight_bytes / self.read_weights)

    def larger(self, other: Peaks) -> Peaks:
        """The better of two measurements, each by itself."""
        gemm, read = max(self.gemm, other.gemm), max(self.read, other.read)
        return Peaks(gemm, read, max(self.read_weights, other.read_weights), self.dtype, self.cores)


class PeakMeter:
    """A process for each of `cores`; a context manager that ends them.

    `pin` is whether each stays on its core.
    """

    def __init__(self, cores: Sequence[int], dtype: str = "float32", *, pin: bool = True) -> None:
        self.cores = list(cores)
        self.dtype = dtype
        self.pin = pin
        self._children: list[subprocess.Popen[str]] = []

    def __enter__(self) -> PeakMeter:
        """Start the processes."""
        environment = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1")}
        for core in self.cores:
            command = [sys.executable, "-P", "-m", f"{__package__}.limits_child", str(core if self.pin else -1)]
            self._children.append(
                subprocess.Popen(
                    [*command, self.dtype],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # Ctrl-C gets to it as well, and its traceback would be our last word
                    text=True,
                    env=environment,
                )
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them."""
        for child in self._children:
            child.kill()
            child.communicate()
        self._children.clear()

    def measure(self, weight_bytes: int, seconds: float = _SECONDS) -> Peaks:
        """Measure all three limits, for a model with so many bytes of weights.

        Raises:
            RunError: a process has ended, as for want of memory.
        """
        share = max(_LEAST_BYTES, weight_bytes // len(self.cores))  # each core reads its part of the weights
        return Peaks(
            gemm=self._ask(f"gemm {seconds}"),
            read=self._ask(f"read {_BEYOND_CACHES} {seconds}"),
            read_weights=self._ask(f"read {share} {seconds}"),
            dtype=self.dtype,
            cores=len(self.cores),
        )

    def _ask(self, question: str) -> float:
        """The sum of all processes' answers, who work on it at the same time."""
        total = 0.0
        try:
            for child in self._children:
                assert child.stdin is not None
                print(question, file=child.stdin, flush=True)
            for child in self._children:
                assert child.stdout is not None
                total += float(child.stdout.readline())
        except (OSError, ValueError) as error:
            raise RunError(f"the process that measures the machine's limits ended at {question!r}") from error
        return total


@dataclass(frozen=True)
class Work:
    """What the LSTMs of a model compute and read.

    Attributes:
        flops: of one step of one sequence.
        weights: bytes of their weights.
        recurrent: bytes of the weights that each step reads, such as R; W can be read once for all steps.
    """

    flops: int
    weights: int
    recurrent: int

    @classmethod
    def of(cls, lstms: Sequence[LSTMInfo]) -> Work | None:
        """The work of a file's LSTMs; None if one of their sizes is unknown."""
        if not lstms or any(not (info.flops_per_step and info.parameters) for info in lstms):
            return None
        recurrent = 0.0
        for info in lstms:
            gates = {"GRU": 3, "RNN": 1}.get(info.kind, 4)
            state = info.proj_size if info.kind == "Scan" else info.hidden_size
            directions = 2 if info.direction == "bidirectional" else 1
            parameters = gates * info.hidden_size * state + (info.proj_size * info.hidden_size)
            recurrent += directions * parameters * info.bytes / info.parameters
        total = sum(info.bytes for info in lstms)
        return cls(sum(info.flops_per_step for info in lstms), total, min(total, int(recurrent)))

    def needed(self, steps: int, longest: int) -> tuple[int, int]:
        """FLOPs of `steps` steps of all sequences together, and bytes of weights read by the longest of them."""
        return self.flops * steps, self.weights + self.recurrent * (longest - 1)

    def per_unit(self, comparison: Comparison, seed: int) -> tuple[float, float]:
        """FLOPs, and bytes of weights read, for one unit of a comparison."""
        if comparison.unit == "sequence":
            lengths = draw_lengths(comparison.batch, seed)
            units, steps, longest = len(lengths), sum(lengths), max(lengths)
        else:
            units = steps = comparison.batch * comparison.time
            longest = comparison.time
        flops, weights = self.needed(steps, longest)
        return flops / units, weights / units


def main() -> None:
    """Print the limits of the cores that this process may use."""
    weight_bytes = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    with PeakMeter(allowed_cores()) as meter:
        peaks = meter.measure(weight_bytes)
    print(
        f"{peaks.cores} cores: {peaks.gemm / 1e9:,.0f} GFLOP/s ({peaks.dtype} matrix product), {peaks.read / 1e9:,.1f} "
        f"GB/s from memory, {peaks.read_weights / 1e9:,.1f} GB/s over {weight_bytes} bytes of weights"
    )


if __name__ == "__main__":
    main()

"""What this machine can do at most: matrix products and reading memory, measured in the same run.

Each core has a process of its own that stays on it, with one BLAS thread; all work at the same time,
and their rates are added.  Threads within this process would be at the mercy of numpy's BLAS, whose
number of threads is settled when it loads.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from ..errors import RunError

_SECONDS = 0.24
"""Of each measurement: it is taken twice, before and after, and the larger counts."""
_BEYOND_CACHES = 128 * 2**20
"""Bytes for each core that no last-level cache of today's keeps."""
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
            command = [sys.executable, "-P", "-m", f"{__package__}.peak_child", str(core if self.pin else -1)]
            self._children.append(
                subprocess.Popen(  # noqa: S603 - this very interpreter, on our own module
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
                assert child.stdin is not None  # noqa: S101 - they are pipes
                print(question, file=child.stdin, flush=True)
            for child in self._children:
                assert child.stdout is not None  # noqa: S101
                total += float(child.stdout.readline())
        except (OSError, ValueError) as error:
            raise RunError(f"the process that measures the machine's limits ended at {question!r}") from error
        return total

"""The limits of one core, in a process of its own: BLAS reads its number of threads when numpy is loaded.

``python -m tests.benchmarks.limits_child CORE DTYPE``: CORE is the CPU to stay on, or -1.  Each line of stdin is
``gemm SECONDS`` or ``read BYTES SECONDS``, and its answer FLOP or bytes a second.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import numpy as np

_GEMM_SIZES = (384, 512, 768, 1024)
_LEAST = 0.002


def fastest(run: Callable[[], object], work: float, seconds: float) -> float:
    """Work a second in the best of the samples that fit into `seconds`."""
    run()
    began = time.perf_counter()
    run()
    repeats = max(1, round(_LEAST / max(time.perf_counter() - began, 1e-9)))
    best, end = 0.0, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < end:
        began = time.perf_counter()
        for _ in range(repeats):
            run()
        best = max(best, work * repeats / max(time.perf_counter() - began, 1e-9))
    return best


def gemm(dtype: str, seconds: float) -> float:
    """FLOP/s of matrix products, of the size that does best."""
    best = 0.0
    for size in _GEMM_SIZES:
        left, right = (np.full((size, size), 0.5, dtype) for _ in range(2))
        out = np.empty_like(left)

        def run(left: np.ndarray = left, right: np.ndarray = right, out: np.ndarray = out) -> None:
            np.matmul(left, right, out=out)

        best = max(best, fastest(run, 2.0 * size**3, seconds / len(_GEMM_SIZES)))
    return best


def read(size: int, dtype: str, seconds: float) -> float:
    """Bytes a second of reading an array of `size` bytes from end to end."""
    array = np.ones(max(1, size // np.dtype(dtype).itemsize), dtype)
    return fastest(lambda: np.dot(array, array), float(array.nbytes), seconds)


def main() -> None:
    """Answer until stdin ends."""
    core, dtype = int(sys.argv[1]), sys.argv[2]
    if core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})  # of this thread, and with one BLAS thread there is no other
    for line in sys.stdin:
        what, *numbers = line.split()
        answer = gemm(dtype, float(numbers[0])) if what == "gemm" else read(int(numbers[0]), dtype, float(numbers[1]))
        print(repr(answer), flush=True)


if __name__ == "__main__":
    main()

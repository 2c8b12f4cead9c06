"""Engines that need no package: ONNX Runtime in a process of its own, as it is and with faults."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import numpy as np
import onnxruntime

from lstm_onnx.parity.runtimes.child import Run


class OnnxRuntime:
    """ONNX Runtime, like any other engine."""

    version = "1.2.3"

    def __init__(self, threads: int | None) -> None:
        self.threads = threads

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        del fixed
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda feeds: dict(zip(outputs, session.run(list(outputs), feeds), strict=True))

    @staticmethod
    def reason(error: Exception) -> str:
        return f"said: {error}"


class Printing(OnnxRuntime):
    """Prints where its answers go."""

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        print("opening")
        os.write(1, b"from C\n")
        sys.stdout.flush()
        return super().open(path, outputs, fixed=fixed)


class Wrong(OnnxRuntime):
    """Off by a thousandth."""

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        run = super().open(path, outputs, fixed=fixed)
        return lambda feeds: {name: array + np.float32(1e-3) for name, array in run(feeds).items()}


class Ending(OnnxRuntime):
    """Ends its process where a number of the first input is 13."""

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        run = super().open(path, outputs, fixed=fixed)

        def ending(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            if np.any(next(iter(feeds.values())) == 13):
                os.abort()
            return run(feeds)

        return ending


class Fixed(OnnxRuntime):
    """Opens no file with dynamic axes."""

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        if not fixed:
            raise ValueError("axes are open")
        return super().open(path, outputs, fixed=fixed)


class FixedRun(OnnxRuntime):
    """Runs no file with dynamic axes."""

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        run = super().open(path, outputs, fixed=fixed)

        def failing(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            if not fixed or np.any(next(iter(feeds.values())) == 13):
                raise ValueError("a size is a symbol")
            return run(feeds)

        return failing


class Missing:
    """A package that is not there."""

    def __init__(self, _threads: int | None) -> None:
        raise ImportError("No module named 'engine'")


class Silent(OnnxRuntime):
    """Gives all outputs but the first."""

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        return super().open(path, outputs[1:], fixed=fixed)


class Blind(OnnxRuntime):
    """Ignores what is changed in a file whose inputs it has seen: it runs the first file in its place."""

    def __init__(self, threads: int | None) -> None:
        super().__init__(threads)
        self._first: dict[tuple[str, ...], Run] = {}

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        run = super().open(path, outputs, fixed=fixed)
        return self._first.setdefault(tuple(outputs), run)

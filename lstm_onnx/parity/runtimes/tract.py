"""tract, in a process of its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .adapter import Run
from .fixed_sizes import write_fixed

_KEPT = 16
"""Sizes for which a file stays open."""


class Tract:
    """tract on the CPU, on one thread."""

    def __init__(self, threads: int | None) -> None:
        del threads
        import tract

        self.version = str(tract.version())
        self._onnx = tract.onnx()

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        """Read, infer shapes and optimise, with the named axes as symbols; if `fixed`, at each run for its sizes."""
        if not fixed:
            return self._run(self._onnx.load(path), outputs)
        opened: OrderedDict[tuple[Any, ...], Run] = OrderedDict()

        def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            key = tuple((name, array.shape) for name, array in feeds.items())
            if key not in opened:
                with TemporaryDirectory(prefix="lstm-onnx-") as folder:
                    file = Path(folder) / "model.onnx"
                    write_fixed(path, file, feeds)
                    opened[key] = self._run(self._onnx.load(file), outputs)
            opened.move_to_end(key)
            while len(opened) > _KEPT:
                opened.popitem(last=False)
            return opened[key](feeds)

        return run

    def _run(self, model: Any, outputs: Sequence[str]) -> Run:
        names = [model.input_name(number) for number in range(model.input_count())]
        runnable = model.into_model().into_runnable()

        def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            results = runnable.run([feeds[name] for name in names])
            # It names outputs by their nodes.
            return {name: np.asarray(result.to_numpy()) for name, result in zip(outputs, results, strict=True)}

        return run

    @staticmethod
    def reason(error: Exception) -> str:
        """The causes without the stack."""
        return str(error).partition("Stack backtrace:")[0].replace("Caused by:", ":")

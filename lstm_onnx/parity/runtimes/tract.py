"""The adapter for tract, which runs in a process of its own."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from ...onnxgraph import graphs_of
from ...symbolic_dims import size_of
from .child import Run

_KEPT = 16
"""The most sizes for which a file stays open."""


class Tract:
    """tract on the CPU, on one thread."""

    def __init__(self, threads: int | None) -> None:
        del threads
        import tract

        self.version = str(tract.version())
        self._onnx = tract.onnx()

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        """Read a file, infer shapes and optimize, with named axes as symbols; if `fixed`, at each run for its sizes."""
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
            # tract names outputs after their nodes, so they are matched by order.
            return {name: np.asarray(result.to_numpy()) for name, result in zip(outputs, results, strict=True)}

        return run

    @staticmethod
    def reason(error: Exception) -> str:
        """The causes, without the stack backtrace."""
        return str(error).partition("Stack backtrace:")[0].replace("Caused by:", ":")


def write_fixed(path: str | os.PathLike[str], target: str | os.PathLike[str], feeds: Mapping[str, np.ndarray]) -> None:
    """Write a copy of a file for inputs of these shapes; other names and expressions of axes are removed."""
    model = onnx.load(path)
    sizes: dict[str, int] = {}
    for value in model.graph.input:
        if value.name in feeds:
            pairs = zip(_dims(value), feeds[value.name].shape, strict=True)
            sizes |= {dim.dim_param: size for dim, size in pairs if dim.HasField("dim_param")}
    for graph in graphs_of(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in _dims(value):
                if not dim.dim_param:
                    continue
                size = size_of(dim.dim_param, sizes)
                dim.Clear()
                if size is not None:
                    dim.dim_value = size
    for value in model.graph.input:  # including axes without a name
        if value.name in feeds:
            for dim, size in zip(_dims(value), feeds[value.name].shape, strict=True):
                dim.dim_value = size
    onnx.save(model, target)


def _dims(value: onnx.ValueInfoProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    return iter(value.type.tensor_type.shape.dim)

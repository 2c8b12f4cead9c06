"""Whether a file computes what its module computes, at sizes other than the example's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .model import Model

Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
"""A file: input arrays in the order of the module's arguments in, outputs in the order of its results out."""

RELATIVE = 5e-4
"""Of an output's largest magnitude: PyTorch's own float32 error in these models is below a tenth of it."""
ABSOLUTE = 1e-6


class IndifferentError(Exception):
    """The module gives nearly the same for different inputs, so that no comparison of it says anything."""


@dataclass
class Judgement:
    """What a comparison showed.  `error` is the largest difference in units of what is allowed."""

    compared: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    differ: dict[str, str] = field(default_factory=dict)
    error: float = 0.0

    @property
    def verdict(self) -> str:
        """right; wrong, where numbers differ anywhere; fails, where the file runs at some of the sizes only."""
        if self.differ:
            return "wrong"
        return "fails" if self.failed or not self.compared else "right"

    @property
    def reason(self) -> str:
        """Of a verdict that is not right, the first place."""
        for places in (self.differ, self.failed):
            for sizes, what in places.items():
                return f"{len(places)} of {len(self.compared)} sizes, {sizes}: {what}"
        return "the module itself runs at none of the sizes" if not self.compared else ""


def called(module: nn.Module, inputs: Sequence[Any]) -> list[np.ndarray]:
    """The tensors that the module returns."""
    with torch.no_grad():
        return [tensor.detach().numpy() for tensor in Model.tensors(module(*inputs))]


def first_line(error: BaseException, limit: int = 240) -> str:
    """The innermost cause of `error`, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:limit]


def difference(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> tuple[float, str]:
    """The largest difference in units of what is allowed, and what is wrong, or nothing where that is at most 1."""
    if len(actual) != len(expected):
        return np.inf, f"{len(actual)} outputs instead of {len(expected)}"
    worst, what = 0.0, ""
    for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
        if one.shape != other.shape:
            return np.inf, f"output {index} is {other.shape} instead of {one.shape}"
        if not one.size:
            continue
        a, b = (np.asarray(value, np.complex128 if value.dtype.kind == "c" else np.float64) for value in (one, other))
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):
            away = np.where(same, 0.0, np.abs(a - b))
        finite = np.abs(a[np.isfinite(a)])
        allowed = RELATIVE * (finite.max() if finite.size else 0.0) + ABSOLUTE if one.dtype.kind in "fc" else 0.5
        ratio = float(np.nan_to_num(away, nan=np.inf).max() / allowed)
        if ratio > worst:
            worst = ratio
            what = f"output {index} differs by {away.max():.3g}, of {finite.max() if finite.size else 0:.3g}"
    return worst, what if worst > 1 else ""


def judge(model: Model, module: nn.Module, run: Run) -> Judgement:
    """Compare the file behind `run` with `module` at each of the model's other sizes.

    Raises:
        IndifferentError: the module's outputs hardly follow from its inputs.
    """
    judgement = Judgement()
    for batch, time in model.shapes:
        sizes = f"batch {batch}, time {time}"
        inputs = model.drawn(batch, time)
        try:
            expected = called(module, model.drawn(batch, time))
        except Exception as error:  # noqa: BLE001 - whatever a stranger's module raises
            judgement.skipped[sizes] = first_line(error)
            continue
        judgement.compared.append(sizes)
        try:
            actual = run([tensor.numpy() for tensor in Model.tensors(inputs)])
        except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common base
            judgement.failed[sizes] = first_line(error)
            continue
        ratio, what = difference(expected, actual)
        judgement.error = max(judgement.error, ratio)
        if what:
            judgement.differ[sizes] = what
    batch, time = model.example
    one, other = (called(module, model.drawn(batch, time, seed)) for seed in (1, 2))
    shapes = [value.shape for value in one] == [value.shape for value in other]
    if shapes and difference(one, other)[0] < 100:
        raise IndifferentError(f"{model.name}: its outputs hardly follow from its inputs; give it a gain")
    return judgement


def onnxruntime_runner(path: Path) -> Run:
    """A file from any exporter; its inputs are named ``input_0`` and on, those that it does not use left out."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        feeds = {f"input_{index}": array for index, array in enumerate(arrays)}
        return session.run(None, {name: feeds[name] for name in names})

    return run


def own_runner(path: Path) -> Run:
    """A file from `lstm_onnx.export`, its states that the module does not take left at zero."""
    import lstm_onnx

    file = lstm_onnx.load(path, "cpu", threads=1)

    def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        names = list(file.inputs)[: len(arrays)]
        added = list(file.inputs)[len(arrays) :]
        if len(names) != len(arrays) or not set(added) <= set(file.states):
            raise ValueError(f"the file's inputs are {', '.join(file.inputs)}; the module takes {len(arrays)} tensors")
        results = file.run(dict(zip(names, arrays, strict=True)))
        fed = {file.states[name] for name in added}
        return [results[name] for name in file.outputs if name not in fed]

    return run

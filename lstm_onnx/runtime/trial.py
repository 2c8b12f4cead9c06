"""Trials: opens and runs a model once in a child process before it is opened in this one."""

from __future__ import annotations

import contextlib
import os
from math import prod
from typing import TYPE_CHECKING

from ..checksum import is_intact
from ..errors import ModelError
from ..isolation.limits import Limits
from ..isolation.process import Child, EndedError
from ..isolation.stages import stage
from .tuning import MAX_DRAWN_ELEMENTS, MAX_TRIAL_ELEMENTS

if TYPE_CHECKING:
    from .model import Model


def is_trial_needed(path: str | os.PathLike[str], trial: bool | None) -> bool:
    """`trial`, or if it is None whether the file is not, byte for byte, one that lstm-onnx wrote."""
    return not is_intact(path) if trial is None else trial


def require_trial(
    path: str | os.PathLike[str],
    provider: str,
    threads: int | None,
    states: dict[str, str] | None,
    work: str = "lstm_onnx.runtime.open_model:open_and_run",
) -> None:
    """Open and run the file in a child process, which calls `work`.

    Raises:
        ModelError: the process ended, or exceeded its time or memory.
        LSTMOnnxError: whatever `load` raises.
    """
    arguments = {"path": os.fspath(path), "provider": provider, "threads": threads, "states": states}
    with Child() as child:
        try:
            child.call(work, arguments, Limits.of(path))
        except EndedError as ended:
            raise ModelError(
                f"a child process that opened it {ended}",
                path=path,
                hint="lstm-onnx check shows more; do not open the file in a process that must not crash",
            ) from ended


def require_drawable(model: Model) -> None:
    """Refuse a model whose inputs hold too many numbers for a comparison on random ones (ModelError)."""
    count = sum(prod(info.smallest_shape()) for info in model.inputs.values())
    if count > MAX_DRAWN_ELEMENTS:
        raise ModelError(
            f"its inputs hold {count} numbers or more, but files are compared on at most {MAX_DRAWN_ELEMENTS}",
            path=model.path,
            hint="export it with smaller or dynamic sizes",
        )


def first_run(model: Model) -> None:
    """Run a model once at the smallest sizes; that it cannot run at these is not an error."""
    stage("the first run")
    sizes = ([dim if isinstance(dim, int) else 1 for dim in info.shape] for info in model.inputs.values())
    if sum(prod(shape) for shape in sizes) <= MAX_TRIAL_ELEMENTS:
        with contextlib.suppress(Exception):  # it only matters that the process survives
            model.warm_up()

"""A model opened and run once in a child process, before it is opened here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from ..checksum import is_intact
from ..errors import ModelError
from ..isolation.limits import Limits
from ..isolation.process import Child, EndedError
from ..isolation.stages import stage

if TYPE_CHECKING:
    from .model import Model

_MOST_ELEMENTS = 2**26
"""Inputs of fixed sizes beyond that are not made for a trial."""


def wanted(path: str | os.PathLike[str]) -> bool:
    """Whether a file is not, byte for byte, one that lstm-onnx wrote."""
    return not is_intact(path)


def require_survival(
    path: str | os.PathLike[str], provider: str, threads: int | None, states: Mapping[str, str] | None
) -> None:
    """Open and run the file in a child process, and say so where that does not come to a good end.

    Raises:
        ModelError: the process ended, took too long or too much memory.
        LSTMOnnxError: whatever `load` raises.
    """
    arguments = {
        "path": os.fspath(path),
        "provider": provider,
        "threads": threads,
        "states": None if states is None else dict(states),
    }
    with Child() as child:
        try:
            child.call(f"{__name__}:open_and_run", arguments, Limits.of(path))
        except EndedError as ended:
            raise ModelError(ended_words(path, ended)) from ended


def ended_words(path: str | os.PathLike[str], ended: EndedError) -> str:
    """What is said of a file that ended a child process."""
    return (
        f"{os.fspath(path)}: a child process that opened it {ended}; lstm-onnx check tells more, and do not open the "
        "file in a process that must not end"
    )


def open_and_run(path: str, provider: str, threads: int | None, states: Mapping[str, str] | None) -> None:
    """What the child does."""
    from .model import load

    stage("session creation")
    first_run(load(path, provider, threads, states=states))


def first_run(model: Model) -> None:
    """Run it once at the smallest sizes; that it cannot run at these is no fault."""
    stage("the first run")
    sizes = ([dim if isinstance(dim, int) else 1 for dim in info.shape] for info in model.inputs.values())
    if sum(prod(shape) for shape in sizes) <= _MOST_ELEMENTS:
        with contextlib.suppress(Exception):  # it came back, which is all that is asked
            model.warm_up()

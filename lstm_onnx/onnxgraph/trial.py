"""Tries a file in a child process before onnx reads it in this one, since a damaged file may crash onnx."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from ..atomic_io import require_readable
from ..errors import LSTMOnnxError
from ..isolation.process import EndedError
from ..isolation.stages import stage
from ..runtime.arguments import flag_or_none
from ..runtime.trial import is_trial_needed, require_trial
from .load import load_inlined
from .shape_inference import with_shapes, without_weights


def require_harmless(path: str | os.PathLike[str], trial: bool | None = None) -> None:
    """Open and run a file in a child process, as `load` does for `trial`, and infer its shapes there.

    Any other reason why the file cannot be opened is left to its reader.

    Raises:
        FileError: there is no such file, or it cannot be read.
        ModelError: the process crashed, or exceeded its limit of time or memory.
        InputError: `trial` is neither a bool nor None.
    """
    require_readable(path, "an .onnx file")
    trial = flag_or_none("trial", trial)
    if is_trial_needed(path, trial):
        try:
            require_trial(path, "cpu", 1, None, f"{__name__}:read_and_run")
        except LSTMOnnxError as error:
            if isinstance(error.__cause__, EndedError):
                raise


def read_and_run(path: str, **arguments: Any) -> None:
    """The child process's work."""
    from ..runtime.open_model import open_and_run

    stage("shape inference")
    with contextlib.suppress(Exception):
        with_shapes(without_weights(load_inlined(path)))
    open_and_run(path, **arguments)

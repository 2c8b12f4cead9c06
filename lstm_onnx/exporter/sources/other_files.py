"""What SOURCE is, where it is a file of another kind than those that it can be."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import ConfigError, LSTMOnnxError, WeightsError
from .checkpoint import tensor_names
from .checkpoint_names import lstm_prefixes
from .config import WEIGHT_SUFFIXES

_KINDS = "a model's .toml, package.module:callable or file.py:callable"


def not_a_source(source: str) -> LSTMOnnxError:
    """The error for a SOURCE that is none of what it can be."""
    lower = Path(source).name.lower()
    if not os.path.isfile(source):  # noqa: PTH113 - False for a name that no file can have
        missing = ", and no such file exists" if Path(source).suffix and not os.path.exists(source) else ""  # noqa: PTH110
        return ConfigError(f"{source}: is not {_KINDS}{missing}")
    if lower.endswith((".onnx", ".ort")):
        return ConfigError(
            f"{source}: is an ONNX file already; SOURCE is the PyTorch side, {_KINDS} (lstm-onnx check and inspect "
            "read .onnx files)"
        )
    if lower.endswith(".py"):
        return ConfigError(f"{source}: name the callable in it that returns the module as well, {source}:make")
    if lower.endswith(".pt2"):
        return ConfigError(f"{source}: is an ExportedProgram, which has no module to trace; SOURCE is {_KINDS}")
    if lower.endswith(WEIGHT_SUFFIXES):
        return _weights(source)
    return ConfigError(f"{source}: is not {_KINDS}")


def _weights(source: str) -> LSTMOnnxError:
    try:
        names = tensor_names(source)
    except WeightsError as error:
        return error
    return ConfigError(
        f"{source}: holds weights and no module ({lstm_prefixes(names)}); describe the module in a .toml, with "
        f'[lstm] and its sizes (or [module]) and [weights] file = "{Path(source).name}"'
    )

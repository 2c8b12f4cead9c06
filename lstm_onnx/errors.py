"""Every error that a user of lstm-onnx can meet, with the exit code that the command line gives it.

Messages say what is wrong, where, and how to mend it, in one line.  Errors of ONNX Runtime, onnx,
safetensors and torch never reach a caller raw: the module that calls them maps them to one of these
with ``raise ... from``.
"""

from __future__ import annotations

from .terminal_text import MOST_MESSAGE, one_line

EXIT_FAILED = 1
"""The check or the parity failed: the tool worked, and the answer is no."""
EXIT_ERROR = 2
"""A usage, input or environment error: the caller can mend it."""
EXIT_BUG = 70
"""A bug of ours (BSD's EX_SOFTWARE)."""


class LSTMOnnxError(Exception):
    """The root of the tree: catch this one to catch them all."""

    exit_code: int = EXIT_ERROR

    def __str__(self) -> str:
        """The message on one line, safe to print: names in it come from files that anybody may have made."""
        return one_line(super().__str__(), MOST_MESSAGE)


class ConfigError(LSTMOnnxError):
    """A model's .toml, or the arguments of nn.LSTM or of an export, are not possible."""


class WeightsError(LSTMOnnxError):
    """A weights file cannot be read, or its tensors do not fit the model."""


class ExportError(LSTMOnnxError):
    """A module cannot be exported."""


class ModelError(LSTMOnnxError):
    """An .onnx file cannot be read, or is not a model that this version can run."""


class InputError(LSTMOnnxError, ValueError):
    """Arrays given to a model do not fit it: name, rank, shape, dtype or range."""


class FileError(LSTMOnnxError):
    """A file cannot be read or written, or its content is not what its format says."""


class ProviderError(LSTMOnnxError):
    """The execution provider that was asked for is not there, or cannot run the model."""


class RunError(LSTMOnnxError):
    """ONNX Runtime accepted the model and the inputs, and then failed while running."""


class MissingDependencyError(LSTMOnnxError, ImportError):
    """An optional package is not installed, or two that exclude each other are."""


def shown(value: object) -> str:
    """A wrong argument in an error: on one line, and not the whole of a large one."""
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except Exception:  # noqa: BLE001 - its own __repr__ may be what is wrong
        text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


def reason(error: BaseException) -> str:
    """What an error of somebody else's code says, on one line of a bearable length."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - as above
        text = ""
    text = text or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."

"""Every error that lstm-onnx raises on purpose, with the exit code that the command line gives it.

Messages say what is wrong, where, and how to fix it, on one line; what a program needs of them is in attributes.
Errors of ONNX Runtime, onnx, safetensors and torch never reach a caller unmapped: the module that calls the library
raises one of these from them.
"""

from __future__ import annotations

from .terminal_text import MOST_MESSAGE, one_line

TYPE_CHECKING = False  # importing typing takes 5 ms of every command
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import Any, Self

EXIT_FAILED = 1
"""The check or the parity comparison ran, and its result is negative."""
EXIT_ERROR = 2
"""A usage, input or environment error, which the caller can fix."""
EXIT_BUG = 70
"""A bug in lstm-onnx (BSD's EX_SOFTWARE)."""


class LSTMOnnxError(Exception):
    """The base class of every error of lstm-onnx.

    ``str(error)`` is the complete message, ``PATH: MESSAGE; HINT``, on one line and safe to print.

    Args:
        message: what is wrong.
        path: the file that it is about, where the message should start with it.
        hint: how to fix it, where the message should end with it.
        name: the input, output, axis or argument that it is about.
        index: its index: of an element of `name`, or of a sequence that was passed to `Model.map`, from 0.

    Attributes:
        message: `message` as passed, without path and hint.
        path: `path` as a str; None where the error is about no file, or where that is not known.
        hint: `hint`, or None.
        name: `name`, or None.
        index: `index`, or None.
        exit_code: of the command line.
    """

    exit_code: int = EXIT_ERROR
    name: str | None
    path: str | None

    def __init__(
        self,
        message: str = "",
        *,
        path: str | os.PathLike[str] | None = None,
        hint: str | None = None,
        name: str | None = None,
        index: int | tuple[int, ...] | None = None,
    ) -> None:
        message = str(message)
        text = f"{path}: {message}" if path is not None else message
        super().__init__(f"{text}; {hint}" if hint else text)
        self.message = message
        self.path = None if path is None else str(path)
        self.hint = hint
        self.name = name
        self.index = index

    @classmethod
    def of_argument(cls, name: str, value: object, allowed: str) -> Self:
        """The error of an argument, a field or an option that is not possible; `allowed` is what it must be."""
        return cls(f"{name} = {shown(value)} is not possible", hint=f"it must be {allowed}", name=name)

    def __str__(self) -> str:
        """The message on one line and printable: names in it come from files that may be hostile."""
        return one_line(super().__str__(), MOST_MESSAGE)

    @property
    def reason(self) -> str:
        """The message without the path, for a report that names the file already."""
        return one_line(f"{self.message}; {self.hint}" if self.hint else self.message, MOST_MESSAGE)

    def data(self) -> dict[str, Any]:
        """The keyword arguments that make an equal error, ready for JSON."""
        index = list(self.index) if isinstance(self.index, tuple) else self.index
        return {"path": self.path, "hint": self.hint, "name": self.name, "index": index}


class ConfigError(LSTMOnnxError):
    """A model's .toml, or the arguments of nn.LSTM or of an export, are not possible."""


class WeightsError(LSTMOnnxError):
    """A weights file cannot be read, or its tensors do not match the model."""


class ExportError(LSTMOnnxError):
    """A module cannot be exported."""


class ModelError(LSTMOnnxError):
    """An .onnx file cannot be read, or is not a model that this version can run."""


class InputError(LSTMOnnxError, ValueError):
    """Arrays passed to a model do not fit it: name, rank, shape, dtype or range."""


class FileError(LSTMOnnxError):
    """A file cannot be read or written, or its content is not what its format requires."""


class ProviderError(LSTMOnnxError):
    """The requested execution provider is not available, or cannot run the model."""


class RunError(LSTMOnnxError):
    """ONNX Runtime accepted the model and the inputs, and failed while running.

    Attributes:
        ort_message: ONNX Runtime's own message, where there is one.
    """

    ort_message: str | None = None


class MissingDependencyError(LSTMOnnxError, ImportError):
    """An optional package is not installed, or two that exclude each other are."""


def one_of(options: Iterable[str]) -> str:
    """As in ``one of "scan", "fold"``."""
    return "one of " + ", ".join(f'"{option}"' for option in options)


def shown(value: object) -> str:
    """A wrong argument as an error shows it: on one line, and shortened."""
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except Exception:  # noqa: BLE001 - its own __repr__ may be what is wrong
        text = f"<{type(value).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


def reason(error: BaseException) -> str:
    """The message of another library's error, on one line and shortened."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - as above
        text = ""
    text = text or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."

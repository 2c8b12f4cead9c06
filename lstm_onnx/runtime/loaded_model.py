"""The sessions of a model's file: one for each purpose, and what takes their place once they must not be used."""

from __future__ import annotations

import os
from typing import Any

from ..errors import FileError, ModelError, RunError
from .providers import open_session


def fingerprint(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """A file's device, inode, size and modification time; None where there is no file.

    External data is not included.  lstm-onnx names its own by digest, so that other weights come with another
    model file; who overwrites any other external data has to load the model again.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib would be a tenth of all that is imported
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def one_thread_session(file: str, session: Any, provider: str, loaded: tuple[int, ...] | None) -> Any:
    """A session for the model of `session` whose runs stay in the thread that calls them.

    It is `session` itself where that has one thread or runs on CUDA, or where the file was deleted or replaced
    since it was loaded, as on a server that updates its models: the results are the same, and slower.

    Args:
        file: the model's file.
        session: open on it.
        provider: "cpu" or "cuda".
        loaded: the file's `fingerprint` when it was loaded; None where another session must not be opened.
    """
    if provider == "cuda" or session.get_session_options().intra_op_num_threads == 1:
        return session
    if loaded is None or fingerprint(file) != loaded:
        return session
    try:
        single, _ = open_session(file, "cpu", 1)
    except (FileError, ModelError):
        return session
    return single if fingerprint(file) == loaded else session


class ClosedSession:
    """Takes the place of a session that must not be used any more."""

    def __init__(self, message: str, *, path: str, hint: str) -> None:
        self._error = {"message": message, "path": path, "hint": hint}

    def __getattr__(self, name: str) -> Any:
        """Raise the error, whatever is used of the session."""
        error = self.__dict__["_error"]
        raise RunError(error["message"], path=error["path"], hint=error["hint"])

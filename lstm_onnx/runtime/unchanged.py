"""Refuses a file that another program writes while it is read, checked or converted, so results are of one version.

Most operations open a file more than once: to read its graph and its weights, to run it, for a child process.
If it is replaced in between, or written in place, part of the result would come from the old file and part from the
new one.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from ..atomic_io import require_path, writing_only_if
from ..errors import FileError, ModelError
from .file_digest import files_beside
from .loaded_model import LoadedModel, fingerprint

P = ParamSpec("P")
T = TypeVar("T")
Path = str | os.PathLike[str]


@contextmanager
def unchanged(file: Path | LoadedModel | None, verb: str) -> Iterator[None]:
    """A context in which a file, and those in its folder that hold its weights, must not change.

    Args:
        file: the file, or an open model of it; None for none.
        verb: what is done with it, such as "quantized".

    Raises:
        ModelError: it was changed, or was since the model was loaded; raised instead of any error that this caused, and
            no file is written then.
    """
    if file is None:
        yield
        return
    path = file.file if isinstance(file, LoadedModel) else file
    before = fingerprint(path)
    if isinstance(file, LoadedModel) and file.fingerprint not in (None, before):
        raise ModelError("was changed after it was loaded", path=file.path, hint="load it again")
    beside = _beside(path)
    weights = [fingerprint(each) for each in beside]

    def require() -> None:
        if fingerprint(path) != before or [fingerprint(each) for each in beside] != weights:
            raise ModelError(f"was changed while it was {verb}", path=path, hint="try again")

    try:
        with writing_only_if(require):
            yield
    finally:
        require()


def of_one_file(verb: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates a function whose first argument is the file; see `unchanged`."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        name = next(iter(inspect.signature(function).parameters))

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            path = args[0] if args else kwargs.get(name)
            if not isinstance(path, (str, os.PathLike)):
                return function(*args, **kwargs)  # which says what a path is
            require_path(path, "an .onnx file")
            with unchanged(path, verb):
                return function(*args, **kwargs)

        return call

    return decorate


def _beside(path: Path) -> list[str]:
    try:
        return files_beside(path)
    except FileError:
        return []

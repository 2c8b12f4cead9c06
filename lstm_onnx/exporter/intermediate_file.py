"""A file that another one is made of: errors about it name the other, which alone the caller knows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..atomic_io import temporary_folder
from ..errors import LSTMOnnxError


@contextlib.contextmanager
def intermediate_file(name: str, path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path of a file called `name` in a temporary folder.

    Args:
        name: of the file.
        path: the file that is made of it.

    Raises:
        LSTMOnnxError: as within the context, about `path`.
    """
    with temporary_folder() as folder:
        file = folder / name
        try:
            yield file
        except LSTMOnnxError as error:
            old, new = os.fspath(file), os.fspath(path)
            data = error.data()
            if data["path"] == old:
                data["path"] = new
            raise type(error)(error.message.replace(old, new), **data) from error

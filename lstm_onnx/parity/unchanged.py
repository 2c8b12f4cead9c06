"""Refuses a verdict on a file that another program changes during the comparison; see `runtime.unchanged`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ModelError
from ..runtime import Model
from ..runtime.loaded_model import fingerprint
from ..runtime.unchanged import unchanged as file_unchanged


@contextmanager
def unchanged(file: str | os.PathLike[str] | Model | None) -> Iterator[None]:
    """A context during which a file, or the file of a model that `load` returned, must not change.

    Raises:
        ModelError: the file was changed; raised instead of any error that followed from it.
    """
    if file is None:
        yield
        return
    path = file.file if isinstance(file, Model) else file
    if isinstance(file, Model) and file.fingerprint is not None and fingerprint(path) != file.fingerprint:
        raise ModelError("was changed after it was loaded", path=file.path, hint="load it again")
    with file_unchanged(path, "verified"):
        yield

"""A verdict is on one file: where another program writes it meanwhile, there is none; see `runtime.unchanged`."""

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
    """Within the context the file stays what it is, or what `load` returned was made of; None is no file.

    Raises:
        ModelError: it was changed, in the place of whatever came of that.
    """
    if file is None:
        yield
        return
    path = file.file if isinstance(file, Model) else file
    if isinstance(file, Model) and file.fingerprint is not None and fingerprint(path) != file.fingerprint:
        raise ModelError("was changed after it was loaded", path=file.path, hint="load it again")
    with file_unchanged(path, "verified"):
        yield

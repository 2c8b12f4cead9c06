"""A verdict is on one file: where another program writes it meanwhile, there is none.

A verification opens its file more than once, for copies with changed weights and for mutants.  If it is replaced in
between, one part of a report would be on the old file and another on the new one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ModelError
from ..runtime import Model
from ..runtime.loaded_model import fingerprint


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
    before = fingerprint(path)
    if isinstance(file, Model):
        before = file.fingerprint or before
        _require(before, path, file.path, "was changed after it was loaded", "load it again")
    try:
        yield
    finally:
        name = file.path if isinstance(file, Model) else file
        _require(before, path, name, "was changed while it was verified", "verify it again")


def _require(
    before: tuple[int, ...] | None,
    path: str | os.PathLike[str],
    name: str | os.PathLike[str],
    message: str,
    hint: str,
) -> None:
    if fingerprint(path) != before:
        raise ModelError(message, path=name, hint=hint)

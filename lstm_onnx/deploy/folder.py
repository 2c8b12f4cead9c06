"""Writes the files of a folder for other programs so that they appear together or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..atomic_io import atomic_write, make_folder, one_writer, require_writable
from ..errors import FileError


@contextlib.contextmanager
def files_together(folder: Path, files: Mapping[str, bytes | Path], *, also: Iterable[str] = ()) -> Iterator[None]:
    """A context that writes files to a folder; they appear if the block ends without an exception, in their order.

    If anything fails before that, the folder is unchanged, or removed if it was new.

    Args:
        folder: the folder, which is created if it does not exist.
        files: the content of each file, or a file to copy, by its name in the folder.
        also: names of files that the block writes itself.

    Raises:
        FileError: a file cannot be read or written.
    """
    made: list[str] = []
    try:
        for name in (*also, *files):
            place = folder / name
            made += [os.fspath(path) for path in reversed((place.parent, *place.parent.parents)) if not path.exists()]
            make_folder(place.parent)
            require_writable(place)
        # One writer at a time, so that files of two models never mix.
        with one_writer(folder), contextlib.ExitStack() as stack:
            for name, content in reversed(list(files.items())):  # since an ExitStack exits in reverse order
                written = content if isinstance(content, bytes) else _content(content)
                stack.enter_context(atomic_write(folder / name)).write(written)
            yield
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(path)  # noqa: PTH106
        raise


def _content(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror or error}", path=source) from error

"""The files of a folder that other programs read, which appear together or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..atomic_io import atomic_write, make_folder, one_writer, require_writable
from ..errors import FileError


@contextlib.contextmanager
def files_together(folder: Path, files: Mapping[str, bytes | Path], *, also: Iterable[str] = ()) -> Iterator[None]:
    """Write files of a folder, which appear when the block ends without an exception, the last of them last.

    If anything fails before that, the folder is as it was, and one that was made is removed.

    Args:
        folder: is made if it is not there.
        files: by the name in the folder, their content or a file to copy.
        also: names of files that the block writes itself.

    Raises:
        FileError: a file cannot be read or written.
    """
    made: list[str] = []
    try:
        for name in (*also, *files):
            place = folder / name
            made += _make_folders(place.parent)
            require_writable(place)
        # Files of two models never mix: another process waits, until all are replaced.
        with one_writer(folder), contextlib.ExitStack() as stack:
            for name, content in reversed(list(files.items())):  # a stack ends what was begun last first
                written = content if isinstance(content, bytes) else _content(content)
                stack.enter_context(atomic_write(folder / name)).write(written)
            yield
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(path)  # noqa: PTH106
        raise


def _make_folders(folder: Path) -> list[str]:
    """Make a folder and those above it; those that were made, the outermost first."""
    missing = [os.fspath(path) for path in (folder, *folder.parents) if not path.exists()]
    try:
        make_folder(folder)
    except FileError:
        for path in missing:
            with contextlib.suppress(OSError):
                os.rmdir(path)  # noqa: PTH106
        raise
    return missing[::-1]


def _content(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror or error}", path=source) from error

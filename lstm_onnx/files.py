"""Files written whole or not at all.

A file is written under a temporary name in its own folder, flushed to the disk, and moved over its
target in one step (``os.replace`` is atomic on POSIX and on Windows).  Whatever goes wrong before
that step, the target is as it was and nothing else is left behind.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from .errors import FileError
from .isolation.stages import share

if TYPE_CHECKING:
    from pathlib import Path


_UNFINISHED: set[Path] = set()
"""Temporary files that are being written."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open `path` for binary writing; it appears when the block ends without an exception.

    A symbolic link is followed, so that the file it points to is the one replaced.  A device or a
    pipe (``/dev/stdout``) has nothing to replace and is written to directly.

    Raises:
        FileError: the folder is missing or read-only, the path is a directory, the disk is full.
    """
    target = require_writable(path)
    temporary: Path | None = None
    try:
        if _is_special(target):
            with open(target, "wb") as stream:
                yield stream
            return
        temporary = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
        _UNFINISHED.add(temporary)
        share({"unfinished": str(temporary)})
        # "x" creates with the caller's umask, where tempfile would make a file for its owner alone.
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}; nothing was changed") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)  # it is not there any more where all went well
            _UNFINISHED.discard(temporary)


def discard_unfinished() -> None:
    """Take away what is half written, for a process that ends in the middle of it."""
    for temporary in list(_UNFINISHED):
        with contextlib.suppress(OSError):
            temporary.unlink()


def require_writable(path: str | os.PathLike[str]) -> Path:
    """Where `atomic_write` would write, with links followed; what it never could is refused.

    Raises:
        FileError: it is a directory, or its folder is missing.
    """
    from pathlib import Path  # which takes as long to import as a small model to load, and loading needs none

    if "\0" in str(path):
        raise FileError(f"{str(path)!r}: is not a path; name a file to write")
    # A pipe has no path of its own, so it is looked for before links are followed.
    target = Path(path) if _is_special(Path(path)) else Path(os.path.realpath(path))
    if os.path.isdir(target):  # noqa: PTH112 - which takes names of any length
        raise FileError(f"{path}: is a directory; name a file to write")
    if not os.path.isdir(target.parent):  # noqa: PTH112
        raise FileError(f"{path}: the folder {target.parent} does not exist; make it first")
    return target


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def require_readable(path: str | os.PathLike[str], what: str) -> None:
    """Refuse what is no file with something in it.

    Raises:
        FileError: it does not exist, is a directory, is empty, or may not be read; `what` says in
            the message what was expected there.
    """
    if "\0" in str(path):
        raise FileError(f"{str(path)!r}: is not a path; expected {what}")
    try:
        found = os.stat(path)  # noqa: PTH116 - without pathlib
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}; expected {what}") from error
    if stat.S_ISDIR(found.st_mode):
        raise FileError(f"{path}: is a directory; expected {what}")
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        raise FileError(f"{path}: is empty; expected {what}")
    if not os.access(path, os.R_OK):
        raise FileError(f"{path}: permission denied; expected {what}")


def readable_file(path: str | os.PathLike[str], what: str) -> Path:
    """`path` as a Path, once it is known to be a file with something in it.

    Raises:
        FileError: see `require_readable`.
    """
    from pathlib import Path

    require_readable(path, what)
    return Path(path)

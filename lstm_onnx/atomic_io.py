"""Atomic writing of files, and checks of paths.

A file is written under a temporary name in the target's folder, flushed to the disk, and moved to the target in one
step (``os.replace`` is atomic on POSIX and on Windows).  If anything fails before that step, the target is unchanged
and no other file remains.  A killed process leaves its temporary file, which the next one that writes to the same
target removes.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING

from .errors import FileError
from .isolation.stages import share

if TYPE_CHECKING:
    from pathlib import Path

    Name = str | os.PathLike[str]

_UNFINISHED: set[str] = set()
"""Temporary files and folders in use."""
READER_SECONDS = 10.0
"""How long to wait for a reader of a pipe."""
_LONGEST_SHOWN = 400
"""Characters of a path in an error."""
_GIT_LFS = b"version https://git-lfs.github.com/spec/"
_LARGEST_POINTER = 1024
"""Bytes, by Git LFS's specification."""
_PREFIX, _SUFFIX = ".lstm-onnx-", ".tmp"
_conditions: contextvars.ContextVar[tuple[Callable[[], None], ...]] = contextvars.ContextVar("conditions", default=())


@contextlib.contextmanager
def writing_only_if(condition: Callable[[], None]) -> Iterator[None]:
    """Within the context no file is replaced unless `condition` returns: what it raises is raised instead."""
    token = _conditions.set((*_conditions.get(), condition))
    try:
        yield
    finally:
        _conditions.reset(token)


@contextlib.contextmanager
def atomic_write(path: Name) -> Iterator[IO[bytes]]:
    """Open `path` for binary writing; the file appears when the block ends without an exception.

    A symbolic link is followed, so that its target is replaced.  Devices and pipes (``/dev/stdout``) are written
    to directly.

    Raises:
        FileError: see `require_writable`; or the disk is full, or the pipe has no reader.
    """
    target = require_writable(path)
    try:
        with _opened_special(target) if _is_special(target) else _replacing(target) as stream:
            yield stream
    except OSError as error:
        if isinstance(error, BrokenPipeError) and is_stdout(target):
            return  # the reader has closed its end, as head does
        raise FileError(
            f"cannot be written: {error.strerror or error}", hint="nothing was changed", path=path
        ) from error


def _opened_special(target: Path) -> IO[bytes]:
    """Open a device or a pipe for writing, waiting for the reader of a pipe for at most `READER_SECONDS`."""
    if not stat.S_ISFIFO(target.stat().st_mode):
        return open(target, "wb")
    import time

    until = time.monotonic() + READER_SECONDS
    while True:
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > until:
                raise OSError(error.errno, "it is a pipe that no process has opened for reading") from error
            time.sleep(0.02)
        else:
            os.set_blocking(descriptor, True)
            return open(descriptor, "wb")


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """A new file that replaces `target` when the block ends without an exception."""
    import hashlib

    # Short for any length of the target's name.
    prefix = f"{_PREFIX}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}-"
    _remove_stale(target.parent, prefix)
    temporary = ""
    try:
        while True:
            temporary = str(target.with_name(f"{prefix}{os.urandom(4).hex()}{_SUFFIX}"))
            _UNFINISHED.add(temporary)
            share({"unfinished": temporary})
            # "x" applies the caller's umask; tempfile would create a file that only its owner can read.
            with open(temporary, "xb") as stream:
                locked = _lock(stream.fileno())
                if locked and not os.fstat(stream.fileno()).st_nlink:
                    _UNFINISHED.discard(temporary)
                    continue  # another process removed it as a leftover before it was locked
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                for condition in _conditions.get():
                    condition()
                if target.exists():
                    os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))  # noqa: PTH101
                if locked:  # while locked, so that no other process removes it as a leftover
                    os.replace(temporary, target)
            if not locked:  # Windows cannot move an open file
                os.replace(temporary, target)
            return
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - after success it does not exist any more
        _UNFINISHED.discard(temporary)


def _lock(descriptor: int, *, wait: bool = True) -> bool:
    """Lock a file, if possible; whether it is locked now.  The system unlocks it when the process ends in any way."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # Windows, a file system without locks, or locked by another process
        return False
    return True


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Let no other process or thread be in such a block for the same folder, where the system has locks for folders.

    For what consists of several files, each of which `atomic_write` writes.
    """
    with contextlib.ExitStack() as opened:
        with contextlib.suppress(OSError):  # Windows opens no folder
            descriptor = os.open(folder, os.O_RDONLY)
            opened.callback(os.close, descriptor)
            _lock(descriptor)
        yield


def _remove_stale(folder: Path, prefix: str) -> None:
    """Remove temporary files of killed processes: those that are not locked."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        stale = [entry.path for entry in entries if entry.name.startswith(prefix) and entry.name.endswith(_SUFFIX)]
    for path in stale:
        with contextlib.suppress(OSError), open(path, "rb") as stream:
            if _lock(stream.fileno(), wait=False):
                os.unlink(path)  # noqa: PTH108


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder that only this user can read, removed with its content when the block ends.

    Raises:
        FileError: it cannot be created.
    """
    import shutil
    import tempfile
    from pathlib import Path

    folder = ""
    try:
        try:
            folder = os.path.join(tempfile.gettempdir(), f"lstm-onnx-{os.urandom(8).hex()}")  # noqa: PTH118
            _UNFINISHED.add(folder)
            os.mkdir(folder, 0o700)  # noqa: PTH102
        except OSError as error:
            why = f"a temporary folder cannot be created: {error.strerror or error}"
            raise FileError(why, hint="set TMPDIR to another folder") from error
        yield Path(folder)
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        _UNFINISHED.discard(folder)


def make_folder(path: Name) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        FileError: it cannot be made, as where a file has its name.
    """
    try:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103
    except OSError as error:
        above = [os.fspath(path)]
        while (parent := os.path.dirname(above[-1])) not in ("", above[-1]):  # noqa: PTH120
            above.append(parent)
        file = next((one for one in above if os.path.lexists(one) and not os.path.isdir(one)), None)  # noqa: PTH112
        if file is not None:
            hint = "name a folder, which is made if it is not there"
            raise FileError("is not a folder", path=file, hint=hint) from error
        raise FileError(f"cannot be created: {error.strerror or error}", path=path) from error


def discard_unfinished() -> None:
    """Remove incomplete files and temporary folders of a process that is about to end."""
    import shutil

    for path in list(_UNFINISHED):
        with contextlib.suppress(OSError):
            if os.path.isdir(path):  # noqa: PTH112
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)  # noqa: PTH108


def require_writable(path: Name) -> Path:
    """The path to which `atomic_write` would write, with links followed, once it is known to be possible.

    Raises:
        FileError: it is a directory or names one, its folder is missing or may not be written to, its name is too
            long, or it is a link to itself, a disk or a socket.
    """
    from pathlib import Path  # imported late: it takes as long as loading a small model, which does not need it

    require_path(path, "a file to write")
    # A pipe may have no path of its own, so this comes before links are followed.
    target = Path(path) if _is_special(Path(path)) else Path(os.path.realpath(path))
    if os.path.isdir(target):  # noqa: PTH112 - it accepts names of any length
        raise FileError("is a directory", hint="name a file to write", path=path)
    if os.fspath(path).endswith(tuple(sep for sep in (os.sep, os.altsep) if sep)):
        raise FileError(f"{path!r}: names a folder", hint="name a file to write")
    if not os.path.isdir(target.parent):  # noqa: PTH112
        if os.path.lexists(target.parent):
            raise FileError(f"{target.parent} is not a folder", hint="name a file in one", path=path)
        raise FileError(f"the folder {target.parent} does not exist", hint="make it first", path=path)
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        why = "is a link that leads back to itself" if error.errno == errno.ELOOP else error.strerror or str(error)
        raise FileError(why, hint="name another file to write", path=path) from error
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise FileError(f"is a {'disk' if stat.S_ISBLK(mode) else 'socket'}", hint="name a file to write", path=path)
    if stat.S_ISREG(mode) and not os.access(target.parent, os.W_OK | os.X_OK):
        raise FileError(
            f"the folder {target.parent} may not be written to", hint="name a file in another one", path=path
        )
    return target


def require_apart(outputs: Iterable[Name | None], inputs: Iterable[Name | None]) -> None:
    """Refuse outputs that are also inputs, and equal outputs, also through links.

    Args:
        outputs: the paths to be written; None and "-" are ignored.
        inputs: the paths to be read; "-" is the standard input, which may be redirected from a file.

    Raises:
        FileError: one of `outputs` is one of `inputs`, or another one of `outputs`; or one of them is not a path.
    """
    used = {_identity(path): (path, "read") for path in _texts(inputs)}
    for path in _texts(outputs):
        if path == "-":
            continue
        identity = _identity(path)
        if identity is None:
            continue
        if identity in used:
            other, use = used[identity]
            if other == path:
                raise FileError(f"is {use} as well", hint="name another file to write", path=path)
            name = "the standard input" if other == "-" else other
            raise FileError(f"is the same file as {name}, which is {use}", hint="name another file to write", path=path)
        used[identity] = path, "written"


def _texts(paths: Iterable[Name | None]) -> Iterator[str]:
    for path in paths:
        if path is not None:
            require_path(path, "a file")
            yield os.fspath(path)


def _identity(path: Name) -> object:
    """Equal for two paths of one file, also by x/../y without a folder x; None for devices and pipes, which stay."""
    try:
        found = os.fstat(0) if path == "-" else os.stat(path if os.path.exists(path) else os.path.realpath(path))  # noqa: PTH110, PTH116
    except (OSError, ValueError):
        return None if path == "-" else os.path.realpath(path)
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def is_stdout(path: Name) -> bool:
    """Whether `path`, such as ``/dev/stdout``, is the standard output."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(1))  # noqa: PTH116
    except (OSError, ValueError):
        return False


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def require_path(path: object, what: str) -> None:
    """Refuse values that are not paths.

    Raises:
        FileError: it is neither a str nor an os.PathLike of one, or contains characters that no path can; `what`
            says in the message what was expected.
    """
    try:
        text = os.fspath(path)  # type: ignore[call-overload]
    except Exception as error:
        raise FileError(f"a path must be a str or an os.PathLike, not {type(path).__name__}") from error
    if not isinstance(text, str):
        raise FileError(f"a path must be a str or an os.PathLike of one, not {type(text).__name__}")
    if not text:
        raise FileError("the path is empty", hint=f"expected {what}")
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise FileError(f"{text!a:.200}: is not a path", hint=f"expected {what}")


def require_readable(path: str | os.PathLike[str], what: str, *, pipes: bool = False) -> None:
    """Refuse everything but non-empty regular files, as devices and pipes may be endless.

    With `pipes`, pipes are accepted too.

    Raises:
        FileError: it does not exist, is a directory, a device, a socket or a pipe, is empty, may not be read, or
            is a pointer of Git LFS; `what` says in the message what was expected there.
    """
    require_path(path, what)
    try:
        found = os.stat(path)  # noqa: PTH116 - without pathlib
    except OSError as error:
        text = os.fspath(path)
        shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:100]}...{text[-100:]}"
        raise FileError(error.strerror or str(error), hint=f"expected {what}", path=shown) from error
    if stat.S_ISDIR(found.st_mode):
        raise FileError("is a directory", hint=f"expected {what}", path=path)
    is_pipe = stat.S_ISFIFO(found.st_mode)
    if not stat.S_ISREG(found.st_mode) and not (pipes and is_pipe):
        kind = "a pipe" if is_pipe else "a socket" if stat.S_ISSOCK(found.st_mode) else "a device"
        raise FileError(f"is {kind}, not a regular file", hint=f"expected {what}", path=path)
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        raise FileError("is empty", hint=f"expected {what}", path=path)
    if not os.access(path, os.R_OK):
        raise FileError("permission denied", hint=f"expected {what}", path=path)
    if stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST_POINTER and _is_git_lfs_pointer(path):
        raise FileError("is a pointer of Git LFS to a file that was not fetched", hint="run git lfs pull", path=path)


def _is_git_lfs_pointer(path: str | os.PathLike[str]) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_GIT_LFS)) == _GIT_LFS
    except OSError:
        return False  # an error that names it follows


def require_utf8(path: Name) -> None:
    """Refuse a name that onnx and ONNX Runtime cannot open.

    Raises:
        FileError: it is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise FileError("its name is not UTF-8, which ONNX Runtime requires", hint="rename it", path=path) from error


def readable_file(path: Name, what: str, *, pipes: bool = False) -> Path:
    """`path` as a Path, once it is known to be a non-empty regular file; with `pipes`, or a pipe.

    Raises:
        FileError: see `require_readable`.
    """
    from pathlib import Path

    require_readable(path, what, pipes=pipes)
    return Path(path)

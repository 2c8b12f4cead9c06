"""Reads and writes files in any storage that pyarrow supports: a local path, or a URI such as s3://bucket/folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..atomic_io import require_path
from ..data.parquet import require_pyarrow
from ..errors import FileError, reason

_WHOLE_OR_NOT = ("s3", "gcs", "abfs")
"""Kinds of storage in which an object appears only once it is completely written."""
_COPIED = 2**22
TEMPORARY = ".unfinished-"
"""The prefix of the names of unfinished files; its leading dot hides them from readers of the folder."""


@dataclass(frozen=True)
class Storage:
    """A file or folder.

    Attributes:
        place: the path or URI as the user wrote it; a local path is made absolute, since workers have another working
            directory.
        filesystem: pyarrow's filesystem.
        path: the path within that.
    """

    place: str
    filesystem: Any
    path: str

    @property
    def is_local(self) -> bool:
        """Whether it is a path on this machine, which others may not see."""
        return bool(self.filesystem.type_name == "local")

    def child(self, name: str) -> str:
        """The path of a file in this folder; the folder's own for ""."""
        return f"{self.path.rstrip('/')}/{name}" if name else self.path

    def place_of(self, name: str) -> str:
        """The path or URI of a file in this folder, as the user would write it."""
        return f"{self.place}/{name}" if name else self.place

    def kind(self) -> str:
        """ "file", "folder", or "" if there is nothing (FileError)."""
        fs = _fs()
        with readable(self.place):
            found = self.filesystem.get_file_info(self.path).type
        return {fs.FileType.File: "file", fs.FileType.Directory: "folder", fs.FileType.NotFound: ""}.get(found, "other")

    def files(self, *, recursive: bool) -> list[Any]:
        """pyarrow's FileInfo for each file in this folder (FileError)."""
        fs = _fs()
        selector = fs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
        with readable(self.place):
            found = self.filesystem.get_file_info(selector)
        files = [info for info in found if info.type != fs.FileType.Directory]
        return sorted(files, key=lambda info: self.relative(info.path))

    def relative(self, path: str) -> str:
        """The path of a file within this folder."""
        return os.path.relpath(path, self.path).replace(os.sep, "/")

    def read(self, name: str) -> bytes | None:
        """The content of a file in this folder; None if it does not exist (FileError)."""
        with readable(f"{self.place}/{name}"):
            try:
                with self.filesystem.open_input_file(self.child(name)) as stream:
                    content: bytes = stream.read()
                    return content
            except FileNotFoundError:
                return None

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[Any]:
        """A context with a stream for a new file in this folder, which appears complete or not at all (FileError)."""
        target = self.child(name)
        direct = self.filesystem.type_name in _WHOLE_OR_NOT
        temporary = target if direct else self.child(f"{TEMPORARY}{name}-{uuid.uuid4().hex[:8]}.tmp")
        try:
            if self.is_local:
                with open(temporary, "xb") as stream:
                    yield stream
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, target)
                return
            # Closing an object store's stream completes the object even after an error, so it is written at the end.
            with tempfile.TemporaryFile() as whole:
                yield whole
                whole.seek(0)
                with self.filesystem.open_output_stream(temporary) as stream:
                    shutil.copyfileobj(whole, stream, _COPIED)
            if not direct:
                self.filesystem.move(temporary, target)
        except OSError as error:
            self._discard(temporary)
            raise FileError(f"cannot be written: {reason(error)}", path=f"{self.place}/{name}") from error
        except BaseException:
            self._discard(temporary)
            raise

    def _discard(self, temporary: str) -> None:
        with contextlib.suppress(OSError):
            self.filesystem.delete_file(temporary)


def storage(place: str | os.PathLike[str], what: str) -> Storage:
    """The storage for a local path or a URI.

    Raises:
        FileError: `place` is neither, or pyarrow does not support its kind; the message says that `what` was expected.
        MissingDependencyError: pyarrow is not installed.
    """
    require_pyarrow()
    require_path(place, what)
    fs = _fs()
    text = os.fsdecode(place)
    if "://" not in text:
        path = os.path.abspath(text)  # noqa: PTH100 - without following links
        return Storage(path, fs.LocalFileSystem(), path)
    try:
        filesystem, path = fs.FileSystem.from_uri(text)
    except (OSError, ValueError, ArithmeticError) as error:
        raise FileError(f"{text}: cannot be opened: {reason(error)}", hint=f"expected {what}") from error
    return Storage(text.rstrip("/"), filesystem, path)


@contextlib.contextmanager
def readable(place: str) -> Iterator[None]:
    """A context in which errors of the storage while reading `place` become FileErrors."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{place}: cannot be read: {reason(error)}") from error


def _fs() -> Any:
    import pyarrow.fs

    return pyarrow.fs

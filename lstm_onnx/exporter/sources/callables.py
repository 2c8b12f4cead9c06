"""The Python behind ``package.module:callable`` and ``file.py:callable``, imported."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from ...errors import ExportError, FileError

_FILE_MODULE = "_lstm_onnx_source_"
"""The prefix of the names of modules that are imported from files."""


def import_file(file: Path, where: str) -> Any:
    """A Python file as a module; while it is imported, it can import files of its folder (FileError, ExportError)."""
    if not file.is_file():
        raise FileError(f"{where}: {file} does not exist")
    name = f"{_FILE_MODULE}{hashlib.sha256(os.fsencode(file.resolve())).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # noqa: S101 - it ends in .py
    assert spec.loader is not None  # noqa: S101
    namespace = importlib.util.module_from_spec(spec)
    sys.modules[name] = namespace
    sys.path.insert(0, str(file.resolve().parent))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(namespace)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ExportError(f"{where}: {file} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(file.resolve().parent))
    return namespace


def import_package(package: str, where: str) -> Any:
    """A package or module by its name (ExportError)."""
    # As `python -m` does, so that a module in the current folder is found.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for our own results
            return importlib.import_module(package)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        missing = isinstance(error, ModuleNotFoundError) and f"{package}.".startswith(f"{error.name}.")
        hint = (
            "it is looked for in the current folder and in Python's path: set PYTHONPATH to the folder that contains "
            f"{package.partition('.')[0]}, such as src, or name its file, as in {package.replace('.', '/')}.py:callable"
        )
        text = f"{where}: {package} cannot be imported: {reason}"
        raise ExportError(text, hint=hint if missing else None) from error


def attribute_of(namespace: Any, path: str, where: str) -> Any:
    """The object that a dotted path names in a module (ExportError)."""
    value = namespace
    for part in path.split("."):
        if not hasattr(value, part):
            close = difflib.get_close_matches(part, [name for name in dir(value) if not name.startswith("_")], n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            name = Path(namespace.__file__).name if namespace.__name__.startswith(_FILE_MODULE) else namespace.__name__
            raise ExportError(f"{where}: {name} has no {path!r}{hint}")
        value = getattr(value, part)
    return value

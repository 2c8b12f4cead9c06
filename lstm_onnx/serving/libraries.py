"""Whether what the extra ``serve`` installs is there; this module imports none of it."""

from __future__ import annotations

import importlib.util
import sys

from ..errors import MissingDependencyError

_NEEDED = ("uvicorn", "httptools", "websockets", "grpc", "google.protobuf", "prometheus_client")


def require_libraries() -> None:
    """Refuse to start without the libraries of the extra ``serve`` (MissingDependencyError)."""
    for name in (*_NEEDED, *(() if sys.platform == "win32" else ("uvloop",))):
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise MissingDependencyError(
                f"serving needs {name}, which is not installed", hint="pip install 'lstm-onnx[serve]'"
            )

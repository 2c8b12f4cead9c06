"""`lstm-onnx serve`: models over HTTP, gRPC and websockets, in the Open Inference Protocol v2 and with streams.

Everything runs in one event loop: requests that run a whole sequence are batched by `whole`, those of a stream by the
runtime's `Batcher`.  Only the command imports this package.  The libraries it needs come with the extra ``serve``, and
this module imports none of them.
"""

from __future__ import annotations

import importlib.util
import sys

from ..errors import MissingDependencyError

_NEEDED = ("uvicorn", "httptools", "websockets", "grpc", "google.protobuf", "prometheus_client")


def require_libraries() -> None:
    """Raise MissingDependencyError unless the libraries of the extra ``serve`` are installed."""
    for name in (*_NEEDED, *(() if sys.platform == "win32" else ("uvloop",))):
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise MissingDependencyError(
                f"serving needs {name}, which is not installed", hint="pip install 'lstm-onnx[serve]'"
            )

"""The libraries of `lstm-onnx serve` and nothing of it: a session, uvicorn and gRPC that answer nothing.

``python -m tests.benchmarks.bare_server FILE`` prints a line once it listens.
"""

from __future__ import annotations

import sys

import grpc
import httptools  # noqa: F401 - what the server imports
import numpy  # noqa: F401, ICN001
import onnxruntime
import prometheus_client  # noqa: F401
import uvicorn
import uvloop
import websockets.server  # noqa: F401
from google.protobuf import descriptor_pool, json_format, message_factory  # noqa: F401


async def app(scope: object, receive: object, send: object) -> None:
    """Answer nothing."""


async def main() -> None:
    onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    config = uvicorn.Config(app, port=0, ws="websockets-sansio", http="httptools", loop="none", log_level="error")
    config.load()
    print("started", flush=True)


if __name__ == "__main__":
    uvloop.run(main())

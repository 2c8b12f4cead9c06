"""What a server without lstm-onnx does: a websocket per stream, each with an InferenceSession of its own.

``python -m tests.benchmarks.session_server FILE``; it prints its port.  Libraries and options are those of
`lstm-onnx serve`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
import uvloop


class SessionApp:
    """The ASGI application."""

    def __init__(self, path: str, threads: int) -> None:
        self.path = path
        self.executor = ThreadPoolExecutor(threads)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        del scope
        await receive()
        loop = asyncio.get_running_loop()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        pairs = json.loads(session.get_modelmeta().custom_metadata_map["lstm_onnx.states"])
        states = {name: np.zeros((2, 1, 256), np.float32) for name in pairs}
        output = next(item.name for item in session.get_outputs() if item.name not in pairs.values())
        names = [output, *pairs.values()]

        def step(data: bytes) -> bytes:
            x = np.frombuffer(data, np.float32).reshape(1, -1, 80)
            y, *new = session.run(names, {"x": x, **states})
            states.update(zip(pairs, new, strict=True))
            return y.tobytes()

        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "{}"})
        while (message := await receive())["type"] == "websocket.receive":
            answer = await loop.run_in_executor(self.executor, step, message["bytes"])
            await send({"type": "websocket.send", "bytes": answer})


async def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        SessionApp(sys.argv[1], 2),
        ws="websockets-sansio",
        loop="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        ws_per_message_deflate=False,
    )
    print(listener.getsockname()[1], flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    uvloop.run(main())

"""The limit on the bytes of all requests together that wait for an answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from lstm_onnx.errors import InputError
from lstm_onnx.runtime import Model
from lstm_onnx.serving.client import open_stream

from ..runtime.models import randoms
from .servers import LONG, Server, serving
from .test_grpc_client import tensor
from .test_http import INFER, ask, error_of, infer

FULL = "the requests that wait for an answer have 3000 bytes in total, so this one was not run; try again later"


def test_what_is_too_much_together_is_refused_over_every_protocol(folder: Path, lstm: Model) -> None:
    x, wide = randoms(1, 1, 4), randoms(50, 1, 4)  # of 16 and of 800 bytes

    async def websocket(server: Server) -> None:
        async with open_stream(server.http, "lstm") as stream:
            alone = lstm.stream()
            for _ in range(2):
                np.testing.assert_array_equal(await stream.step(x), alone(x))
                with pytest.raises(InputError, match=FULL):
                    await stream.step(wide)

    with serving([folder / "lstm.onnx"], "--max-pending-bytes", "3000", "--max-request-bytes", "100000") as server:
        assert server.grpc is not None
        small, large = infer(), infer(parameters={"filling": "x" * 1000})
        with socket.create_connection(("127.0.0.1", server.port), LONG) as half:
            head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2500\r\n\r\n"
            half.sendall(head.encode() + b" " * 2400)
            end = time.monotonic() + LONG
            while (answer := ask(server, "POST", INFER, large))[0] != 503:
                assert time.monotonic() < end
            assert error_of(answer) == (503, FULL)
            assert answer[1]["connection"] == "close"
            assert ask(server, "POST", INFER, small)[0] == 200
            packed = gzip.compress(json.dumps(large).encode())
            assert error_of(ask(server, "POST", INFER, packed, Content_Encoding="gzip")) == (503, FULL)
            asyncio.run(websocket(server))
            with triton.InferenceServerClient(server.grpc) as client:
                assert client.infer("lstm", [tensor("input", x)]).as_numpy("output") is not None
                with pytest.raises(triton.InferenceServerException, match=FULL) as refused:
                    client.infer("lstm", [tensor("input", wide)])
                assert refused.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        while (answer := ask(server, "POST", INFER, large))[0] != 200:  # what the vanished client sent is let go
            assert time.monotonic() < end
        with triton.InferenceServerClient(server.grpc) as client:
            for _ in range(10):  # none of what was refused still counts
                client.infer("lstm", [tensor("input", wide)])

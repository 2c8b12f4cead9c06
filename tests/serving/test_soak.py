"""A server under load for long: many sequences, many connections, clients that read nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton

from lstm_onnx.runtime import Model
from lstm_onnx.serving.client import open_stream

from ..runtime.models import randoms
from .servers import LONG, Server, serving
from .test_http import INFER, ask, infer, metric
from .test_websocket import url


def interleave(server: Server, model: Model, sequences: int, connections: int, seconds: float) -> int:
    """Sequences of random lengths over shared connections, each against a stream alone; how many steps."""

    async def caller(clients: list, library: list, number: int, end: float) -> int:
        rng = np.random.default_rng(number)
        steps = 0
        while time.monotonic() < end:
            alone = model.stream()
            length = int(rng.integers(2, 20))
            for index in range(length):
                x = rng.standard_normal((1, int(rng.integers(1, 3)), 80)).astype(np.float32)
                which = int(rng.integers(len(clients)))
                tensor = library[which].InferInput("input", list(x.shape), "FP32")
                tensor.set_data_from_numpy(x)
                found = await clients[which].infer(
                    "wide",
                    [tensor],
                    sequence_id=f"soak {number}" if number % 2 else 10_000 + number,
                    sequence_start=index == 0,
                    sequence_end=index == length - 1,
                )
                np.testing.assert_array_equal(found.as_numpy("output"), alone(x))
                steps += 1
        return steps

    async def main() -> int:
        library = [triton if index % 2 else triton_grpc for index in range(connections)]
        clients = [each.InferenceServerClient(server.address if each is triton else server.grpc) for each in library]
        try:
            end = time.monotonic() + seconds
            return sum(await asyncio.gather(*[caller(clients, library, n, end) for n in range(sequences)]))
        finally:
            for client in clients:
                await client.close()

    return asyncio.run(main())


def test_interleaved_sequences(server: Server, wide: Model) -> None:
    assert interleave(server, wide, sequences=40, connections=8, seconds=1) > 40


@pytest.mark.slow
def test_200_interleaved_sequences_for_a_minute(server: Server, wide: Model) -> None:
    assert interleave(server, wide, sequences=200, connections=8, seconds=60) > 2_000


@pytest.mark.slow
def test_10_000_connections_that_are_dropped(server: Server, lstm: Model) -> None:
    async def main() -> None:
        x = randoms(1, 1, 4)
        alone = lstm.stream()
        async with open_stream(server.http, "lstm") as stream:
            for number in range(10_000):
                connection = socket.create_connection(("127.0.0.1", server.port), LONG)
                if number % 3 == 1:
                    connection.sendall(
                        f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{".encode()
                    )
                elif number % 3 == 2:
                    connection.sendall(b"GET /v2/models/lstm/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: webso")
                connection.close()
                if number % 50 == 0:
                    np.testing.assert_array_equal(await stream.step(x), alone(x))

    asyncio.run(main())
    assert ask(server, "GET", "/v2/health/ready")[0] == 200


def test_a_client_that_reads_nothing_is_cut_off(folder: Path, lstm: Model) -> None:
    from websockets.asyncio.client import connect

    async def main(server: Server) -> None:
        x = randoms(1, 1, 4)
        alone = lstm.stream()
        async with connect(url(server, "wide"), max_queue=1, compression=None) as slow:
            await slow.recv()
            slow.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.transport.pause_reading()
            frame = bytes(2000 * 80 * 4)
            sending = [asyncio.create_task(slow.send(frame)) for _ in range(40)]  # each is answered with 512 kB
            async with open_stream(server.http, "lstm") as stream:
                end = time.monotonic() + LONG
                while await asyncio.to_thread(metric, server, 'lstm_onnx_streams{model="wide"}') != 0:
                    np.testing.assert_array_equal(await stream.step(x), alone(x))
                    assert time.monotonic() < end
                    await asyncio.sleep(0.02)
            for task in sending:
                task.cancel()
            slow.transport.abort()

    files = [folder / "wide.onnx", folder / "lstm.onnx"]
    with serving(files, "--deadline", "1", "--no-grpc") as server:
        asyncio.run(main(server))


def test_a_full_queue_refuses_and_loses_nothing(folder: Path, lstm: Model) -> None:
    """Steps that are refused with 503 leave their stream as it was: asked again, they give the right numbers."""
    frames = [randoms(1, 1, 4, seed=seed) for seed in range(4)]

    async def caller(server: Server, number: int) -> int:
        alone = lstm.stream()
        refused = 0
        for index, x in enumerate(frames):
            parameters = {"sequence_id": number, "sequence_start": index == 0, "sequence_end": index == 3}
            body = infer(x.ravel().tolist(), parameters=parameters)
            expected = alone(x).ravel().tolist()
            while True:
                status, headers, data = await asyncio.to_thread(ask, server, "POST", INFER, body)
                if status == 200:
                    assert json.loads(data)["outputs"][0]["data"] == expected
                    break
                assert (status, headers["retry-after"]) == (503, "1"), data
                refused += 1
        return refused

    async def main(server: Server) -> int:
        return sum(await asyncio.gather(*[caller(server, number) for number in range(1, 25)]))

    with serving([folder / "lstm.onnx"], "--queue", "1", "--no-grpc") as server:
        asyncio.run(main(server))
        assert ask(server, "POST", INFER, infer(parameters={"sequence_id": 1}))[0] == 400

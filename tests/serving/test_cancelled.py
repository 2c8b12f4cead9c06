"""Requests whose clients go away: what runs for them is ended, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from lstm_onnx.runtime import load
from lstm_onnx.serving.protocol.messages import MESSAGES
from lstm_onnx.serving.single_streams import SingleStreams
from lstm_onnx.serving.whole import WholeSequences

from .endless import ENDLESS, endless
from .servers import LONG, Server, serving
from .test_end import until_used, used
from .test_http import ask, error_of

PATH = "/v2/models/endless/infer"
STREAM = "/v2/models/endless/stream"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("endless") / "endless.onnx"
    endless(path)
    return path


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    with serving([model], "--window", "0") as running:
        yield running


def request(x: float, **parameters: object) -> dict:
    tensors = [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [x]}]
    return {"inputs": tensors, "parameters": parameters}


def total(server: Server, x: float, **parameters: object) -> float:
    """The answer to a request that is run soon."""
    status, _, body = ask(server, "POST", PATH, request(x, **parameters))
    assert status == 200, body
    return float(json.loads(body)["outputs"][0]["data"][0])


def cancelled(server: Server) -> int:
    return sum(event["event"] == "cancelled" for event in server.events())


def until_cancelled(server: Server, count: int) -> None:
    end = time.monotonic() + LONG
    while cancelled(server) < count:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert cancelled(server) == count


class Curl:
    """It is killed, which closes both directions of its socket."""

    def __init__(self, server: Server, x: float, **parameters: object) -> None:
        if shutil.which("curl") is None:
            pytest.skip("there is no curl")
        body = json.dumps(request(x, **parameters))
        self.process = subprocess.Popen(["curl", "-s", server.http + PATH, "-d", body], stdout=subprocess.DEVNULL)

    def leave(self) -> None:
        self.process.kill()
        self.process.wait()


class HttpClient:
    def __init__(self, server: Server, x: float, **parameters: object) -> None:
        self.connection = http.client.HTTPConnection(server.address, timeout=LONG)
        self.connection.request("POST", PATH, json.dumps(request(x, **parameters)))

    def leave(self) -> None:
        self.connection.close()


class GrpcCancel:
    timeout: float | None = None

    def __init__(self, server: Server, x: float) -> None:
        message = MESSAGES["ModelInferRequest"](model_name="endless")
        message.inputs.add(name="x", datatype="FP32", shape=[1, 1]).contents.fp32_contents.append(x)
        self.channel = grpc.insecure_channel(server.grpc)
        method = self.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        self.future = method.future(message.SerializeToString(), timeout=self.timeout)

    def leave(self) -> None:
        self.future.cancel()
        self.channel.close()


class GrpcDeadline(GrpcCancel):
    timeout = 2.0

    def leave(self) -> None:
        assert self.future.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        self.channel.close()


@pytest.mark.parametrize("client", [Curl, HttpClient, GrpcCancel, GrpcDeadline])
def test_both_workers_are_free_once_their_clients_have_gone(server: Server, client: type) -> None:
    before, spent = cancelled(server), used(server)
    clients = [client(server, ENDLESS) for _ in range(2)]
    until_used(server, spent + 0.2)
    for each in clients:
        each.leave()
    until_cancelled(server, before + 2)
    assert total(server, 3) == 3
    result = f'lstm_onnx_requests_total{{model="endless",protocol="{"grpc" if "Grpc" in client.__name__ else "http"}"'
    assert result + ',result="cancelled"}' in ask(server, "GET", "/metrics")[2].decode()


def test_a_run_ends_at_its_deadline(server: Server) -> None:
    for _ in range(3):  # more than there are workers
        answer = ask(server, "POST", PATH, request(ENDLESS, timeout=200_000))
        assert error_of(answer) == (504, "no result within 0.2 s")
    assert total(server, 3) == 3


def test_a_sequence_counts_a_request_whose_client_has_gone(server: Server) -> None:
    """It runs to its end, so that the states are known; with sequence_end it is ended."""
    before, spent = cancelled(server), used(server)
    first = HttpClient(server, 1_000_000, sequence_id=7, sequence_start=True)
    until_used(server, spent + 0.1)
    first.leave()
    until_cancelled(server, before + 1)
    assert total(server, 5, sequence_id=7) == 1_000_005
    spent = used(server)
    last = HttpClient(server, ENDLESS, sequence_id=7, sequence_end=True)
    until_used(server, spent + 0.2)
    last.leave()
    until_cancelled(server, before + 2)
    assert total(server, 3, sequence_id=7, sequence_start=True, sequence_end=True) == 3


async def _opened(server: Server) -> ClientConnection:
    websocket = await connect(f"ws{server.http[4:]}{STREAM}")
    await websocket.recv()
    return websocket


def _frame(x: float) -> bytes:
    return np.float32(x).tobytes()


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("ahead", [0, 3])
def test_a_websocket_that_is_closed_ends_its_step(server: Server, how: str, ahead: int) -> None:
    """All streams of a model are stepped by one thread; further frames may have been sent before."""

    async def main() -> None:
        other, leaving = await _opened(server), await _opened(server)
        spent = used(server)
        for x in (ENDLESS, *[1.0] * ahead):
            await leaving.send(_frame(x))
        await asyncio.to_thread(until_used, server, spent + 0.2)
        if how == "abort":
            leaving.transport.abort()
        else:
            await leaving.close()
        await other.send(_frame(3))
        assert await asyncio.wait_for(other.recv(), LONG) == _frame(3)
        await other.close()

    before = cancelled(server)
    asyncio.run(main())
    until_cancelled(server, before + 1)


def test_frames_that_come_during_a_long_step_are_kept(server: Server) -> None:
    async def main() -> None:
        websocket = await _opened(server)
        for x in (100_000, 1, 2, 3):
            await websocket.send(_frame(x))
        totals = [await asyncio.wait_for(websocket.recv(), LONG) for _ in range(4)]
        assert totals == [_frame(x) for x in (100_000, 100_001, 100_003, 100_006)]
        await websocket.close()

    asyncio.run(main())


def test_a_client_that_only_sends_no_more_gets_its_answer(server: Server) -> None:
    """After an interim response, by which it is told from one that has gone."""
    body = json.dumps(request(300_000)).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), LONG) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert json.loads(answer.read())["outputs"][0]["data"] == [300_000]


def test_others_of_a_batch_get_their_results(model: Path) -> None:
    """Of five requests that run as one batch two are given up: the run goes on until the last one is."""
    sizes: list[int] = []

    async def main(whole: WholeSequences) -> None:
        def waiting(x: float) -> asyncio.Task:
            return asyncio.create_task(whole.run({"x": np.full((1, 1), x, np.float32)}, LONG))

        blocking = waiting(30_000)
        await asyncio.sleep(0)
        batch = [waiting(x) for x in (1, 2, 100_000, 4, 5)]
        await blocking
        await asyncio.sleep(0.05)
        batch[0].cancel()
        batch[4].cancel()
        assert [(await task)["total"].item() for task in batch[1:4]] == [2, 100_000, 4]
        assert whole.waiting == 0
        given_up = waiting(ENDLESS)
        await asyncio.sleep(0.1)
        given_up.cancel()
        assert (await waiting(6))["total"].item() == 6

    with load(model, "cpu", 1) as loaded, ThreadPoolExecutor(1) as executor:
        whole = WholeSequences(
            loaded, executor, max_rows=8, queue=8, workers=1, on_batch=lambda size, _: sizes.append(size)
        )
        asyncio.run(main(whole))
    assert sizes == [1, 5, 1]


def test_a_stream_that_is_stepped_alone(model: Path) -> None:
    """As of a file whose batch is fixed: a step that nobody needs any more is ended, and one that counts is not."""

    async def main(streams: SingleStreams) -> None:
        stream, other = streams.open(), streams.open()
        counted = asyncio.create_task(stream.astep({"x": np.full((1, 1), 50_000, np.float32)}, timeout=LONG))
        await asyncio.sleep(0.05)
        counted.cancel()
        found = await stream.astep({"x": np.full((1, 1), 2, np.float32)}, timeout=LONG)
        assert found["total"].item() == 50_002
        lost = asyncio.create_task(stream.astep({"x": np.full((1, 1), ENDLESS, np.float32)}, timeout=LONG))
        await asyncio.sleep(0.05)
        lost.cancel()
        stream.close()
        assert (await other.astep({"x": np.full((1, 1), 3, np.float32)}, timeout=LONG))["total"].item() == 3

    with load(model, "cpu", 1) as loaded, ThreadPoolExecutor(1) as executor:
        asyncio.run(main(SingleStreams(loaded, executor, lambda *_: None)))

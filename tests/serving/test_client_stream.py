"""The client's stream over a connection that is made up: callers that are cancelled, and ends among answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from lstm_onnx.errors import InputError
from lstm_onnx.serving.client import ClientStream, open_stream

_ONE = [{"name": "x", "datatype": "FP32", "shape": [1, 1]}]


class Connection:
    """It sends one frame at a time, while its gate is open, and answers each with itself."""

    def __init__(self) -> None:
        self.gate, self.lock = asyncio.Event(), asyncio.Lock()
        self.answers: asyncio.Queue[bytes | str | None] = asyncio.Queue()

    async def send(self, frame: bytes) -> None:
        async with self.lock:
            await self.gate.wait()
            await self.answers.put(frame)

    def __aiter__(self) -> Connection:
        return self

    async def __anext__(self) -> bytes | str:
        answer = await self.answers.get()
        if answer is None:
            raise StopAsyncIteration
        return answer

    async def close(self) -> None:
        await self.answers.put(None)


def numbered(number: float) -> np.ndarray:
    return np.full((1, 1), number, np.float32)


def test_a_caller_that_is_cancelled_before_its_frame_is_sent_takes_no_others_answer() -> None:
    async def main() -> list[Any]:
        connection = Connection()
        stream = ClientStream(connection, {"inputs": _ONE, "outputs": _ONE, "elements": {"x": [1, 0]}})
        steps = [asyncio.create_task(stream.step(numbered(number))) for number in range(4)]
        await asyncio.sleep(0.01)
        steps[1].cancel()
        await asyncio.sleep(0.01)
        connection.gate.set()
        async with asyncio.timeout(10):
            found = await asyncio.gather(*steps, return_exceptions=True)
            found.append(await stream.step(numbered(4)))
        await stream._close()
        return found

    found = asyncio.run(main())
    assert isinstance(found.pop(1), asyncio.CancelledError)
    assert [array.item() for array in found] == [0, 2, 3, 4]


def test_frames_are_sent_in_the_order_of_their_calls() -> None:
    """That of the call that was awaited first was sent first."""
    sent: list[float] = []

    class Noting(Connection):
        async def send(self, frame: bytes) -> None:
            sent.append(np.frombuffer(frame, np.float32).item())
            await super().send(frame)

    async def main() -> None:
        connection = Noting()
        connection.gate.set()
        stream = ClientStream(connection, {"inputs": _ONE, "outputs": _ONE, "elements": {"x": [1, 0]}})
        first = asyncio.create_task(stream.step(numbered(0)))
        async with asyncio.timeout(10):
            assert [(await step).item() for step in (stream.step(numbered(1)), first)] == [1, 0]
        await stream._close()

    asyncio.run(main())
    assert sent == [0, 1]


def test_memory_may_be_written_again_before_its_task_begins() -> None:
    async def main() -> list[Any]:
        connection = Connection()
        connection.gate.set()
        stream = ClientStream(connection, {"inputs": _ONE, "outputs": _ONE, "elements": {"x": [1, 0]}})
        memory, steps = numbered(0), []
        for number in range(4):
            memory[...] = number
            steps.append(asyncio.create_task(stream.step(memory)))
        wrong = stream.step(memory[0])  # an error is raised where it is awaited
        with pytest.raises(InputError):
            await wrong
        found = await asyncio.gather(*steps)
        await stream._close()
        return found

    assert [array.item() for array in asyncio.run(main())] == [0, 1, 2, 3]


@pytest.mark.parametrize("closing", [True, False])
def test_the_end_of_the_stream_is_no_answer_to_a_frame(closing: bool) -> None:
    async def main() -> None:
        connection = Connection()
        stream = ClientStream(connection, {"inputs": _ONE, "outputs": _ONE, "elements": {"x": [1, 0]}})
        step = asyncio.create_task(stream.step(numbered(0)))
        await asyncio.sleep(0.01)
        await connection.answers.put(json.dumps({"error": "why", **({"closing": True} if closing else {})}))
        await stream._close()
        with pytest.raises(ConnectionError if closing else InputError, match=r"^why$"):
            await step

    asyncio.run(main())


@pytest.mark.parametrize("server", ["127.0.0.1:8000", "localhost:8000", "ftp://127.0.0.1", "http:///x", ""])
def test_a_server_that_is_no_url_is_said(server: str) -> None:
    async def main() -> None:
        with pytest.raises(InputError, match=r"^server = '.*' is not a URL; write it as http://HOST:PORT$"):
            async with open_stream(server, "m"):
                pass

    asyncio.run(main())


@pytest.mark.parametrize("snapshots", [None, 5])
def test_a_server_that_ends_the_connection_at_once_is_said(snapshots: int | None) -> None:
    async def main() -> None:
        async with serve(ServerConnection.close, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            with pytest.raises(ConnectionError, match=rf"^{url} ended the connection: "):
                async with open_stream(url, "m", snapshots=snapshots):
                    pass

    asyncio.run(main())

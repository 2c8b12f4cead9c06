"""A client of the websockets of `lstm-onnx serve`, for asyncio; it needs websockets and numpy."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ..errors import InputError
from ..runtime.arguments import positive_integer
from .client_frames import ClientFrames, SteppedStream
from .client_target import Target
from .resuming_stream import ResumingStream


class ClientStream(SteppedStream):
    """A stream of a model on a server, which ends with its connection; made by `open_stream`."""

    def __init__(self, connection: ClientConnection, layout: Mapping[str, Any]) -> None:
        super().__init__(ClientFrames.of(layout))
        self._connection = connection
        self._waiting: deque[asyncio.Future[bytes | str]] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._ended: str | None = None
        self._reading = asyncio.create_task(self._read())

    async def _answer(self, frame: bytes) -> bytes:
        if self._ended is not None:
            raise ConnectionError(self._ended)
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        # Only their order matches answers to frames, so a frame is sent even if its caller is cancelled meanwhile.
        sending = asyncio.create_task(self._send(frame))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        found: bytes | str = await answer
        if isinstance(found, str):
            raise InputError(json.loads(found)["error"])
        return found

    async def _send(self, frame: bytes) -> None:
        with contextlib.suppress(ConnectionClosed):  # `_read` fails every call that waits
            await self._connection.send(frame)

    async def _read(self) -> None:
        reason = ""
        try:
            async for message in self._connection:
                found = json.loads(message) if isinstance(message, str) else {}
                if "closing" in found or (found and not self._waiting):  # about the stream, not a frame
                    reason = found["error"]
                elif self._waiting:
                    answer = self._waiting.popleft()
                    if not answer.done():
                        answer.set_result(message)
        except ConnectionClosed as error:
            reason = reason or str(error)
        finally:
            self._ended = reason = reason or "the stream is closed"
            for answer in self._waiting:
                if not answer.done():
                    answer.set_exception(ConnectionError(reason))
            self._waiting.clear()

    async def _close(self) -> None:
        await self._connection.close()
        await self._reading


@contextlib.asynccontextmanager
async def open_stream(
    server: str,
    model: str,
    *,
    token: str | None = None,
    ssl: Any = None,
    snapshots: int | None = None,
    reconnect: float = 30.0,
) -> AsyncIterator[ClientStream | ResumingStream]:
    """Open a stream on a server: ``async with open_stream("http://127.0.0.1:8000", "model") as stream:``.

    Args:
        server: the server's URL.
        model: the model's name.
        token: a bearer token, where the server asks for one.
        ssl: an ``ssl.SSLContext`` for https, where the system's certificates are not enough.
        snapshots: with None the stream ends with its connection.  With a number N, the server sends a snapshot of the
            states after every N frames; when the connection is lost, the stream connects again, to whatever server
            answers at `server` then, continues from the last snapshot and sends the frames since again.  See
            `ResumingStream`.
        reconnect: seconds without an answer after which a stream with snapshots gives up.

    Raises:
        ConnectionError: the server cannot be reached.
        RunError: the server refused the stream; the message has its reason.
        InputError: `server` is not a URL.
    """
    target = Target.of(server, model, token, ssl)
    if snapshots is not None:
        async with ResumingStream(target, positive_integer("snapshots", snapshots), reconnect) as resuming:
            yield resuming
        return
    connection = await target.connect()
    async with connection:
        stream = ClientStream(connection, await target.first_message(connection))
        try:
            yield stream
        finally:
            await stream._close()

"""A client of the websockets of `lstm-onnx serve`, for asyncio; it needs websockets and numpy."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ..errors import InputError
from ..runtime.arguments import positive_integer
from .client_frames import ClientFrames
from .client_target import Target
from .resuming_stream import ResumingStream


class ClientStream:
    """A stream of a model on a server; made by `open_stream`.

    Attributes:
        inputs: name, datatype and shape of each input, -1 where a size is not fixed; the batch is 1.
        outputs: the same for outputs.
    """

    def __init__(self, connection: ClientConnection, layout: Mapping[str, Any]) -> None:
        self._frames = ClientFrames.of(layout)
        self.inputs, self.outputs = self._frames.inputs, self._frames.outputs
        self._connection = connection
        self._waiting: deque[asyncio.Future[bytes | str]] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._ended: str | None = None
        self._reading = asyncio.create_task(self._read())

    def step(self, inputs: Any) -> Coroutine[Any, Any, Any]:
        """The next time steps.  Calls are answered in their order, and need not wait for one another.

        `inputs` are read by the call itself, and not when its task begins: their memory may be written again at once.
        The frame of a call that is cancelled is run all the same.

        Args:
            inputs: an array for a model with one input; or arrays by name.

        Returns:
            The output; outputs by name where `inputs` is a dict, or where there are several.

        Raises:
            InputError: the server refused the frame, or it does not fit; the stream is unchanged.
            ConnectionError: the stream is closed, and its states are gone.  Whether a frame was run whose answer
                did not come is not known.
        """
        return self._step(inputs, self._frames.framed(inputs))

    async def _step(self, inputs: Any, frame: bytes | InputError) -> Any:
        if isinstance(frame, InputError):
            raise frame
        if self._ended is not None:
            raise ConnectionError(self._ended)
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        # Answers are told apart by their order, so a frame is sent even if its caller is cancelled while it waits.
        sending = asyncio.create_task(self._send(frame))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        found = await answer
        if isinstance(found, str):
            raise InputError(json.loads(found)["error"])
        return self._frames.results(inputs, found)

    async def _send(self, frame: bytes) -> None:
        with contextlib.suppress(ConnectionClosed):  # `_read` ends every answer
            await self._connection.send(frame)

    async def _read(self) -> None:
        reason = ""
        try:
            async for message in self._connection:
                found = json.loads(message) if isinstance(message, str) else {}
                if "closing" in found or (found and not self._waiting):  # of the stream, and of no frame
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
    """A stream on a server, for ``async with open_stream("http://127.0.0.1:8000", "model") as stream:``.

    Args:
        server: its URL.
        model: the model's name.
        token: a bearer token, where the server asks for one.
        ssl: an ``ssl.SSLContext`` for https, where the system's certificates are not enough.
        snapshots: None ends the stream with its connection.  A number of frames: the server sends the states after
            each so many, and where the connection is lost the stream connects again, to whatever server there is
            then, and goes on from there; frames since are sent again.  See `ResumingStream`.
        reconnect: seconds without an answer after which such a stream gives up.

    Raises:
        ConnectionError: there is no server.
        RunError: the server refused the stream; the message is its own.
        InputError: `server` is no URL.
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

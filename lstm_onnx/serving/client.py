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
from ..runtime.call_order import Call, CallOrder
from .client_frames import ClientFrames
from .client_target import Target
from .resuming_stream import ResumingStream


class ClientStream:
    """A stream of a model on a server; made by `open_stream`.

    Attributes:
        inputs: name, datatype and shape of each input; a size that is not fixed is -1, and the batch size is 1.
        outputs: the same for outputs.
    """

    def __init__(self, connection: ClientConnection, layout: Mapping[str, Any]) -> None:
        self._frames = ClientFrames.of(layout)
        self.inputs, self.outputs = self._frames.inputs, self._frames.outputs
        self._connection = connection
        self._waiting: deque[asyncio.Future[bytes | str]] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._ended: str | None = None
        self._order = CallOrder()
        self._reading = asyncio.create_task(self._read())

    def step(self, inputs: Any) -> Coroutine[Any, Any, Any]:
        """Run the next time steps.  Calls are answered in their order, and need not wait for one another.

        `inputs` are copied when this method is called, not when its task starts: their memory may be reused at once.
        A frame is run even if its call is cancelled.

        Args:
            inputs: an array for a model with one input, or a dict of arrays by name.

        Returns:
            The output; a dict of outputs by name where `inputs` is a dict or the model has several outputs.

        Raises:
            InputError: the server refused the frame, or it does not fit; the stream is unchanged.
            ConnectionError: the stream is closed, and its states are lost.  A frame without an answer may or may not
                have been run.
        """
        call = self._order.call()
        return call.of(self._step(inputs, self._frames.framed(inputs), call))

    async def _step(self, inputs: Any, frame: bytes | InputError, call: Call) -> Any:
        if isinstance(frame, InputError):
            raise frame
        await call.turn()
        if self._ended is not None:
            raise ConnectionError(self._ended)
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        # Only their order matches answers to frames, so a frame is sent even if its caller is cancelled meanwhile.
        sending = asyncio.create_task(self._send(frame))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        found = await answer
        if isinstance(found, str):
            raise InputError(json.loads(found)["error"])
        return self._frames.results(inputs, found)

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

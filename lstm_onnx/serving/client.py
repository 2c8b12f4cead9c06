"""A client of the websockets of `lstm-onnx serve`, for asyncio; it needs websockets and numpy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from ..errors import InputError, RunError, shown
from .tensors import DATATYPES, to_bytes

_SUBPROTOCOL = "lstm-onnx"


class ClientStream:
    """A stream of a model on a server; made by `open_stream`.

    Attributes:
        inputs: name, datatype and shape of each input, -1 where a size is not fixed; the batch is 1.
        outputs: the same for outputs.
    """

    def __init__(self, connection: ClientConnection, layout: Mapping[str, Any]) -> None:
        self.inputs: list[dict[str, Any]] = layout["inputs"]
        self.outputs: list[dict[str, Any]] = layout["outputs"]
        self._connection = connection
        self._waiting: deque[asyncio.Future[bytes | str]] = deque()
        self._ended: str | None = None
        self._reading = asyncio.create_task(self._read())

    async def step(self, inputs: Any) -> Any:
        """The next time steps.  Calls are answered in their order, and need not wait for one another.

        Args:
            inputs: an array for a model with one input; or arrays by name.

        Returns:
            The output; outputs by name where `inputs` is a dict, or where there are several.

        Raises:
            InputError: the server refused the frame, or it does not fit; the stream is unchanged.
            ConnectionError: the stream is closed, and its states are gone.  Whether a frame was run whose answer
                did not come is not known.
        """
        frame = self._frame(inputs)
        if self._ended is not None:
            raise ConnectionError(self._ended)
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        with contextlib.suppress(ConnectionClosed):  # `_read` ends every answer
            await self._connection.send(frame)
        found = await answer
        if isinstance(found, str):
            raise InputError(json.loads(found)["error"])
        outputs = self._arrays(found)
        return outputs if isinstance(inputs, Mapping) or len(outputs) > 1 else next(iter(outputs.values()))

    def _frame(self, inputs: Any) -> bytes:
        if not isinstance(inputs, Mapping):
            if len(self.inputs) != 1:
                raise InputError(f"the model has the inputs {', '.join(item['name'] for item in self.inputs)}")
            inputs = {self.inputs[0]["name"]: inputs}
        parts = []
        for item in self.inputs:
            name, dtype, shape = item["name"], DATATYPES[item["datatype"]], item["shape"]
            if name not in inputs:
                raise InputError(f"the input {name} is missing", name=name)
            array = np.asarray(inputs[name])
            fits = len(array.shape) == len(shape) and all(
                size in (-1, own) for size, own in zip(shape, array.shape, strict=True)
            )
            if array.dtype != dtype or not fits:
                raise InputError(
                    f"{name} is {array.dtype} {array.shape}; the model takes {item['datatype']} {shape}", name=name
                )
            parts.append(to_bytes(array))
        if len(inputs) != len(self.inputs):
            unknown = next(name for name in inputs if name not in [item["name"] for item in self.inputs])
            raise InputError(f"{shown(unknown)} is not an input of the model")
        return b"".join(parts)

    def _arrays(self, data: bytes) -> dict[str, np.ndarray]:
        arrays, at = {}, 0
        for item in self.outputs:
            size = len(data)
            if len(self.outputs) > 1:
                (size,) = struct.unpack_from("<I", data, at)
                at += 4
            flat = np.frombuffer(data, DATATYPES[item["datatype"]], size // DATATYPES[item["datatype"]].itemsize, at)
            arrays[item["name"]] = flat.reshape(item["shape"] if item["shape"].count(-1) < 2 else -1).copy()
            at += size
        return arrays

    async def _read(self) -> None:
        reason = "the stream is closed"
        try:
            async for message in self._connection:
                if self._waiting:
                    answer = self._waiting.popleft()
                    if not answer.done():
                        answer.set_result(message)
                elif isinstance(message, str):
                    reason = json.loads(message)["error"]
        except ConnectionClosed as error:
            reason = str(error)
        finally:
            self._ended = reason
            for answer in self._waiting:
                if not answer.done():
                    answer.set_exception(ConnectionError(reason))
            self._waiting.clear()

    async def _close(self) -> None:
        await self._connection.close()
        await self._reading


@contextlib.asynccontextmanager
async def open_stream(
    server: str, model: str, *, token: str | None = None, ssl: Any = None
) -> AsyncIterator[ClientStream]:
    """A stream on a server, for ``async with open_stream("http://127.0.0.1:8000", "model") as stream:``.

    Args:
        server: its URL.
        model: the model's name.
        token: a bearer token, where the server asks for one.
        ssl: an ``ssl.SSLContext`` for https, where the system's certificates are not enough.

    Raises:
        ConnectionError: there is no server.
        RunError: the server refused the stream; the message is its own.
    """
    parts = urlsplit(server)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    url = f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/v2/models/{quote(model, safe='')}/stream"
    headers = None if token is None else {"Authorization": f"Bearer {token}"}
    options = {} if ssl is None else {"ssl": ssl}
    try:
        connection = await connect(
            url, additional_headers=headers, max_size=None, compression=None, proxy=None, **options
        )
    except InvalidStatus as error:
        body = error.response.body
        try:
            text = json.loads(body or b"")["error"]
        except (ValueError, KeyError, TypeError):
            text = f"status {error.response.status_code}"
        raise RunError(f"the server refused the stream: {text}") from error
    except (OSError, WebSocketException) as error:
        raise ConnectionError(f"{server} cannot be reached: {error}") from error
    async with connection:
        stream = ClientStream(connection, json.loads(await connection.recv()))
        try:
            yield stream
        finally:
            await stream._close()

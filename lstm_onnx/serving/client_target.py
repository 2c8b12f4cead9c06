"""Connects a client's websocket to a model on a server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from ..errors import InputError, RunError, shown

_LATER = (500, 502, 503, 504)
"""HTTP statuses, of a server or of a proxy in front of it, after which another attempt may succeed."""


class RefusedError(RunError):
    """The server refused the stream.

    Attributes:
        later: whether a later attempt may succeed, at this server or another one.
    """

    later = False


@dataclass(frozen=True)
class Target:
    """A model on a server.

    Attributes:
        server: its URL, as the caller wrote it.
        url: the URL of the websocket.
        token: a bearer token, or None.
        ssl: an ``ssl.SSLContext``, or None.
    """

    server: str
    url: str
    token: str | None
    ssl: Any

    @classmethod
    def of(cls, server: str, model: str, token: str | None, ssl: Any) -> Target:
        """The target that arguments of `open_stream` describe (InputError where `server` is not a URL)."""
        parts = urlsplit(server)
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        if scheme not in ("ws", "wss") or not parts.netloc:
            raise InputError(
                f"server = {shown(server)} is not a URL", hint="write it as http://HOST:PORT", name="server"
            )
        path = f"{parts.path.rstrip('/')}/v2/models/{quote(model, safe='')}/stream"
        return cls(server, f"{scheme}://{parts.netloc}{path}", token, ssl)

    async def connect(self, query: str = "") -> ClientConnection:
        """Open a new connection.

        Raises:
            ConnectionError: the server cannot be reached.
            RefusedError: the server refused the stream.
        """
        headers = None if self.token is None else {"Authorization": f"Bearer {self.token}"}
        options = {} if self.ssl is None else {"ssl": self.ssl}
        try:
            return await connect(
                self.url + query, additional_headers=headers, max_size=None, compression=None, proxy=None, **options
            )
        except InvalidStatus as error:
            status = error.response.status_code
            try:
                text = json.loads(error.response.body or b"")["error"]
            except (ValueError, KeyError, TypeError):
                text = f"status {status}"  # as from a proxy, whose body is not the server's JSON
                status = 503
            message = f"the server refused the stream: {text}"
            refused = RefusedError(message)
            refused.later = status in _LATER
            raise refused from error
        except (OSError, WebSocketException) as error:
            raise ConnectionError(f"{self.server} cannot be reached: {error}") from error

    async def first_message(self, connection: ClientConnection) -> dict[str, Any]:
        """What a server says of its frames (ConnectionError where it ended the connection before)."""
        try:
            first: dict[str, Any] = json.loads(await connection.recv())
        except (WebSocketException, OSError) as error:
            raise ConnectionError(f"{self.server} ended the connection: {error}") from error
        return first

"""uvicorn's HTTP connections, with limits on what it leaves open: slow and endless headers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEADER_BYTES = 64 * 2**10
HEADER_SECONDS = 10.0
"""From the first byte of a request, or the start of a connection, to the end of its headers."""


class LimitedConnection(HttpToolsProtocol):
    """One HTTP connection, until it becomes a websocket."""

    _timer: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give it a time for its first request."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Refuse headers that are too large or too slow."""
        if self._in_headers:
            self._header_bytes += len(data)
            if self._timer is None:
                self._await_headers()
        super().data_received(data)
        if self._in_headers and self._header_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response(f"the headers have more than {MOST_HEADER_BYTES} bytes")

    def on_headers_complete(self) -> None:
        """Their end."""
        self._stop()
        self._in_headers = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next headers begin."""
        super().on_message_complete()
        self._in_headers = True
        self._header_bytes = 0

    def send_400_response(self, msg: str) -> None:
        """As every other error of the protocol."""
        body = json.dumps({"error": msg}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _await_headers(self) -> None:
        self._timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self._in_headers and not self.transport.is_closing():
            self.transport.close()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def quiet_options(settings: Any) -> dict[str, Any]:
    """Options of uvicorn that say nothing, and leave signals and logs to us."""
    return {
        "http": LimitedConnection,
        "ws": "websockets-sansio",
        "lifespan": "off",
        "loop": "none",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "proxy_headers": False,
        "date_header": False,
        "ws_max_size": settings.max_request_bytes,
        "ws_per_message_deflate": False,
        "timeout_keep_alive": 30,
        "timeout_graceful_shutdown": 1,  # after our own drain
    }

"""uvicorn's HTTP connections, with limits on the size and time of headers, and with two corrections.

A client may close its direction of a connection right after a request and still read the answer; a client that has
closed both directions looks the same until something is sent to it.  And Java's client asks for HTTP/2 with each
request (``Upgrade: h2c``), which a server may ignore but uvicorn's parser does not.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MOST_HEADER_BYTES = 64 * 2**10
HEADER_SECONDS = 10.0
"""The most seconds from the first byte of a request, or the start of a connection, to the end of the headers."""
_PROBE_SECONDS = 0.2
_UPGRADE = (b"upgrade", b"http2-settings")


class LimitedConnection(HttpToolsProtocol):
    """One HTTP connection, until it becomes a websocket."""

    _timer: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _in_headers = True
    _has_sent_all = False
    _ignores_upgrade = False
    _answered: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit for the headers of its first request."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers, and stop every request, not only the last one that was read, from writing more."""
        self._stop()
        if self._answered is not None:
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Refuse headers that are too large or too slow."""
        if self._in_headers:
            self._header_bytes += len(data)
            if self._timer is None:
                self._await_headers()
        self._parse(data)
        if self._in_headers and self._header_bytes > MOST_HEADER_BYTES and not self.transport.is_closing():
            self.send_400_response(f"the headers have more than {MOST_HEADER_BYTES} bytes")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _should_upgrade(self) -> bool:
        """Whether the request asks for a websocket, which only a GET can."""
        return super()._should_upgrade() and self.parser.get_method() == b"GET"

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._ignores_upgrade:
                self._ignores_upgrade = False
                head = self._head_without_upgrade()
                self.parser = httptools.HttpRequestParser(self)
                self._parse(head + data[upgrade.args[0] :])
            else:
                self.handle_websocket_upgrade()
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _head_without_upgrade(self) -> bytes:
        """The headers read so far, without those that ask for another protocol."""
        lines = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                value = b", ".join(token for token in tokens if token.lower() not in _UPGRADE)
            if name not in _UPGRADE:
                lines.append(b"%s: %s" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether to keep the connection open until a client that sends no more has its answers."""
        self._has_sent_all = True
        waits = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        waits = waits and self.scheme == "http"  # TLS cannot be closed in one direction
        if waits:
            self._probe_later()
        return waits

    def _probe_later(self, *, sent: bool = False) -> None:
        self.loop.call_later(_PROBE_SECONDS, self._probe, sent)

    def _probe(self, sent: bool) -> None:
        """Find out whether the client still reads: if it has closed its socket, its machine refuses what is sent.

        What is sent is an interim response (1xx), which is allowed at any time before the final one and which every
        client skips.
        """
        cycle = self._answered
        if self.transport.is_closing() or cycle is None:
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        if not sent and not cycle.response_started and cycle.scope["http_version"] == "1.1":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            sent = True
        self._probe_later(sent=sent)

    def on_headers_complete(self) -> None:
        """Called once all headers of a request have arrived."""
        self._stop()
        self._in_headers = False
        self._ignores_upgrade = self.parser.should_upgrade() and not self._should_upgrade()
        if not self._ignores_upgrade:
            super().on_headers_complete()
        elif self.parser.get_method() == b"CONNECT":
            raise httptools.HttpParserError("this is no proxy")

    def on_message_complete(self) -> None:
        """Called at the end of a request: start the time limit for the next headers."""
        if self._ignores_upgrade:
            return
        super().on_message_complete()
        self._in_headers = True
        self._header_bytes = 0

    def on_response_complete(self) -> None:
        """Close the connection after the last answer to a client that sends no more."""
        super().on_response_complete()
        if self._has_sent_all and self.cycle.response_complete and not self.transport.is_closing():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer with JSON, as for every other error of the protocol."""
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
    """Options for uvicorn that turn off its own output and leave signals and logs to this package."""
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
        "timeout_graceful_shutdown": 1,  # this package has drained the server by then
    }

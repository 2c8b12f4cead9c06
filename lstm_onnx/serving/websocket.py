"""A websocket per stream: each binary frame is answered with one, in order.

The first message is text, JSON that says what a frame holds.  A frame that does not fit is answered with text,
``{"error": ...}``, and leaves the stream unchanged.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import monotonic
from typing import Any

from ..errors import shown
from .access import SUBPROTOCOL, require_access
from .errors import Kind, RequestError, as_request_error
from .frames import FrameLayout
from .service import Service
from .streams import OpenStream

IDLE_CODE = 4408
"""Close code of a stream without a frame for the idle time."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def handle_websocket(
    service: Service, scope: Mapping[str, Any], headers: Mapping[str, str], receive: Receive, send: Send
) -> None:
    """Serve one websocket until it ends."""
    await receive()
    subprotocols = scope.get("subprotocols", ())
    try:
        require_access(service, scope["path"], headers, subprotocols)
        name, version = _model_of(scope["path"])
        layout = FrameLayout.of(service.repository.ready(name, version))
        stream = service.open_stream(name, version)
    except Exception as error:  # noqa: BLE001 - every error is answered
        failure = as_request_error(error)
        if failure.kind is Kind.BUG:
            service.log.failure("websocket failed", error, path=scope["path"])
        service.refused("websocket", failure, path=scope["path"])
        await _reject(failure, send)
        return
    try:
        accepted: Message = {"type": "websocket.accept"}
        if SUBPROTOCOL in subprotocols:
            accepted["subprotocol"] = SUBPROTOCOL
        await send(accepted)
        await send({"type": "websocket.send", "text": json.dumps({"model": name, **layout.to_dict()})})
        exchange = Exchange(service, name, stream, layout, receive, send)
        service.websockets.add(exchange)
        try:
            await exchange.run()
        finally:
            service.websockets.discard(exchange)
    except OSError:
        pass  # the client vanished, of which uvicorn raises a kind from send
    finally:
        stream.close()


class Exchange:
    """The frames of one stream."""

    def __init__(
        self, service: Service, name: str, stream: OpenStream, layout: FrameLayout, receive: Receive, send: Send
    ) -> None:
        self.service, self.name, self.stream, self.layout = service, name, stream, layout
        self.receive, self.send = receive, send
        self._meter = service.meter("websocket", name)
        self._deadline = service.settings.deadline
        self._task = asyncio.current_task()
        self._receiving = False
        self._sending: float | None = None  # since when
        self._unread = False  # whether the client reads no answers
        self._ending: tuple[str, int] | None = None

    async def run(self) -> None:
        """Answer frame after frame."""
        while True:
            message = await self._next()
            if message is None or message["type"] != "websocket.receive":
                return
            answer = await self._answer(message)
            self._sending = monotonic()
            try:
                await self.send(answer)
            except asyncio.CancelledError:
                if not self._unread or self._task is None:
                    raise
                self._task.uncancel()
                text = f"the client did not read an answer within {self._deadline:g} s"
                self.service.refused("websocket", RequestError(text, Kind.LATE), model=self.name)
                return
            self._sending = None

    async def _next(self) -> Message | None:
        """The next message; None where the stream ends here."""
        try:
            self._receiving = True
            if self._ending is None:
                return await self.receive()
        except asyncio.CancelledError:
            if self._ending is None or self._task is None:
                raise
            self._task.uncancel()
        finally:
            self._receiving = False
        reason, code = self._ending
        await self.send({"type": "websocket.send", "text": json.dumps({"error": reason})})
        await self.send({"type": "websocket.close", "code": code, "reason": reason})
        return None

    def end(self, reason: str, code: int) -> None:
        """End the stream, after the frame that is running."""
        if self._ending is None:
            self._ending = reason, code
            if self._receiving and self._task is not None:
                self._task.cancel()

    def end_if_silent(self) -> None:
        """End the stream if it had no frame for the idle time, or if its client reads no answers."""
        now, idle = monotonic(), self.service.settings.idle_seconds
        if self._receiving and self._ending is None and now - self.stream.used > idle:
            self.service.metrics.expired.labels(self.name).inc()
            self.end(f"the stream was closed after {idle:g} s without a frame", IDLE_CODE)
            return
        late = self._sending is not None and now - self._sending > self._deadline
        if late and not self._unread and self._task is not None:
            self._unread = True
            self._task.cancel()

    async def _answer(self, message: Message) -> Message:
        began = self._meter.start()
        try:
            inputs = self.layout.arrays(message.get("bytes"))
            outputs = await self.stream.step(inputs, self._deadline)
        except Exception as error:  # noqa: BLE001 - every error is answered
            failure = self._meter.failed(began, error)
            self.service.refused("websocket", failure, model=self.name)
            return {"type": "websocket.send", "text": json.dumps({"error": str(failure)})}
        finally:
            self.service.running -= 1
        self._meter.done(began)
        return {"type": "websocket.send", "bytes": self.layout.answer(outputs)}


def _model_of(path: str) -> tuple[str, str]:
    match path.strip("/").split("/"):
        case ["v2", "models", name, "stream"]:
            return name, ""
        case ["v2", "models", name, "versions", version, "stream"]:
            return name, version
    raise RequestError(f"there is no websocket at {shown(path)}", Kind.NOT_FOUND)


async def _reject(failure: RequestError, send: Send) -> None:
    """Answer the handshake with an HTTP error."""
    body = json.dumps({"error": str(failure)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": failure.kind.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})

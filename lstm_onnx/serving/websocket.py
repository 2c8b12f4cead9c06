"""Serves a stream over a websocket: each binary frame is answered with one, in order.

The first message is text: JSON that describes the layout of frames.  A frame that does not fit is answered with text,
``{"error": ...}``, and leaves the stream unchanged.

With ``?snapshots=N`` each Nth answer is followed by text, ``{"snapshot": ..., "frame": n}``: the stream after its first
n frames.  A client that sends ``{"resume": SNAPSHOT}`` before its first frame gets ``{"resumed": n}`` and continues
with frame n, counted from 0; or it gets an error and the end, but never a stream that starts from the beginning.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

from ..errors import shown
from .access import SUBPROTOCOL, require_access
from .errors import Kind, RequestError
from .frames import FrameLayout
from .service import Service
from .snapshots import REFUSED_CODE, UNCERTAIN_CODE, Snapshot, opened
from .streams import OpenStream
from .vanished import Inbox, Message, Receive, VanishedError, unless_gone

IDLE_CODE = 4408
"""The close code of a stream without a frame for the idle time."""

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
        every = _snapshots_of(scope.get("query_string", b""))
        layout = FrameLayout.of(service.repository.ready(name, version))
        stream = service.open_stream(name, version)
    except Exception as error:  # noqa: BLE001 - every error is answered
        await _reject(service.refused("websocket", error, path=scope["path"]), send)
        return
    try:
        accepted: Message = {"type": "websocket.accept"}
        if SUBPROTOCOL in subprotocols:
            accepted["subprotocol"] = SUBPROTOCOL
        await send(accepted)
        first = {"model": name, **layout.to_dict()}
        if every:
            first |= {"snapshots": every, "digest": stream.served.digest}
        await send(_text(first))
        exchange = Exchange(service, name, stream, layout, receive, send, every)
        service.websockets.add(exchange)
        try:
            await exchange.run()
        finally:
            service.websockets.discard(exchange)
            exchange.inbox.close()
    except (OSError, VanishedError):
        pass  # the client is gone: then uvicorn's send raises a subclass of OSError
    finally:
        stream.close()


class Exchange:
    """The frames of one stream.

    Attributes:
        every: the number of frames from one snapshot to the next; 0 for no snapshots.
        frame: how many frames were run, including those before a snapshot from which the stream continues.
    """

    def __init__(
        self,
        service: Service,
        name: str,
        stream: OpenStream,
        layout: FrameLayout,
        receive: Receive,
        send: Send,
        every: int = 0,
    ) -> None:
        self.service, self.name, self.stream, self.layout = service, name, stream, layout
        self.inbox, self.send, self.every = Inbox(receive), send, every
        self.frame = 0
        self._saved = 0  # the frame of the last snapshot
        self._started = False  # whether a message was received
        self._meter = service.meter("websocket", name)
        self._deadline = service.settings.deadline
        self._task = asyncio.current_task()
        self._receiving = False
        self._sending: float | None = None  # the time since which a message is being sent
        self._unread = False  # whether the client has stopped reading answers
        self._ending: tuple[str, int] | None = None

    async def run(self) -> None:
        """Answer frame after frame."""
        while True:
            message = await self._next()
            if message is None or message["type"] != "websocket.receive":
                return
            snapshot = _snapshot_in(message) if self.every else None
            if snapshot is not None:
                await self._resume(snapshot)
                continue
            self._started = True
            answer = await self._answer(message)
            if answer is not None and not await self._sent(answer):
                return
            if self.every and self.frame - self._saved >= self.every and not await self._sent(await self._snapshot()):
                return

    async def _sent(self, message: Message) -> bool:
        """Send a message; return whether the client reads."""
        self._sending = monotonic()
        try:
            await self.send(message)
        except asyncio.CancelledError:
            if not self._unread or self._task is None:
                raise
            self._task.uncancel()
            text = f"the client did not read an answer within {self._deadline:g} s"
            self.service.refused("websocket", RequestError(text, Kind.LATE), model=self.name)
            return False
        self._sending = None
        return True

    async def _snapshot(self) -> Message:
        states = await self.stream.states()
        self._saved = self.frame
        text = Snapshot(self.stream.served.digest, self.frame, states).signed(self.service.snapshot_key)
        return _text({"snapshot": text, "frame": self.frame})

    async def _resume(self, snapshot: object) -> None:
        """Continue from a snapshot, or end: a client that sent one must never continue from zeros."""
        resumed = self.service.metrics.resumed
        try:
            found = self._opened(snapshot)
            await self.stream.restore(found.states)
        except Exception as error:  # noqa: BLE001 - every error is answered
            resumed.labels(self.name, "refused").inc()
            failure = self.service.refused("websocket", error, model=self.name)
            self.end(str(failure), REFUSED_CODE)
            return
        self.frame = self._saved = found.frame
        resumed.labels(self.name, "resumed").inc()
        await self._sent(_text({"resumed": self.frame}))

    def _opened(self, snapshot: object) -> Snapshot:
        if self._started:
            raise RequestError("a stream can only continue from a snapshot before its first frame")
        self._started = True
        return opened(snapshot, self.service.snapshot_key, self.stream.served.digest)

    async def _next(self) -> Message | None:
        """The next message; None if the stream ends here."""
        try:
            self._receiving = True
            if self._ending is None:
                return await self.inbox.next()
        except asyncio.CancelledError:
            if self._ending is None or self._task is None:
                raise
            self._task.uncancel()
        finally:
            self._receiving = False
        reason, code = self._ending
        if self.every and self.frame > self._saved and code not in (REFUSED_CODE, UNCERTAIN_CODE):
            await self.send(await self._snapshot())
        await self.send(_text({"error": reason, "closing": True}))
        await self.send({"type": "websocket.close", "code": code, "reason": reason})
        return None

    def end(self, reason: str, code: int) -> None:
        """End the stream after the frame that is running."""
        if self._ending is None:
            self._ending = reason, code
            if self._receiving and self._task is not None:
                self._task.cancel()

    def end_if_silent(self) -> None:
        """End the stream if it had no frame for the idle time, or if its client does not read answers."""
        now, idle = monotonic(), self.service.settings.idle_seconds
        if self._receiving and self._ending is None and now - self.stream.used > idle:
            self.service.metrics.expired.labels(self.name).inc()
            self.end(f"the stream was closed after {idle:g} s without a frame", IDLE_CODE)
            return
        late = self._sending is not None and now - self._sending > self._deadline
        if late and not self._unread and self._task is not None:
            self._unread = True
            self._task.cancel()

    async def _answer(self, message: Message) -> Message | None:
        """The answer to a frame; None if the stream ends instead (VanishedError if its client has gone)."""
        began = self._meter.start()
        try:
            data = message.get("bytes")
            inputs = self.layout.arrays(data)
            size = len(data or b"")
            self.service.take_bytes(size)
            try:  # not a context manager, whose cost every frame would pay
                outputs = await unless_gone(self.stream.step(inputs, self._deadline), self.inbox.closed)
            finally:
                self.service.pending_bytes -= size
        except (asyncio.CancelledError, VanishedError):
            self._meter.cancelled()
            raise
        except Exception as error:  # noqa: BLE001 - every error is answered
            failure = self.service.refused("websocket", self._meter.failed(began, error), model=self.name)
            if self.every and failure.kind in (Kind.LATE, Kind.BUG):
                # The frame may or may not have been run, so later snapshots might have a wrong count.
                self.end(str(failure), UNCERTAIN_CODE)
                return None
            return _text({"error": str(failure)})
        finally:
            self.service.running -= 1
        self._meter.done(began)
        self.frame += 1
        return {"type": "websocket.send", "bytes": self.layout.answer(outputs)}


def _text(value: Mapping[str, Any]) -> Message:
    return {"type": "websocket.send", "text": json.dumps(value)}


def _model_of(path: str) -> tuple[str, str]:
    match path.strip("/").split("/"):
        case ["v2", "models", name, "stream"]:
            return name, ""
        case ["v2", "models", name, "versions", version, "stream"]:
            return name, version
    raise RequestError(f"there is no websocket at {shown(path)}", Kind.NOT_FOUND)


def _snapshots_of(query: bytes) -> int:
    """The number of frames from one snapshot to the next; 0 if none are asked for (RequestError)."""
    asked = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("snapshots")
    if asked is None:
        return 0
    text = asked[-1]
    if not (text.isascii() and text.isdecimal() and len(text) < 8 and int(text)):
        raise RequestError(f"snapshots={shown(text)} is not possible; it must be a number of frames, 1 or more")
    return int(text)


def _snapshot_in(message: Message) -> object | None:
    """The snapshot in a message that asks to continue from it; None for any other message."""
    text = message.get("text")
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return (found["resume"] or "") if isinstance(found, dict) and found.keys() == {"resume"} else None


async def _reject(failure: RequestError, send: Send) -> None:
    """Answer the handshake with an HTTP error."""
    body = json.dumps({"error": str(failure)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": failure.kind.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})

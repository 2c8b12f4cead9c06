"""Cancels what runs for clients that close their connection before they have their answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_UNWATCHED_SECONDS = 0.05
"""Seconds before a client is watched: most are answered by then, and watching each from the start would cost more."""
_MOST_AHEAD = 2**20
_LEAST_COUNTED = 2**10
"""The most bytes of messages received ahead, and the least that each message counts for."""


class VanishedError(Exception):
    """The client closed the connection before its request was complete or answered."""


async def unless_gone(running: Awaitable[T], gone: Callable[[], Awaitable[bool]]) -> T:
    """Await `running`, but cancel it if its client goes.

    Args:
        running: computes what the client waits for.
        gone: waits until the client is gone; returns False if it cannot find out.  It is cancelled at the end.

    Raises:
        VanishedError: the client is gone, and `running` was cancelled.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - this is a coroutine
    watching: list[asyncio.Task[None]] = []
    vanished = False

    async def watch() -> None:
        nonlocal vanished
        if await gone():
            vanished = True
            task.cancel()

    timer = loop.call_later(_UNWATCHED_SECONDS, lambda: watching.append(loop.create_task(watch())))
    try:
        return await running
    except asyncio.CancelledError:
        if not vanished:
            raise
        task.uncancel()
        raise VanishedError from None
    finally:
        timer.cancel()
        for each in watching:
            each.cancel()


class Inbox:
    """The messages of a websocket, some of which are received ahead, while a frame runs."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ahead: deque[Message] = deque()
        self._pending: asyncio.Future[Message] | None = None  # never cancelled, as that could lose a message

    async def next(self) -> Message:
        """The next message."""
        if self._ahead:
            return self._ahead.popleft()
        pending, self._pending = self._pending, None
        return await (self._receive() if pending is None else pending)

    async def closed(self) -> bool:
        """Wait until the connection is closed; return False if too much has been received ahead to find out."""
        size = 0
        for message in self._ahead:
            size += _size(message)
        while size < _MOST_AHEAD:
            if self._pending is None:
                self._pending = asyncio.ensure_future(self._receive())
            message = await asyncio.shield(self._pending)
            self._pending = None
            self._ahead.append(message)
            if message["type"] != "websocket.receive":
                return True
            size += _size(message)
        return False

    def close(self) -> None:
        """Receive no more."""
        if self._pending is not None:
            self._pending.cancel()


def _size(message: Message) -> int:
    return max(_LEAST_COUNTED, len(message.get("bytes") or message.get("text") or b""))

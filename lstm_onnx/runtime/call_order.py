"""The order in which an async method of a stream was called, which its steps keep whichever coroutine begins first.

A coroutine begins when it is awaited, or when its task does.  After ``task = create_task(step(a))`` an
``await step(b)`` begins first, though it was called last.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Coroutine
from inspect import CORO_CLOSED, CORO_CREATED, getcoroutinestate
from typing import Any

from ..errors import InputError


class CallOrder:
    """The calls whose steps have not been requested yet, first to last."""

    def __init__(self) -> None:
        self.calls: deque[Call] = deque()

    def call(self) -> Call:
        """Note a call."""
        call = Call(self.calls)
        self.calls.append(call)
        return call


class Call:
    """One call; its coroutine awaits `turn`, and then requests its step without awaiting anything else first."""

    def __init__(self, calls: deque[Call]) -> None:
        self._calls = calls
        self._thread = threading.get_ident()
        self._coroutine: weakref.ref[Any] | None = None

    def of(self, coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """The call's coroutine, which it returns."""
        self._coroutine = weakref.ref(coroutine)
        return coroutine

    async def turn(self) -> None:
        """Let the tasks of earlier calls begin (InputError where nobody has made one, nor awaits them)."""
        try:
            while self._before():
                await asyncio.sleep(0)
                left = self._before()
                if left and all(getcoroutinestate(one) == CORO_CREATED for one in left):
                    raise InputError(
                        "an earlier step of this stream was called, but is not awaited yet, and steps run in the order "
                        "of their calls; nothing was run",
                        hint="await them in this order, or make a task of each",
                    )
        finally:
            self._calls.remove(self)

    def _before(self) -> list[Any]:
        """The coroutines of this thread's earlier calls; those that have ended, or will never begin, are dropped."""
        found = []
        for call in list(self._calls):
            if call is self:
                break
            if call._coroutine is None:  # another thread is about to make it
                continue
            coroutine = call._coroutine()
            if coroutine is None or getcoroutinestate(coroutine) == CORO_CLOSED:
                with contextlib.suppress(ValueError):  # another thread has dropped it
                    self._calls.remove(call)
            elif call._thread == self._thread:
                found.append(coroutine)
        return found

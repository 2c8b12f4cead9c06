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
from collections.abc import Callable, Coroutine
from inspect import CORO_CLOSED, CORO_CREATED, getcoroutinestate
from typing import Any

from ..errors import InputError


class CallOrder:
    """The calls whose steps have not been requested yet, first to last; each thread has an order of its own."""

    def __init__(self) -> None:
        self._own = threading.local()

    def call(self) -> Call:
        """Note a call."""
        calls: deque[Call] = vars(self._own).setdefault("calls", deque())
        call = Call(calls)
        calls.append(call)
        return call


class Call:
    """One call; its coroutine awaits `turn`, and then requests its step without awaiting anything else first."""

    def __init__(self, calls: deque[Call]) -> None:
        self._calls = calls
        self._coroutine: Callable[[], Any] = lambda: None

    def of(self, coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """The call's coroutine, which it returns."""
        self._coroutine = weakref.ref(coroutine)
        return coroutine

    async def turn(self) -> None:
        """Let the tasks of earlier calls begin (InputError where nobody has made one, nor awaits them)."""
        try:
            while self._first() is not None:
                await asyncio.sleep(0)
                first = self._first()
                if first is not None and getcoroutinestate(first) == CORO_CREATED:
                    raise InputError(
                        "an earlier step of this stream was called, but is not awaited yet, and steps run in the order "
                        "of their calls; nothing was run",
                        hint="await them in this order, or make a task of each",
                    )
        finally:
            self._calls.remove(self)

    def _first(self) -> Any:
        """The coroutine of the first call, if it is an earlier one; those that ended, or never begin, are dropped.

        Not of all: thousands of tasks may wait for their turns, in any order.
        """
        while (call := self._calls[0]) is not self:
            coroutine = call._coroutine()
            if coroutine is not None and getcoroutinestate(coroutine) != CORO_CLOSED:
                return coroutine
            with contextlib.suppress(ValueError):  # another thread has dropped it
                self._calls.remove(call)
        return None

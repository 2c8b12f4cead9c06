"""Writes a server's log: one line on stderr for each event, as text or as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ..terminal_text import MOST_MESSAGE, one_line

_MOST_OF_A_KIND = 20
"""The most lines a second for refused requests and for warnings, so that no client can fill the disk with them."""
_LIMITED = ("refused", "warning")
_NO_HANDSHAKE = "ASGI callable returned without completing handshake."
"""uvicorn's message after a websocket's handshake was answered with an HTTP error, as for a refused one."""


class Log:
    """Writes events to stderr."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._second = 0
        self._written: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def event(self, event: str, **facts: Any) -> None:
        """Write an event by its name, with `facts` as its details."""
        if self._quiet and event in ("refused", "started", "stopped", "loaded", "unloaded", "tokens"):
            return
        if event in _LIMITED and not self._may_write(event):
            return
        self._write(event, facts)

    def failure(self, event: str, error: BaseException, **facts: Any) -> None:
        """Write an error that is a bug, with its traceback."""
        text = "".join(traceback.format_exception(error))
        self._write(event, {**facts, "error": text if self._as_json else f"{type(error).__name__}: {error}"})
        if not self._as_json:
            sys.stderr.write(text)

    def _may_write(self, event: str) -> bool:
        now = int(time.monotonic())
        if now != self._second:
            left_out, self._second = self._left_out, now
            self._written, self._left_out = Counter(), Counter()
            for name, count in left_out.items():
                self._write(name, {"left_out": count})
        self._written[event] += 1
        if self._written[event] > _MOST_OF_A_KIND:
            self._left_out[event] += 1
            return False
        return True

    def _write(self, event: str, facts: Mapping[str, Any]) -> None:
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        if self._as_json:
            sys.stderr.write(json.dumps({"time": when, "event": event, **facts}, default=str) + "\n")
        else:
            details = " ".join(f"{name}={one_line(value, MOST_MESSAGE)}" for name, value in facts.items())
            sys.stderr.write(one_line(f"{when} {event} {details}", MOST_MESSAGE) + "\n")


class ToLog(logging.Handler):
    """A logging handler that passes the warnings of a library's logger on to the log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, unless it is about a task cancelled at the server's end or a refused handshake."""
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            return
        if record.msg == _NO_HANDSHAKE:
            return
        if record.exc_info and record.exc_info[1] is not None:
            self._log.failure(record.name, record.exc_info[1])
        else:
            self._log.event(record.name, message=record.getMessage())


@contextlib.contextmanager
def warnings_logged(log: Log) -> Iterator[None]:
    """A context in which Python's warnings go to the log; each about a NaN in an input, which is one request's."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        log.event("warning", message=str(message))

    with warnings.catch_warnings():
        warnings.filterwarnings("always", ".* has a NaN", RuntimeWarning)
        warnings.showwarning = show
        yield

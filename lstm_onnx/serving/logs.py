"""A server's log: one line on stderr for each event, as text or as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..terminal_text import MOST_MESSAGE, one_line

_MOST_REFUSALS = 20
"""Lines of refused requests a second; a client that sends nothing else must not fill the disk."""


class Log:
    """Writes events to stderr."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._second = 0
        self._written = self._left_out = 0

    def event(self, event: str, **facts: Any) -> None:
        """Write that something happened; `event` names it, and `facts` are its details."""
        if self._quiet and event in ("refused", "started", "stopped", "loaded", "unloaded"):
            return
        if event == "refused" and not self._may_write():
            return
        self._write(event, facts)

    def failure(self, event: str, error: BaseException, **facts: Any) -> None:
        """Write an error that is a bug, with its traceback."""
        text = "".join(traceback.format_exception(error))
        self._write(event, {**facts, "error": text if self._as_json else f"{type(error).__name__}: {error}"})
        if not self._as_json:
            sys.stderr.write(text)

    def _may_write(self) -> bool:
        now = int(time.monotonic())
        if now != self._second:
            left_out, self._second, self._written, self._left_out = self._left_out, now, 0, 0
            if left_out:
                self._write("refused", {"left_out": left_out})
        self._written += 1
        if self._written > _MOST_REFUSALS:
            self._left_out += 1
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
    """Passes warnings of a library's logger on."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; that a task was cancelled at the end of the server is none."""
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            return
        if record.exc_info and record.exc_info[1] is not None:
            self._log.failure(record.name, record.exc_info[1])
        else:
            self._log.event(record.name, message=record.getMessage())

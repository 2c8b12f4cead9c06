"""A client's stream that survives the loss of its connection or server, by snapshots of its states."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from ..errors import InputError
from .client_frames import ClientFrames, SteppedStream
from .client_target import RefusedError, Target
from .snapshots import REFUSED_CODE

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
"""Seconds from one attempt to connect to the next."""
_LOST = "the stream is lost, and nothing can continue it; open a new one and start the sequence again"


@dataclass(eq=False)
class _Frame:
    """A frame since the last snapshot, and the future of its answer."""

    data: bytes
    answer: asyncio.Future[bytes]
    answered: bool = False


class _LostError(Exception):
    """The stream cannot continue; the text says why."""


class _AgainError(Exception):
    """This connection has ended, but the stream may continue on another one; the text says why."""


class ResumingStream(SteppedStream):
    """A stream that continues from its last snapshot after its connection or server is lost.

    The client keeps the last snapshot and the frames since.  On a new connection it sends the snapshot and then these
    frames again, and drops the answers that it already has.  A stream that cannot continue, since the server has
    another model or another key, ends with an error: it never restarts from zeros.

    Made by `open_stream` with `snapshots`.

    Attributes:
        resumed: how often it was continued on another connection.
    """

    def __init__(self, target: Target, every: int, patience: float) -> None:
        super().__init__(ClientFrames([], [], {}))
        self.resumed = 0
        self._target = target
        self._every = every
        self._patience = patience
        self._digest = ""
        self._log: list[_Frame] = []
        self._sent = self._answered = 0  # how many of these frames, on this connection
        self._snapshot: str | None = None
        self._base = 0  # how many frames had been run at the snapshot
        self._more = asyncio.Event()  # set if there are frames to send
        self._waiting = 0  # frames without an answer
        self._heard = monotonic()  # the last time of an answer, or of having none to wait for
        self._lost: str | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def _answer(self, frame: bytes) -> bytes:
        if self._lost is not None:
            raise ConnectionError(self._lost)
        if not self._waiting:
            self._heard = monotonic()
        self._waiting += 1
        kept = _Frame(frame, asyncio.get_running_loop().create_future())
        self._log.append(kept)
        self._more.set()
        return await kept.answer

    # --- connections ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect for the first time (ConnectionError, RunError)."""
        connection = await self._target.connect(f"?snapshots={self._every}")
        try:
            first = await self._first_message(connection)
            self._frames = ClientFrames.of(first)
        except BaseException:
            await connection.close()
            raise
        self._digest = first["digest"]
        self._keeping = asyncio.create_task(self._keep(connection))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        assert self._keeping is not None  # noqa: S101 - as the stream was entered
        self._keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeping

    async def _first_message(self, connection: ClientConnection) -> dict[str, Any]:
        first = await self._target.first_message(connection)
        if "snapshots" not in first:
            raise ConnectionError(f"{self._target.server} has no snapshots; its lstm-onnx is too old")
        return first

    async def _keep(self, connection: ClientConnection) -> None:
        """Serve the callers of `step` until the stream is closed or lost."""
        reason = "the stream is closed"
        try:
            while True:
                try:
                    async with connection:
                        await self._exchange(connection)
                except (_AgainError, WebSocketException, OSError) as error:
                    connection = await self._connect_again(str(error) or type(error).__name__)
        except _LostError as error:
            reason = f"{_LOST}: {error}"
        except Exception as error:  # noqa: BLE001 - no caller may wait for ever
            reason = f"{_LOST}: {type(error).__name__}: {error}"
        finally:
            self._lost = reason
            for frame in self._log:
                if not frame.answer.done():
                    frame.answer.set_exception(ConnectionError(reason))
            self._log.clear()

    async def _connect_again(self, why: str) -> ClientConnection:
        """A connection on which the stream goes on, once it is needed."""
        if not self._waiting:
            self._more.clear()
            await self._more.wait()  # for the next frame, since the server may only have ended an idle stream
        pause = _FIRST_PAUSE
        while True:
            if self._is_overdue():
                raise _LostError(f"there was no answer for {self._patience:g} s; the last reason is: {why}")
            try:
                async with asyncio.timeout(self._patience):
                    connection = await self._resumed()
            except RefusedError as error:
                if not error.later:
                    raise _LostError(str(error)) from error
                why = str(error)
            except (_AgainError, WebSocketException, OSError) as error:
                why = str(error) or type(error).__name__
            else:
                self.resumed += 1
                self._sent = self._answered = 0
                return connection
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - not all clients at once
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _is_overdue(self) -> bool:
        return self._waiting > 0 and monotonic() - self._heard > self._patience

    async def _resumed(self) -> ClientConnection:
        connection = await self._target.connect(f"?snapshots={self._every}")
        try:
            await self._resume(connection)
        except BaseException:
            connection.transport.abort()
            raise
        return connection

    async def _resume(self, connection: ClientConnection) -> None:
        first = await self._first_message(connection)
        if first["digest"] != self._digest:
            raise _LostError("the server has a different model, or a different version of its file")
        if self._snapshot is None:
            return  # all frames since the first one are sent again
        await connection.send(json.dumps({"resume": self._snapshot}))
        answer = json.loads(await connection.recv())
        if "error" in answer:
            with contextlib.suppress(WebSocketException):
                await connection.recv()
            if connection.close_code == REFUSED_CODE:
                raise _LostError(answer["error"])
            raise _AgainError(answer["error"])
        if answer.get("resumed") != self._base:
            raise _LostError(f"the server continues at a frame other than {self._base}")

    # --- one connection -------------------------------------------------------------------------------------------

    async def _exchange(self, connection: ClientConnection) -> None:
        """Send and receive until the connection ends; the exception says why."""
        tasks = [asyncio.create_task(self._send(connection)), asyncio.create_task(self._watch(connection))]
        try:
            while True:
                self._receive(await connection.recv())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, connection: ClientConnection) -> None:
        """End the connection if the server neither answers nor ends it."""
        while not self._is_overdue():
            await asyncio.sleep(min(1.0, self._patience / 4))
        connection.transport.abort()

    async def _send(self, connection: ClientConnection) -> None:
        while True:
            while self._sent < len(self._log):
                frame = self._log[self._sent]
                self._sent += 1
                await connection.send(frame.data)
            self._more.clear()
            await self._more.wait()

    def _receive(self, message: bytes | str) -> None:
        """Handle a message: an answer, a snapshot or an error."""
        if isinstance(message, bytes):
            frame = self._next_answered()
            self._answered += 1
            if not frame.answered:
                self._done()
                frame.answered = True
            if not frame.answer.done():
                frame.answer.set_result(message)
            return
        found = json.loads(message)
        if "snapshot" in found:
            self._keep_snapshot(found)
        elif "closing" in found or "error" not in found:
            raise _AgainError(found.get("error", "an unknown message"))
        else:
            self._refused(found["error"])

    def _next_answered(self) -> _Frame:
        if self._answered >= self._sent:
            raise _LostError("the server answered a frame that it was not sent")
        return self._log[self._answered]

    def _done(self) -> None:
        self._waiting -= 1
        self._heard = monotonic()

    def _keep_snapshot(self, found: Mapping[str, Any]) -> None:
        number = found["frame"] - self._base
        if number != self._answered:
            raise _LostError(f"the server has run {found['frame']} frames, but answered {self._base + self._answered}")
        del self._log[:number]
        self._sent -= number
        self._answered = 0
        self._base += number
        self._snapshot = found["snapshot"]

    def _refused(self, reason: str) -> None:
        frame = self._next_answered()
        if frame.answered:  # on an earlier connection; without this frame the states would differ
            raise _AgainError(f"a frame that was run before is now refused: {reason}")
        del self._log[self._answered]
        self._sent -= 1
        self._done()
        if not frame.answer.done():
            frame.answer.set_exception(InputError(reason))

"""Runs a server's requests, independent of the protocol by which they come."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from ..version import __version__
from .errors import Kind, RequestError, as_request_error
from .logs import Log
from .metrics import Metrics
from .repository import Repository
from .requests import InferenceRequest
from .settings import Settings
from .snapshots import new_key
from .streams import OpenStream, open_stream
from .tokens import Tokens

ENDING_CODE = 1001
"""The close code of a websocket when the server ends."""
SERVER = {
    "name": "lstm-onnx",
    "version": __version__,
    "extensions": ["binary_tensor_data", "model_configuration", "model_repository", "sequence", "statistics"],
}


class Meter:
    """Counts and times the requests of one protocol for one model."""

    def __init__(self, service: Service, protocol: str, name: str) -> None:
        self._service, self._protocol, self._name = service, protocol, name
        self._statistics = service.repository.entries[name].statistics
        metrics = service.metrics
        results = ("done", "failed", "cancelled")
        self._done, self._failed, self._cancelled = (metrics.requests.labels(name, protocol, kind) for kind in results)
        self._seconds = metrics.seconds.labels(name, protocol)

    def start(self) -> float:
        """Note that a request starts to run, and return the time.  The caller must subtract 1 from `Service.running`
        at its end.
        """
        self._service.running += 1
        self._statistics.last = time.time_ns() // 1_000_000
        return time.perf_counter()

    def done(self, began: float) -> None:
        """Count a request that has its result, and its time."""
        seconds = time.perf_counter() - began
        self._statistics.success.add(seconds)
        self._done.inc()
        self._seconds.observe(seconds)

    def cancelled(self) -> None:
        """Count a request whose client no longer waits for the result."""
        self._cancelled.inc()
        self._service.log.event("cancelled", model=self._name, protocol=self._protocol)

    def failed(self, began: float, error: Exception) -> RequestError:
        """Count a request that failed or was refused; return the error to send to its client."""
        failure = as_request_error(error)
        if failure.kind is Kind.BUG:
            self._service.log.failure("request failed", error, model=self._name, protocol=self._protocol)
        self._statistics.failed.add(time.perf_counter() - began)
        self._failed.inc()
        return failure


class Websocket(Protocol):
    """An open websocket, as the service ends it."""

    def end(self, reason: str, code: int) -> None:
        """End it after the frame that is running."""

    def end_if_silent(self) -> None:
        """End it if its client has sent or read nothing for too long."""


class Service:
    """One server's models, limits, metrics and log.

    Attributes:
        settings: the server's settings.
        metrics: its counts and times.
        log: its log.
        repository: its models.
        tokens: the tokens that requests need one of; None if they need none.
        snapshot_key: the key that signs snapshots of streams.
        draining: whether the server is ending: it opens no new streams, and ends websockets after their frame.
        running: how many requests are running.
        answering: how many HTTP requests are not answered yet.
        pending_bytes: the total size of all requests that are not answered yet.
        websockets: the open websockets.
        reading: for each open ModelStreamInfer, the task that reads its requests.
    """

    def __init__(self, files: dict[str, str], settings: Settings, log: Log) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.log = log
        self.tokens = None if settings.tokens is None else Tokens(settings.tokens, log)
        self.snapshot_key = settings.snapshot_key or new_key()
        self.repository = Repository(files, settings, self.metrics)
        self.draining = False
        self.running = self.answering = self.pending_bytes = 0
        self._meters: dict[tuple[str, str], Meter] = {}
        self.websockets: set[Websocket] = set()
        self.reading: set[asyncio.Task[None]] = set()
        self._drain_end = 0.0

    @property
    def drain_seconds_left(self) -> float:
        """Seconds until requests that still run are given up; 0 before the server ends."""
        return max(self._drain_end - time.monotonic(), 0.0)

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded, and the server is not ending."""
        return not self.draining and all(entry.served is not None for entry in self.repository.entries.values())

    async def infer(self, protocol: str, name: str, version: str, request: InferenceRequest) -> dict[str, np.ndarray]:
        """Run a request; return its outputs in the order in which they were asked for.

        Raises:
            RequestError: the request was refused or failed, for any reason.
        """
        entry = self.repository.entry(name, version)
        part = request.sequence
        timeout = min(self.settings.deadline, request.timeout or self.settings.deadline)
        if part is not None and self.settings.replicated:
            raise RequestError(
                "this is one of several servers, and a sequence's requests could reach any of them; use a websocket",
                Kind.UNSUPPORTED,
            )
        if part is not None and part.start and self.draining:
            raise ending("sequence")
        meter = self.meter(protocol, name)
        began = meter.start()
        try:
            if part is None:
                served = self.repository.ready(name, version)
                names = served.validated(request.inputs, request.outputs, stream=False)
                found = await served.run_whole(request.inputs, timeout)
            else:
                model = entry.sequences.model_of(part, entry.served)
                if model is None:
                    model = self.repository.ready(name, version)
                names = model.validated(request.inputs, request.outputs, stream=True)
                found = await entry.sequences.step(entry.served, part, request.inputs, timeout)
        except asyncio.CancelledError:
            meter.cancelled()
            raise
        except Exception as error:
            raise meter.failed(began, error) from error
        finally:
            self.running -= 1
        meter.done(began)
        return {name: found[name] for name in names}

    def take_bytes(self, size: int) -> None:
        """Count `size` more bytes for a request; the caller must subtract them from `pending_bytes` at its end.

        Raises:
            RequestError: all requests together have too many bytes; these were not counted.
        """
        limit = self.settings.max_pending_bytes
        if self.pending_bytes + size > limit:
            raise RequestError(
                f"the requests that wait for an answer have {limit} bytes in total, so this one was not run; try again "
                "later",
                Kind.FULL,
            )
        self.pending_bytes += size

    @contextlib.contextmanager
    def taking(self, size: int) -> Iterator[None]:
        """A context in which `size` more bytes are counted, as by `take_bytes` (RequestError)."""
        self.take_bytes(size)
        try:
            yield
        finally:
            self.pending_bytes -= size

    def open_stream(self, name: str, version: str) -> OpenStream:
        """Open a stream for a websocket (RequestError)."""
        if self.draining:
            raise ending("stream")
        return open_stream(self.repository.ready(name, version))

    def meter(self, protocol: str, name: str) -> Meter:
        """The meter of the requests for the model `name` over a protocol."""
        meter = self._meters.get((protocol, name))
        if meter is None:
            meter = self._meters[protocol, name] = Meter(self, protocol, name)
        return meter

    def refused(self, protocol: str, error: Exception, **facts: Any) -> RequestError:
        """Count and log that a request was refused or failed; return the error to send to its client."""
        failure = as_request_error(error)
        if failure is not error and failure.kind is Kind.BUG:
            self.log.failure("request failed", error, protocol=protocol, **facts)
        self.metrics.refusals.labels(protocol, failure.kind.name.lower()).inc()
        self.log.event("refused", protocol=protocol, status=failure.kind.status, error=str(failure), **facts)
        return failure

    def is_model_ready(self, name: str, version: str) -> bool:
        """Whether a model is loaded, and the server is not ending (RequestError for an unknown name)."""
        return self.repository.entry(name, version).served is not None and not self.draining

    def statistics(self, name: str | None = None, version: str = "") -> dict[str, Any]:
        """The protocol's statistics of a model, or of all of them (RequestError for an unknown name)."""
        entries = self.repository.entries.values() if name is None else [self.repository.entry(name, version)]
        return {"model_stats": [entry.statistics.to_dict(entry.name) for entry in entries]}

    async def load(self, name: str, parameters: object) -> None:
        """Load a model, or its changed file (RequestError)."""
        if parameters:
            raise RequestError(
                "a load takes no parameters: it reads the file that the command line named", Kind.UNSUPPORTED
            )
        changed = await self.repository.load(name)
        self.log.event("loaded", model=name, changed=changed)

    async def unload(self, name: str) -> None:
        """Accept no more requests for a model (RequestError)."""
        await self.repository.unload(name)
        self.log.event("unloaded", model=name)

    async def close_idle_streams(self) -> None:
        """Close idle sequences, until this is cancelled."""
        while True:
            await asyncio.sleep(min(1.0, self.settings.idle_seconds / 4, self.settings.deadline / 4))
            self.repository.close_idle()
            for websocket in list(self.websockets):
                websocket.end_if_silent()

    async def drain(self, unread: Callable[[], int] = int) -> int:
        """Open no new streams, end the open ones, and wait for running requests, for as long as the settings say.

        Meanwhile sequences may continue over connections that are open.

        Args:
            unread: returns how many clients have not read all of their answer.

        Returns:
            The number of requests still running, and of answers still being read.
        """
        self.draining = True
        for task in self.reading:
            task.cancel()
        for websocket in list(self.websockets):
            websocket.end("the server is ending", ENDING_CODE)
        self._drain_end = time.monotonic() + self.settings.drain_seconds
        repository = self.repository
        while self.drain_seconds_left and (
            self.running or self.answering or self.websockets or repository.loading or unread()
        ):
            await asyncio.sleep(0.01)
        return max(self.running, self.answering, repository.loading, unread())


def ending(what: str) -> RequestError:
    """The error for a new stream, request or connection when the server is ending."""
    return RequestError(f"the server is ending, and accepts no new {what}", Kind.UNAVAILABLE)

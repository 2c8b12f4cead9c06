"""What a server does, independent of the protocol of a request."""

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
"""Close code of a websocket where the server ends."""
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
        """A request starts to run; when that was.  Whoever calls this takes 1 from `Service.running` at its end."""
        self._service.running += 1
        self._statistics.last = time.time_ns() // 1_000_000
        return time.perf_counter()

    def done(self, began: float) -> None:
        """Count a request that has a result, and its time."""
        seconds = time.perf_counter() - began
        self._statistics.success.add(seconds)
        self._done.inc()
        self._seconds.observe(seconds)

    def cancelled(self) -> None:
        """Nobody waits for its result any more."""
        self._cancelled.inc()
        self._service.log.event("cancelled", model=self._name, protocol=self._protocol)

    def failed(self, began: float, error: Exception) -> RequestError:
        """It failed, or was refused; the error for its client."""
        failure = as_request_error(error)
        if failure.kind is Kind.BUG:
            self._service.log.failure("request failed", error, model=self._name, protocol=self._protocol)
        self._statistics.failed.add(time.perf_counter() - began)
        self._failed.inc()
        return failure


class Websocket(Protocol):
    """An open websocket, as the service ends it."""

    def end(self, reason: str, code: int) -> None:
        """End it after its frame."""

    def end_if_silent(self) -> None:
        """End it if its client has sent nothing, or read nothing, for too long."""


class Service:
    """One server's models, limits, metrics and log.

    Attributes:
        settings: how it serves.
        metrics: what it counts.
        log: where it writes.
        repository: its models.
        tokens: who may ask; None for everybody.
        snapshot_key: with which snapshots of streams are signed.
        draining: whether the server is ending: there are no new streams, and websockets end after their frame.
        running: how many requests are running.
        answering: how many requests over HTTP are not answered yet.
        pending_bytes: of all requests that are not answered yet.
        websockets: the open ones.
        reading: of each open ModelStreamInfer, what reads its requests.
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
        """Until what still runs is given up; 0 before the server ends."""
        return max(self._drain_end - time.monotonic(), 0.0)

    @property
    def is_ready(self) -> bool:
        """Whether every model is loaded, and the server is not ending."""
        return not self.draining and all(entry.served is not None for entry in self.repository.entries.values())

    async def infer(self, protocol: str, name: str, version: str, request: InferenceRequest) -> dict[str, np.ndarray]:
        """The outputs of a request, in the order in which they were asked for.

        Raises:
            RequestError: whatever was wrong.
        """
        entry = self.repository.entry(name, version)
        part = request.sequence
        timeout = min(self.settings.deadline, request.timeout or self.settings.deadline)
        if part is not None and self.settings.replicated:
            raise RequestError(
                "this is one of several servers, and a sequence's requests would reach any of them; use a websocket",
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
        """A request has so many bytes more; whoever calls this takes them from `pending_bytes` at its end.

        Raises:
            RequestError: all requests together have too many, and these are not counted.
        """
        limit = self.settings.max_pending_bytes
        if self.pending_bytes + size > limit:
            raise RequestError(
                f"the requests that wait for an answer have {limit} bytes in all, and nothing of this one was run; try "
                "again later",
                Kind.FULL,
            )
        self.pending_bytes += size

    @contextlib.contextmanager
    def taking(self, size: int) -> Iterator[None]:
        """`take_bytes` for as long as the block runs (RequestError)."""
        self.take_bytes(size)
        try:
            yield
        finally:
            self.pending_bytes -= size

    def open_stream(self, name: str, version: str) -> OpenStream:
        """A stream of its own, for a websocket (RequestError)."""
        if self.draining:
            raise ending("stream")
        return open_stream(self.repository.ready(name, version))

    def meter(self, protocol: str, name: str) -> Meter:
        """What counts and times the requests for the model `name`."""
        meter = self._meters.get((protocol, name))
        if meter is None:
            meter = self._meters[protocol, name] = Meter(self, protocol, name)
        return meter

    def refused(self, protocol: str, error: Exception, **facts: Any) -> RequestError:
        """Count and log that a request was refused or failed; the error for its client."""
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
                "a model is loaded from the file that the command line named, without parameters", Kind.UNSUPPORTED
            )
        changed = await self.repository.load(name)
        self.log.event("loaded", model=name, changed=changed)

    async def unload(self, name: str) -> None:
        """Take no more requests for a model (RequestError)."""
        await self.repository.unload(name)
        self.log.event("unloaded", model=name)

    async def close_idle_streams(self) -> None:
        """Close silent sequences, until it is cancelled."""
        while True:
            await asyncio.sleep(min(1.0, self.settings.idle_seconds / 4, self.settings.deadline / 4))
            self.repository.close_idle()
            for websocket in list(self.websockets):
                websocket.end_if_silent()

    async def drain(self, unread: Callable[[], int] = int) -> int:
        """Take no new streams, end the open ones, and wait for what is running, for as long as the settings say.

        Sequences may go on meanwhile, over connections that are open.

        Args:
            unread: how many clients have not read all of their answer.

        Returns:
            How many requests are still running, or answers being read.
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
    """The refusal of what is new to a server that is ending."""
    return RequestError(f"the server is ending, and takes no new {what}", Kind.UNAVAILABLE)

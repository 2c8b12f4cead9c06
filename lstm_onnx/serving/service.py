"""What a server does, apart from the protocol by which it is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import numpy as np

from .. import __version__
from .errors import Kind, RequestError, as_request_error
from .logs import Log
from .metrics import Metrics
from .repository import Repository
from .requests import InferenceRequest
from .settings import Settings
from .streams import OpenStream, open_stream
from .tokens import Tokens

ENDING_CODE = 1001
"""Close code of a websocket where the server ends."""
SERVER = {
    "name": "lstm-onnx",
    "version": __version__,
    "extensions": [
        "binary_tensor_data",
        "model_configuration",
        "model_repository",
        "sequence",
        "statistics",
    ],
}


class Websocket(Protocol):
    """An open websocket."""

    def end(self, reason: str, code: int) -> None:
        """End it, after the frame that is running."""

    def end_if_idle(self, idle_seconds: float) -> None:
        """End it if it had no frame for so long."""


class Service:
    """One server's models, limits, metrics and log.

    Attributes:
        settings: how it serves.
        metrics: what it counts.
        log: where it writes.
        repository: its models.
        tokens: who may ask; None for everybody.
        draining: whether the server is ending: there are no new streams, and websockets end after their frame.
        running: how many requests are running.
        websockets: the open ones.
    """

    def __init__(self, files: dict[str, str], settings: Settings, log: Log) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.log = log
        self.tokens = None if settings.tokens is None else Tokens(settings.tokens)
        self.repository = Repository(files, settings, self.metrics)
        self.draining = False
        self.running = 0
        self.websockets: set[Websocket] = set()

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
        async with self.measured(protocol, name):
            if part is None:
                served = self.repository.ready(name, version)
                names = served.validated(request.inputs, request.outputs, stream=False)
                found = await served.run_whole(request.inputs, timeout)
            else:
                if part.start and self.draining:
                    raise RequestError("the server is ending, and takes no new sequence", Kind.UNAVAILABLE)
                model = entry.sequences.model_of(part, entry.served)
                if model is None:
                    model = self.repository.ready(name, version)
                names = model.validated(request.inputs, request.outputs, stream=True)
                found = await entry.sequences.step(entry.served, part, request.inputs, timeout)
        return {name: found[name] for name in names}

    def open_stream(self, name: str, version: str) -> OpenStream:
        """A stream of its own, for a websocket (RequestError)."""
        if self.draining:
            raise RequestError("the server is ending, and takes no new stream", Kind.UNAVAILABLE)
        return open_stream(self.repository.ready(name, version))

    @asynccontextmanager
    async def measured(self, protocol: str, name: str) -> AsyncIterator[None]:
        """Count and time a request for the model `name`; its error becomes a RequestError."""
        statistics = self.repository.entries[name].statistics
        began = time.perf_counter()
        self.running += 1
        try:
            yield
        except Exception as error:
            failure = as_request_error(error)
            if failure.kind is Kind.BUG:
                self.log.failure("request failed", error, model=name, protocol=protocol)
            statistics.failed.add(time.perf_counter() - began)
            self.metrics.requests.labels(name, protocol, "failed").inc()
            raise failure from error
        finally:
            self.running -= 1
            statistics.last = time.time_ns() // 1_000_000
        seconds = time.perf_counter() - began
        statistics.success.add(seconds)
        self.metrics.requests.labels(name, protocol, "done").inc()
        self.metrics.seconds.labels(name, protocol).observe(seconds)

    def refused(self, protocol: str, error: RequestError, **facts: Any) -> None:
        """Count and log that a request was refused or failed."""
        self.metrics.refusals.labels(protocol, error.kind.name.lower()).inc()
        self.log.event("refused", protocol=protocol, status=error.kind.status, error=str(error), **facts)

    async def close_idle_streams(self) -> None:
        """Close silent sequences, until it is cancelled."""
        while True:
            await asyncio.sleep(min(1.0, self.settings.idle_seconds / 4))
            self.repository.close_idle()
            for websocket in list(self.websockets):
                websocket.end_if_idle(self.settings.idle_seconds)

    async def drain(self) -> None:
        """Take no new streams, end the websockets, and wait for what is running, for as long as the settings say.

        Sequences may go on meanwhile.
        """
        self.draining = True
        for websocket in list(self.websockets):
            websocket.end("the server is ending", ENDING_CODE)
        end = time.monotonic() + self.settings.drain_seconds
        while (self.running or self.websockets) and time.monotonic() < end:
            await asyncio.sleep(0.01)

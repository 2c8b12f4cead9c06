"""Counts and times a server's requests, for Prometheus and for the protocol's statistics."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

T = TypeVar("T")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass
class Duration:
    """How often something happened, and how many nanoseconds it took in total."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        """Add `count` events that took `seconds` in total."""
        self.count += count
        self.ns += int(seconds * 1e9)


@dataclass
class Statistics:
    """The protocol's statistics of one model, since the server started.

    Attributes:
        last: the time of the last request, in milliseconds since 1970.
        success, failed: the number of requests, and the time from their arrival to their result.
        compute: the number of requests, and the time for which the model ran for them.
        batches: the runs of the model, by the number of requests or rows in each.
    """

    last: int = 0
    success: Duration = field(default_factory=Duration)
    failed: Duration = field(default_factory=Duration)
    compute: Duration = field(default_factory=Duration)
    batches: defaultdict[int, Duration] = field(default_factory=lambda: defaultdict(Duration))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def to_dict(self, name: str) -> dict[str, Any]:
        """The statistics as the protocol's JSON; protobuf has the same names."""
        with self.lock:
            durations = {"success": self.success, "fail": self.failed, "compute_infer": self.compute}
            stats = {key: {"count": value.count, "ns": value.ns} for key, value in durations.items()}
            batches = [
                {"batch_size": size, "compute_infer": {"count": spent.count, "ns": spent.ns}}
                for size, spent in sorted(self.batches.items())
            ]
        return {
            "name": name,
            "version": "1",
            "last_inference": self.last,
            "inference_count": self.success.count,
            "execution_count": sum(spent.count for spent in self.batches.values()),
            "inference_stats": stats,
            "batch_stats": batches,
        }


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._new(
            Counter, "requests", "Requests and frames by their result.", "model", "protocol", "result"
        )
        self.refusals = self._new(Counter, "refusals", "Requests that were refused or failed.", "protocol", "reason")
        self.expired = self._new(Counter, "expired_streams", "Streams closed after the idle time.", "model")
        self.resumed = self._new(Counter, "resumed_streams", "Streams that asked to continue.", "model", "result")
        self.loads = self._new(Counter, "loads", "Loads of a model's file.", "model", "result")
        self.streams = self._new(Gauge, "streams", "Open streams.", "model")
        seconds = "Seconds from a request to its result."
        self.seconds = self._new(Histogram, "request_seconds", seconds, "model", "protocol", buckets=_SECONDS)
        rows = "Requests or rows that ran together."
        self.batch_size = self._new(Histogram, "batch_size", rows, "model", "kind", buckets=_SIZES)

    def _new(self, kind: Callable[..., T], name: str, text: str, *labels: str, **options: Any) -> T:
        return kind(f"lstm_onnx_{name}", text, labels, registry=self.registry, **options)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)

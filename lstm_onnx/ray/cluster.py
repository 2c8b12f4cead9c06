"""A Ray cluster: one that exists, or one on this machine alone."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import signal
from collections.abc import Iterator
from time import monotonic
from typing import Any, Self

from ..errors import LSTMOnnxError, MissingDependencyError, RunError, reason
from ..runtime.pool.pinned_threads import cores
from .parts import Part
from .worker import LostWorkerError, Outcome, Task, check_worker, run_part

_OBJECT_STORE = 100 * 2**20
"""Bytes of shared memory of a cluster of our own: rows do not go through it."""
_RECOUNT = 5.0
"""Seconds after which machines are counted again."""
_START_SECONDS = 60.0
"""For which a first worker that has room may take to start: Python, ONNX Runtime, a trial of the model."""
_AHEAD = 2
"""Tasks for each place of the cluster, so that no worker waits for the next one."""


def require_ray() -> None:
    """Refuse to start without Ray (MissingDependencyError); it is not imported."""
    if importlib.util.find_spec("ray") is None:
        raise MissingDependencyError("Ray is not installed", hint="pip install 'lstm-onnx[ray]'")


@contextlib.contextmanager
def open_cluster(address: str | None, *, cpus: int, gpus: int, wait: float) -> Iterator[Cluster]:
    """The cluster of this process, that of an address, or one that ends with the block.

    Args:
        address: as of ``ray.init``; None for that of ``RAY_ADDRESS``, or else one on this machine alone.
        cpus, gpus: of each worker.
        wait: see `Cluster`.

    Raises:
        RunError: it cannot be reached, or is too small for a worker.
    """
    import ray

    ours = not ray.is_initialized()
    if ours:
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "lstm_onnx"}
        local = {"num_cpus": cores(), "object_store_memory": _OBJECT_STORE, "include_dashboard": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a command that runs a model reports nothing
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address, **quiet, **(local if address == "local" else {}))
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise RunError(f"the Ray cluster {address} cannot be used: {reason(error)}") from error
        with contextlib.suppress(ValueError):  # not the main thread, where Ray leaves it alone as well
            signal.signal(signal.SIGTERM, before)  # Ray's own ends the program with another exit code
    try:
        cluster = Cluster(cpus, gpus, 0.0 if ours and address == "local" else wait)
        cluster.require_room()
        yield cluster
    finally:
        if ours:
            ray.shutdown()


class Cluster:
    """An initialized Ray.

    Attributes:
        cpus, gpus: of each worker.
        wait: seconds that may pass without room for a single worker; 0 where no machine can come.
    """

    def __init__(self, cpus: int, gpus: int, wait: float) -> None:
        self.cpus = cpus
        self.gpus = gpus
        self.wait = wait
        self._counted = -math.inf
        self._places = 0
        self._last_room = monotonic()

    def places(self) -> int:
        """How many workers have room on its machines, as it was in the last seconds."""
        import ray

        now = monotonic()
        if now - self._counted > _RECOUNT:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            wanted = {kind: count for kind, count in (("CPU", self.cpus), ("GPU", self.gpus)) if count}
            self._places = sum(min(int(node.get(kind, 0) // count) for kind, count in wanted.items()) for node in nodes)
            self._counted = now
            if self._places:
                self._last_room = now
        return self._places

    def require_room(self) -> None:
        """Refuse a cluster that has had no room for a worker for as long as one waits (RunError)."""
        import ray

        if self.places() or monotonic() - self._last_room < self.wait:
            return
        total = ray.cluster_resources()
        needs = f"{self.cpus} CPU{'' if self.cpus == 1 else 's'}{f' and {self.gpus} GPU' if self.gpus else ''}"
        waited = f" after {self.wait:g} s" if self.wait else ""
        raise RunError(
            f"the Ray cluster is too small: a worker needs {needs} on one machine, and all machines together have "
            f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs{waited}",
            hint="add machines, or ask for fewer threads",
        )


class RayTasks:
    """Parts as Ray tasks; a context manager that cancels what still runs.

    Ray itself tries none again: who submits them does, and counts.
    """

    def __init__(self, cluster: Cluster, task: Task) -> None:
        import ray

        self._ray = ray
        self._cluster = cluster
        options = {"num_cpus": cluster.cpus, "num_gpus": cluster.gpus, "max_retries": 0}
        self._run = ray.remote(**options)(run_part)
        self._check = ray.remote(**options)(check_worker)
        self._task = ray.put(task)
        self._running: dict[Any, Part] = {}

    @property
    def most(self) -> int:
        """As many as there are places, and some more."""
        return _AHEAD * max(1, self._cluster.places())

    def check(self, manifest: str) -> str:
        """`check_worker` on some worker.

        Raises:
            RunError: none starts in time, or it cannot run lstm-onnx.
            LSTMOnnxError: as of `Worker.check`.
        """
        ray = self._ray
        reference = self._check.remote(self._task, manifest)
        began = monotonic()
        limit = max(self._cluster.wait, _START_SECONDS)
        while not ray.wait([reference], num_returns=1, timeout=min(limit, _RECOUNT))[0]:
            self._cluster.require_room()
            if monotonic() - began > limit:
                ray.cancel(reference, force=True)
                free = ray.available_resources().get("CPU", 0)
                raise RunError(
                    f"the Ray cluster started no worker within {limit:g} s; {free:g} of its CPUs are free",
                    hint="try again when others are done, or pass a longer wait",
                )
        try:
            found: str | LSTMOnnxError = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise RunError(
                f"a worker of the Ray cluster cannot run lstm-onnx: {_last_line(error)}",
                hint="install the same lstm-onnx on all of its machines",
            ) from error
        if isinstance(found, LSTMOnnxError):
            raise found
        return found

    def submit(self, part: Part) -> None:
        """Run a part as soon as there is room."""
        self._running[self._run.remote(self._task, part)] = part

    def next(self) -> tuple[Part, Outcome | LostWorkerError]:
        """Wait for any that ends (RunError where the cluster has lost all of its room)."""
        ray = self._ray
        while not (ended := ray.wait(list(self._running), num_returns=1, timeout=_RECOUNT)[0]):
            self._cluster.require_room()
        part = self._running.pop(ended[0])
        try:
            outcome: Outcome = ray.get(ended[0])
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MemoryError):
                return part, LostWorkerError("out of memory")
            raise  # a bug of ours
        except ray.exceptions.RayError as error:
            return part, LostWorkerError(_last_line(error))
        return part, outcome

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what still runs: it is of no use to a later run, which does it again."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else reason(error)

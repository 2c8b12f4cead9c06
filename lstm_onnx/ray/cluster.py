"""Connects to a Ray cluster, or starts one on this machine, and runs tasks on it."""

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
"""Bytes of shared memory of a cluster that is started here; rows do not pass through it."""
_RECOUNT = 5.0
"""Seconds after which the machines are counted again."""
_START_SECONDS = 60.0
"""Seconds in which a first worker must start once it has room: Python, ONNX Runtime, and a trial of the model."""
_AHEAD = 2
"""Tasks to submit for each worker that has room, so that no worker has to wait for its next task."""


def require_ray() -> None:
    """Raise MissingDependencyError if Ray is not installed, without importing it."""
    if importlib.util.find_spec("ray") is None:
        raise MissingDependencyError("Ray is not installed", hint="pip install 'lstm-onnx[ray]'")


@contextlib.contextmanager
def open_cluster(address: str | None, *, cpus: int, gpus: int, wait: float) -> Iterator[Cluster]:
    """A context with the cluster of this process, the one at an address, or one that ends with the block.

    Args:
        address: as for ``ray.init``; None for the one in ``RAY_ADDRESS`` or, without that, a cluster on this machine.
        cpus, gpus: the CPUs and GPUs of each worker.
        wait: see `Cluster`.

    Raises:
        RunError: the cluster cannot be reached, or is too small for a worker.
    """
    import ray

    ours = not ray.is_initialized()
    if ours:
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "lstm_onnx"}
        local = {"num_cpus": cores(), "object_store_memory": _OBJECT_STORE, "include_dashboard": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # users did not agree to Ray's reports
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address, **quiet, **(local if address == "local" else {}))
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise RunError(f"the Ray cluster {address} cannot be used: {reason(error)}") from error
        with contextlib.suppress(ValueError):  # not the main thread, in which Ray sets no handler either
            signal.signal(signal.SIGTERM, before)  # Ray's handler ends the program with a different exit code
    try:
        cluster = Cluster(cpus, gpus, 0.0 if ours and address == "local" else wait)
        cluster.require_room()
        yield cluster
    finally:
        if ours:
            ray.shutdown()


class Cluster:
    """An initialized Ray cluster.

    Attributes:
        cpus, gpus: the CPUs and GPUs of each worker.
        wait: seconds that may pass without room for a single worker; 0 if no machine can be added.
    """

    def __init__(self, cpus: int, gpus: int, wait: float) -> None:
        self.cpus = cpus
        self.gpus = gpus
        self.wait = wait
        self._counted = -math.inf
        self._places = 0
        self._last_room = monotonic()

    def places(self) -> int:
        """How many workers have room on its machines; counted at most every few seconds."""
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
            f"the Ray cluster is too small: a worker needs {needs} on one machine, but all machines together have "
            f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs{waited}",
            hint="add machines, or ask for fewer threads",
        )


class RayTasks:
    """Runs parts as Ray tasks; a context manager that cancels tasks that still run at its end.

    Ray itself does not retry a task: the caller does, and limits the attempts.
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
        """The number of workers that have room, and some more."""
        return _AHEAD * max(1, self._cluster.places())

    def check(self, manifest: str) -> str:
        """Run `check_worker` on any worker.

        Raises:
            RunError: no worker starts in time, or it cannot run lstm-onnx.
            LSTMOnnxError: as `Worker.check`.
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
                    hint="try again when other tasks are done, or pass a longer wait",
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
        """Wait until any part ends (RunError if the cluster no longer has room for a worker)."""
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
        """Cancel tasks that still run, since a later run does their parts again."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else reason(error)

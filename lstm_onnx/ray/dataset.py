"""`map`: runs a model on a data set of Parquet files, whose parts are spread over the machines of a Ray cluster.

Parts are Ray tasks rather than a `ray.data.Dataset`: Ray Data's writer does not keep the order of rows, and its actors
wait forever in a cluster that is too small, and restart forever if a row crashes their process.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from ..data.formats import Records
from ..data.run import run_records
from ..errors import InputError, LSTMOnnxError, RunError, reason
from ..runtime import load
from ..runtime.arguments import positive_integer, seconds
from ..version import __version__
from .cluster import RayTasks, open_cluster, require_ray
from .parts import MANIFEST, Job, Part, complete, open_rows, plan, prepare
from .worker import LostWorkerError, Outcome, Task

_ATTEMPTS = 4
"""How often a part is tried if its worker is lost each time."""


@dataclass(frozen=True)
class MapResult:
    """The result of `map`.

    Attributes:
        out: the folder.
        rows: the number of rows.
        parts: the number of files.
        kept: how many of these files an earlier run had finished.
    """

    out: str
    rows: int
    parts: int
    kept: int


def map_dataset(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    address: str | None = None,
    columns: Sequence[str] | None = None,
    chunk: int | None = None,
    states: Mapping[str, str] | None = None,
    provider: str = "auto",
    threads: int = 1,
    wait: float = 60.0,
    on_note: Callable[[str], object] = lambda _: None,
    progress: Callable[[int, int], object] = lambda _done, _of: None,
) -> MapResult:
    """Run a model on every row of a data set, on a Ray cluster.

    A row is a sequence, and each of its columns is an input, as for `Model.map`.  The outputs are files
    ``part-000000.parquet`` and so on, whose rows are in the order of the data.  If the run is interrupted, another call
    with the same arguments continues with the missing parts.

    Args:
        model: the .onnx file, which every worker must be able to read.
        data: a .parquet file or a folder of them, read in the order of their paths: a path that every worker can read,
            or a URI that pyarrow supports, such as ``s3://bucket/folder``.
        out: the folder to write, a path or URI likewise; new, empty, or that of an earlier run.
        address: the address of a cluster, as for ``ray.init``; None for the one in ``RAY_ADDRESS`` or, without that,
            for a cluster on this machine that ends with the call.  If Ray is already initialized, that is used.
        columns: the columns to read; None for all, each of which must be an input.
        chunk: time steps per call, with the states carried; None runs whole sequences.
        states: as in `lstm_onnx.load`.
        provider: as in `lstm_onnx.load`, on the workers; "cuda" requests one GPU per worker from Ray.
        threads: the number of threads of each worker, and of CPUs that are requested for it from Ray.
        wait: seconds for which a cluster may have no room for a worker; one that scales up from zero needs minutes.
        on_note: called with notes, such as that float64 is cast to float32.
        progress: called with the number of rows that are done, and of all rows.

    Raises:
        FileError: a file cannot be read or written; `out` has other files; or the folders differ on a worker.
        InputError: `out` is of an earlier run with a different model, data or options; a row does not fit the model
            (the message has its file and number); or an argument is not valid.
        RunError: the cluster is too small or cannot be reached; ONNX Runtime failed; or a part's worker was lost
            four times.  Finished parts are kept.
        MissingDependencyError: Ray or pyarrow is not installed.
        ModelError, ProviderError: as `lstm_onnx.load`.
    """
    require_ray()
    threads, wait = positive_integer("threads", threads), seconds("wait", wait, 1e6)
    pairs = tuple((states or {}).items())
    job, finished = prepare(plan(model, data, out, columns=columns, chunk=chunk, states=pairs))
    left = [part for part in job.parts if part.number not in finished]
    done = job.rows - sum(part.rows for part in left)
    progress(done, job.rows)
    if left:
        if provider in ("auto", "cpu"):
            _try_first_row(job)
        gpus = int(provider.lower().startswith("cuda"))
        with (
            open_cluster(address, cpus=threads, gpus=gpus, wait=wait) as cluster,
            RayTasks(cluster, Task.of(job, provider, threads)) as tasks,
        ):
            _require_same_version(tasks.check(_manifest_digest(job)))

            def finish(part: Part) -> None:
                nonlocal done
                done += part.rows
                progress(done, job.rows)

            run_parts(left, tasks, finish, cache(on_note))  # each note once
    complete(job)
    return MapResult(job.out, job.rows, len(job.parts), len(finished))


class Tasks(Protocol):
    """An interface that runs parts elsewhere."""

    @property
    def most(self) -> int:
        """The most parts to have submitted at a time."""

    def submit(self, part: Part) -> None:
        """Run a part as soon as there is room."""

    def next(self) -> tuple[Part, Outcome | LostWorkerError]:
        """Wait until any part ends; return it with its notes, its error, or how its worker was lost."""


def run_parts(
    parts: Iterable[Part], tasks: Tasks, finish: Callable[[Part], object], on_note: Callable[[str], object]
) -> None:
    """Run all parts; one whose worker is lost is run again (LSTMOnnxError of the first that fails)."""
    waiting, running = deque(parts), 0
    lost: dict[int, int] = {}
    while waiting or running:
        while waiting and running < tasks.most:
            tasks.submit(waiting.popleft())
            running += 1
        part, outcome = tasks.next()
        running -= 1
        if isinstance(outcome, LSTMOnnxError):
            raise outcome
        if isinstance(outcome, LostWorkerError):
            lost[part.number] = lost.get(part.number, 0) + 1
            if lost[part.number] == _ATTEMPTS:
                raise RunError(
                    f"rows {part.start + 1} to {part.start + part.rows} of {part.file or 'the data'}: the worker that "
                    f"ran them was lost {_ATTEMPTS} times, the last time as {reason(outcome)}"
                ) from outcome
            waiting.appendleft(part)
            continue
        for text in outcome:
            on_note(text)
        finish(part)


def _try_first_row(job: Job) -> None:
    """Run the first row here, so that an error that all rows have is found before a cluster starts (LSTMOnnxError)."""
    part = next(part for part in job.parts if part.rows)
    with load(job.model, "cpu", 1, states=dict(job.states) or None, trial=None) as model:
        reader, stream = open_rows(job, part.file)
        with stream:
            rows = Records("parquet", True, reader.read(0, 1), True, 1)
            try:
                for _ in run_records(model, rows, chunk=job.chunk, workers=1):
                    pass
            except (InputError, RunError) as error:
                hint = "; select others with --columns or columns=" if job.columns is None else ""
                raise type(error)(f"{job.place(part)}: {error}{hint}", name=error.name) from error


def _manifest_digest(job: Job) -> str:
    content = job.target.read(MANIFEST)
    return hashlib.sha256(content or b"").hexdigest()


def _require_same_version(found: str) -> None:
    if found != __version__:
        raise RunError(
            f"the workers have lstm-onnx {found}, but this machine has {__version__}", hint="install the same version"
        )

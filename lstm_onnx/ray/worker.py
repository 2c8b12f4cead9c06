"""Runs the parts of a job on a worker, one after another.  Nothing here needs Ray."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass, field, replace
from typing import Any

from ..data.formats import Records
from ..data.parquet import write_parquet
from ..data.parquet_rows import RowReader
from ..data.run import run_records
from ..errors import FileError, InputError, LSTMOnnxError, RunError
from ..runtime import Model, load
from ..runtime.file_digest import file_digest
from ..version import __version__
from .parts import MANIFEST, METADATA, Job, Part, open_rows, part_metadata


@dataclass(frozen=True)
class Task:
    """What a worker needs to know about a job.

    Attributes:
        job: the job without its parts, of which there can be many.
        digest: the digest of the job with its parts.
        provider, threads: as in `lstm_onnx.load`.
    """

    job: Job
    digest: str
    provider: str
    threads: int

    @classmethod
    def of(cls, job: Job, provider: str, threads: int) -> Task:
        """The task for each worker of a job."""
        return cls(replace(job, parts=()), job.digest(), provider, threads)


@dataclass
class Worker:
    """A task's model, open in this process, and the data file that it is reading."""

    task: Task
    _model: Model | None = None
    _reading: tuple[str, RowReader, Any] | None = None
    _notes: set[str] = field(default_factory=set)

    def open(self) -> None:
        """Load the model (LSTMOnnxError; FileError if this machine has a different file, or none)."""
        if self._model is not None:
            return
        job = self.task.job
        if file_digest(job.model) != job.model_digest:
            raise FileError(
                f"differs on the worker {platform.node()} from the file on the calling machine, or was changed",
                path=job.model,
                hint="put it where every worker reads the same file",
            )
        states = dict(job.states) or None
        self._model = load(job.model, self.task.provider, self.task.threads, states=states, trial=None)

    def check(self, manifest: str) -> str:
        """Check that parts can be run here; return this package's version.

        Args:
            manifest: the SHA-256 of the manifest that the caller wrote.

        Raises:
            LSTMOnnxError: the model cannot be loaded, or the folders are not the caller's.
        """
        self.open()
        target = self.task.job.target
        content = target.read(MANIFEST)
        if content is None or hashlib.sha256(content).hexdigest() != manifest:
            raise FileError(
                f"{target.place}: is a different folder on the worker {platform.node()}",
                hint="write to a folder that every worker shares with this machine",
            )
        return __version__

    def run(self, part: Part) -> list[str]:
        """Run a part and write its file.

        Returns:
            Notes, such as that float64 is cast to float32; each once in a process.

        Raises:
            FileError, InputError, RunError: as `run_records`, with the place of the row.
        """
        self.open()
        assert self._model is not None  # noqa: S101 - see `open`
        reader = self._reader(part.file)
        target = self.task.job.target
        notes: set[str] = set()
        rows = Records("parquet", True, reader.read(part.start, part.start + part.rows), True, part.rows)
        chunk, workers = self.task.job.chunk, self.task.threads
        outputs = run_records(self._model, rows, chunk=chunk, workers=workers, on_note=notes.add)
        metadata = {METADATA: json.dumps(part_metadata(part, self.task.digest))}
        try:
            with target.replacing(part.name) as stream:
                write_parquet(stream, outputs, f"{target.place}/{part.name}", metadata)
        except BaseException as error:
            self._reading = None  # since its position is not known after an error
            if isinstance(error, (InputError, RunError)):
                raise type(error)(f"{self.task.job.place(part)}: {error}", name=error.name) from error
            raise
        new = notes - self._notes
        self._notes |= new
        return sorted(new)

    def _reader(self, file: str) -> RowReader:
        if self._reading is not None and self._reading[0] == file:
            return self._reading[1]
        if self._reading is not None:
            self._reading[2].close()
        self._reading = (file, *open_rows(self.task.job, file))
        return self._reading[1]


_worker: Worker | None = None


def _worker_of(task: Task) -> Worker:
    """The worker of this process, which keeps its model open from one part to the next."""
    global _worker
    if _worker is None or _worker.task != task:
        _worker = Worker(task)
    return _worker


class LostWorkerError(Exception):
    """A worker's process or machine is gone; the text says how."""


Outcome = list[str] | LSTMOnnxError
"""A part's notes, or the error for which it could not be run."""


def run_part(task: Task, part: Part) -> Outcome:
    """Run a part in this process; return an LSTMOnnxError instead of raising it, since Ray would wrap it."""
    try:
        return _worker_of(task).run(part)
    except LSTMOnnxError as error:
        return error


def check_worker(task: Task, manifest: str) -> str | LSTMOnnxError:
    """Run `Worker.check` in this process; return its error instead of raising it."""
    try:
        return _worker_of(task).check(manifest)
    except LSTMOnnxError as error:
        return error

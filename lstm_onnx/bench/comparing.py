"""One run: open the model in every way, measure the limits, time every point, measure the limits again."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..atomic_io import temporary_folder
from ..errors import ConfigError, LSTMOnnxError, MissingDependencyError
from ..exporter.sources.source import LSTMSource, Source
from ..inspect import inspect
from ..runtime import Model, load
from .cases import Task, prepared
from .grid import CASES, DEFAULT_ROUNDS, DEFAULT_SECONDS, GRIDS, Point, points
from .measure import allowed_cores, interleaved, no_gc, pinned, tried
from .peaks import PeakMeter, Peaks
from .processes import memory, starts
from .pytorch import TorchSide
from .report import Comparison, LeftOut, Machine, Memory, ParityReport, timings_of
from .subject import Opened, Subject, Work

SETTLE = 0.03
"""Seconds of rest, at a time, before each sample on several threads: they may spin on after a run."""
SPIN = 0.001
"""Seconds that this runtime's threads spin for, where they do; those of a plain session do so by default."""
_TOLERANCE = {"float16": 2e-2}
_PACKAGES = ("lstm-onnx", "numpy", "onnxruntime", "onnxruntime-gpu", "torch")
_BUSY = 0.5
"""Load for each core from which a note says so."""
_CPU_INFO = Path("/proc/cpuinfo")
Say = Callable[[str], object]
"""Told what is done next."""


@dataclass(frozen=True)
class Settings:
    """What to run and where.

    Attributes:
        cases: of `grid.CASES`; empty for all that apply to the model.
        grid: "quick" or "full".
        provider: "auto", "cpu" or "cuda", of ONNX Runtime and this runtime; PyTorch follows where it can.
        threads: of every contender; None for one a core that this process may use.
        rounds: how many at most; None for the grid's own number.
        seconds: how long the timing takes altogether, about; None for the grid's own. Each point gets its
            share, and three rounds in any case.
        seed: of all inputs.

    Raises:
        ConfigError: a value is not possible.
    """

    cases: tuple[str, ...] = ()
    grid: str = "quick"
    provider: str = "auto"
    threads: int | None = None
    rounds: int | None = None
    seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run, before anything is."""
        for case in self.cases:
            if case not in CASES:
                raise ConfigError(f'the case "{case}" is unknown; it must be one of {", ".join(CASES)}')
        if self.grid not in GRIDS:
            raise ConfigError(f'the grid "{self.grid}" is unknown; it must be one of {", ".join(GRIDS)}')
        for name, value in (("threads", self.threads), ("rounds", self.rounds)):
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} = {value!r} is not possible; it must be a positive integer")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ConfigError(f"seconds = {self.seconds!r} is not possible; it must be a positive number")


def compare(source: Source, settings: Settings | None = None, *, say: Say = lambda _: None) -> ParityReport:
    """Time a model side by side.

    Args:
        source: the model (see `exporter.source.load_source`); it is exported to a temporary file.
        settings: what to run; all that applies, quickly, by default.
        say: told what is done next.

    Raises:
        LSTMOnnxError: the model cannot be exported or opened; a case that does not apply to it is in
            the report instead.
    """
    settings = settings or Settings()
    allowed = allowed_cores()
    threads = settings.threads or len(allowed)
    cores = allowed[:threads]
    with (
        temporary_folder() as folder,
        pinned(cores) as is_pinned,
    ):
        say("exporting and opening the model")
        with _opened(source, settings, threads, folder) as subject:
            run = _Run(subject, settings, folder, say)
            run.notes += _busy(len(allowed))
            provider = subject.model.provider
            peaks = _timed(run, cores if provider == "cpu" else [], is_pinned=is_pinned)
            machine = Machine(
                device=_device(subject),
                provider=provider,
                threads=threads,
                cores=tuple(cores) if is_pinned else (),
                system=platform.platform(),
                versions=_versions(),
            )
    return run.report(source.name, machine, peaks)


def _timed(run: _Run, cores: list[int], *, is_pinned: bool) -> Peaks | None:
    """Time every point; the limits of `cores`, of which there are none where the work is done elsewhere."""
    if not cores:
        run.all_points()
        return None
    work = run.subject.work
    weights = 0 if work is None else work.weights
    dtype = "float64" if run.subject.dtype == "float64" else "float32"
    with PeakMeter(cores, dtype, pin=is_pinned) as meter:
        run.say("measuring the machine's limits")
        before = meter.measure(weights)
        run.all_points()
        run.say("measuring the machine's limits again")
        return before.larger(meter.measure(weights))


@dataclass(frozen=True)
class _Measured:
    """A point that was timed: seconds for one unit, round by round."""

    point: Point
    task: Task
    samples: dict[str, list[float]]
    left_out: dict[str, str]


class _Run:
    """What is found while the points are gone through."""

    def __init__(self, subject: Subject, settings: Settings, folder: Path, say: Say) -> None:
        self.subject = subject
        self.settings = settings
        self.folder = folder
        self.say = say
        self.measured: list[_Measured] = []
        self.memory: list[Memory] = []
        self.left_out: list[LeftOut] = []
        self.notes: list[str] = []

    def all_points(self) -> None:
        """Every point of the grid; one that does not apply is left out with the reason."""
        settings = self.settings
        todo = points(settings.grid, settings.cases)
        seconds = settings.seconds or DEFAULT_SECONDS[settings.grid]
        end = time.perf_counter() + seconds
        for index, point in enumerate(todo):
            share = max(0.0, end - time.perf_counter()) / (len(todo) - index)
            self.say(f"{index + 1} of {len(todo)}: {point}")
            try:
                self._point(point, share)
            except LSTMOnnxError as error:
                self.left_out.append(LeftOut(str(point), error.reason))

    def _point(self, point: Point, seconds: float) -> None:
        if point.case == "memory":
            if self.subject.padded is None:
                raise ConfigError("it is measured for bare LSTMs")
            self.memory.append(memory(self.subject, point, self.folder))
            return
        with starts(self.subject, self.folder) if point.case == "start" else prepared(self.subject, point) as task:
            self._time(point, task, seconds)

    def _time(self, point: Point, task: Task, seconds: float) -> None:
        trial = tried(task.contenders, task.baseline, _TOLERANCE.get(self.subject.dtype, 1e-3))
        self.notes += [f"{point}: {sentence}" for sentence in trial.disagreements]
        if task.baseline not in {contender.name for contender in trial.able}:
            raise ConfigError(f"{task.baseline} cannot run it: {trial.unable[task.baseline]}")
        settings = self.settings
        with no_gc():
            samples = interleaved(
                trial.able,
                rounds=settings.rounds or DEFAULT_ROUNDS[settings.grid],
                seconds=seconds,
                known=trial.seconds,
                settle=SETTLE if self.subject.threads > 1 and point.case != "start" else 0.0,
            )
        each = {name: [value / task.units.get(name, 1) for value in values] for name, values in samples.items()}
        self.measured.append(_Measured(point, task, each, {**task.left_out, **trial.unable}))

    def report(self, source: str, machine: Machine, peaks: Peaks | None) -> ParityReport:
        """Everything, once the limits are known."""
        return ParityReport(
            source=source,
            machine=machine,
            peaks=peaks,
            comparisons=tuple(_comparison(item, peaks) for item in self.measured),
            memory=tuple(self.memory),
            left_out=tuple(self.left_out),
            notes=tuple(self.notes),
        )


def _comparison(item: _Measured, peaks: Peaks | None) -> Comparison:
    task = item.task
    limit = None if peaks is None or task.needed is None else peaks.limit(*task.needed)
    ours = [contender.name for contender in task.contenders if contender.ours and contender.name in item.samples]
    timings = timings_of(item.samples, baseline=task.baseline, ours=ours, limit=limit)
    rounds = len(next(iter(item.samples.values())))
    return Comparison(
        case=item.point.case,
        label=str(item.point),
        batch=item.point.batch,
        time=item.point.time,
        unit=task.unit,
        baseline=task.baseline,
        rounds=rounds,
        limit_seconds=limit,
        timings=timings,
        left_out=item.left_out,
    )


@contextlib.contextmanager
def _opened(source: Source, settings: Settings, threads: int, folder: Path) -> Iterator[Subject]:
    """Export the source, and open the files in every way."""
    path = str(folder / "model.onnx")
    source.export(path, check=False)
    opened = Opened.at(path, settings.provider, threads)
    with contextlib.ExitStack() as stack:
        stack.enter_context(opened.model)
        spinning: Model | None = None
        if threads > 1 and opened.model.provider == "cpu":
            spinning = stack.enter_context(load(path, provider="cpu", threads=threads, spin=SPIN))
        padded: Opened | None = None
        if isinstance(source, LSTMSource):
            padded = opened
            if not source.options.lengths:
                path = str(folder / "padded.onnx")
                source.with_options(lengths=True).export(path, check=False)
                padded = Opened.at(path, settings.provider, threads)
                stack.enter_context(padded.model)
        side, missing = _torch_side(source, opened.model.provider, threads)
        work = Work.of(inspect(opened.model.path).lstms)
        yield Subject(source, opened, spinning, padded, work, side, missing, settings.seed, threads)


def _torch_side(source: Source, provider: str, threads: int) -> tuple[TorchSide | None, str]:
    try:
        return TorchSide(source, provider, threads), ""
    except MissingDependencyError as error:
        return None, str(error)


def _device(subject: Subject) -> str:
    """The processor's name; the GPU's, where it is on one and torch can tell."""
    side = subject.torch
    if subject.model.provider == "cuda" and side is not None and side.device == "cuda":
        return str(side.torch.cuda.get_device_name())
    if _CPU_INFO.exists():
        for line in _CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _busy(cores: int) -> list[str]:
    """A note where others are using the machine: the spreads will tell, and nobody should wonder why."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < _BUSY * cores:
        return []
    return [f"the machine was busy when this started (load {load:.1f} on {cores} CPUs); expect wide spreads"]


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found

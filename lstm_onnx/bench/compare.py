"""Runs a benchmark: opens the model in every form, and times the candidates of each case."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from ..atomic_io import temporary_folder
from ..errors import ConfigError, LSTMOnnxError
from ..exporter.sources.source import ModuleSource, Source
from ..runtime import Model
from ..runtime.cpu import cpu_name
from ..runtime.pool.pinned_threads import allowed_cores
from ..version import installed_versions
from .cases import BenchmarkCase, make_case
from .generating import GeneratingSubject, generating_case, open_generating
from .measure import call_once, interleaved, no_gc, pinned
from .opened import BenchmarkSubject, open_subject
from .report import BenchmarkReport, Comparison, LeftOut, Machine, timings_of
from .sizes import CASES, DEFAULT_ROUNDS, DEFAULT_SECONDS, FURTHER_CASES, Point, points
from .stream_calls import call_cost

SETTLE = 0.03
"""Seconds of rest before each sample on several threads, which may spin for some time after a run."""
_TOLERANCE = {"float16": 2e-2}
_PACKAGES = ("lstm-onnx", "numpy", "onnxruntime", "onnxruntime-gpu", "torch")
_BUSY_LOAD = 0.5
"""The load average per core from which a note says that the machine is busy."""
Say = Callable[[str], object]
"""A function that is called with a sentence about what is done next."""


@dataclass(frozen=True)
class Settings:
    """What to time, and where.

    Attributes:
        cases: a selection of `sizes.CASES` and `sizes.FURTHER_CASES`; empty for all that apply to the model.
        provider: "auto", "cpu" or "cuda", for ONNX Runtime and this runtime; PyTorch uses the same device if it can.
        threads: the number of threads of every candidate; None for one per core that this process may use.
        rounds: the maximum number of samples of each candidate; None for the default.
        seconds: roughly how long the timing takes in total; None for the default.  Each case gets its share, and at
            least three rounds.
        seed: for the random inputs.

    Raises:
        ConfigError: a value is not possible.
    """

    cases: tuple[str, ...] = ()
    provider: str = "auto"
    threads: int | None = None
    rounds: int | None = None
    seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        for case in self.cases:
            if case not in (*CASES, *FURTHER_CASES):
                known = ", ".join((*CASES, *FURTHER_CASES))
                raise ConfigError(f'the case "{case}" is unknown; it must be one of {known}')
        for name, value in (("threads", self.threads), ("rounds", self.rounds)):
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError.of_argument(name, value, "a positive integer")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ConfigError.of_argument("seconds", self.seconds, "a positive number")


def compare(
    source: Source, settings: Settings | None = None, *, at: Sequence[Point] | None = None, say: Say = lambda _: None
) -> BenchmarkReport:
    """Time a model in PyTorch, plain ONNX Runtime and this runtime, side by side.

    Args:
        source: the model (see `exporter.sources.source.load_source`); it is exported to a temporary file.
        settings: what to time; by default everything that applies to the model.
        at: the cases with their sizes, in place of those that `settings` selects.
        say: called with a sentence about what is done next.

    Raises:
        LSTMOnnxError: the model cannot be exported or opened.  A case that does not apply to the model is not an
            error; the report lists it with the reason.
    """
    settings = settings or Settings()
    allowed = allowed_cores()
    threads = settings.threads or len(allowed)
    cores = allowed[:threads]
    notes = _busy_note(len(allowed))
    comparisons: list[Comparison] = []
    left_out: list[LeftOut] = []
    with temporary_folder() as folder, pinned(cores) as is_pinned:
        say("exporting and opening the model")
        with contextlib.ExitStack() as stack:
            subject: BenchmarkSubject | GeneratingSubject
            if isinstance(source, ModuleSource) and source.options.generation is not None:
                subject = open_generating(source, settings.provider, threads, settings.seed, folder)
                usual: Sequence[str] = ("generate",)
            else:
                subject = stack.enter_context(open_subject(source, settings.provider, threads, settings.seed, folder))
                usual = (*CASES, *(["sequence"] if _has_loop(subject.model) else []))
            todo = points(settings.cases or usual) if at is None else list(at)
            if subject.hop > 1:
                notes += [f"a step stands for {subject.hop} steps of the input, which make one step of the output"]
            end = time.perf_counter() + (settings.seconds or DEFAULT_SECONDS)
            for index, point in enumerate(todo):
                share = max(0.0, end - time.perf_counter()) / (len(todo) - index)
                say(f"{index + 1} of {len(todo)}: {point}")
                try:
                    comparison, further = time_case(
                        _case(subject, point), point, subject, settings.rounds or DEFAULT_ROUNDS, share
                    )
                except LSTMOnnxError as error:
                    reason = str(error).removeprefix(f"{subject.model.path}: ")  # the name of a temporary file
                    left_out.append(LeftOut(str(point), reason))
                    continue
                comparisons.append(comparison)
                notes += further
            machine = Machine(
                device=_device(subject),
                provider=subject.model.provider,
                threads=threads,
                cores=tuple(cores) if is_pinned else (),
                system=platform.platform(),
                versions=versions(),
            )
    return BenchmarkReport(source.name, machine, tuple(comparisons), tuple(left_out), tuple(notes))


def _case(subject: BenchmarkSubject | GeneratingSubject, point: Point) -> BenchmarkCase:
    if isinstance(subject, GeneratingSubject):
        return generating_case(subject, point)
    return make_case(subject, point)


def _has_loop(model: Model) -> bool:
    """Whether a file has a Loop or Scan, such as that of a module's Python loop."""
    return any(node.op_type in ("Scan", "Loop") for node in onnx.load(model.path, load_external_data=False).graph.node)


def time_case(
    case: BenchmarkCase, point: Point, subject: BenchmarkSubject | GeneratingSubject, rounds: int, seconds: float
) -> tuple[Comparison, list[str]]:
    """Time the candidates of a case in turns.

    Args:
        case: the candidates.
        point: the case and its sizes, for the report.
        subject: the model that they run.
        rounds: the maximum number of samples of each candidate.
        seconds: roughly how long the timing takes.

    Returns:
        The times, and a sentence for each candidate whose output differs from the baseline's.

    Raises:
        ConfigError: the baseline failed.
    """
    calls = call_once(case.candidates, case.baseline, _TOLERANCE.get(subject.dtype, 1e-3))
    if case.baseline in calls.failed:
        raise ConfigError(f"{case.baseline} cannot run it: {calls.failed[case.baseline]}")
    with no_gc():
        samples = interleaved(
            calls.working,
            rounds=rounds,
            seconds=seconds,
            known=calls.seconds,
            settle=SETTLE if subject.threads > 1 else 0.0,
        )
    cost = call_cost(samples, case.baseline, *case.chunks) if len(case.chunks) == 2 else None
    samples = {name: [value / case.units for value in values] for name, values in samples.items()}
    runtime = [candidate.name for candidate in calls.working if candidate.is_lstm_onnx]
    comparison = Comparison(
        case=point.case,
        label=str(point),
        batch=point.batch,
        time=point.time,
        unit=case.unit,
        baseline=case.baseline,
        rounds=len(next(iter(samples.values()))),
        timings=timings_of(samples, baseline=case.baseline, lstm_onnx=runtime),
        left_out={**case.left_out, **calls.failed},
        per_call=cost,
    )
    return comparison, [f"{point}: {sentence}" for sentence in calls.disagreements]


def _device(subject: BenchmarkSubject | GeneratingSubject) -> str:
    """The processor's name; the GPU's if one was used and torch knows its name."""
    torch = subject.torch
    if subject.model.provider == "cuda" and torch is not None and torch.device == "cuda":
        return str(torch.torch.cuda.get_device_name())
    return cpu_name()


def _busy_note(cores: int) -> list[str]:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < _BUSY_LOAD * cores:
        return []
    return [f"the machine was busy at the start (load {load:.1f} on {cores} CPUs); expect wide quartiles"]


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that take part."""
    return {"Python": platform.python_version(), **installed_versions(_PACKAGES)}

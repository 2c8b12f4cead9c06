"""The result of a benchmark: times, ratios and their spread, as text and as JSON."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from ..terminal_text import safe_copy, table_lines
from .measure import Spread, ratios
from .stream_calls import CallCost


@dataclass(frozen=True)
class Machine:
    """The machine on which a benchmark ran.

    Attributes:
        device: the name of the processor or GPU.
        provider: "cpu" or "cuda", where ONNX Runtime and this runtime ran.
        threads: the number of threads of each candidate.
        cores: the CPUs that the process was pinned to; empty if it was not.
        system: the platform.
        versions: the versions of Python and of the installed packages.
    """

    device: str
    provider: str
    threads: int
    cores: tuple[int, ...]
    system: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Timing:
    """One candidate of a comparison.

    Attributes:
        candidate: its name.
        is_lstm_onnx: whether it is this runtime.
        seconds: the time for one unit (a step or a sequence): the median and quartiles of the rounds.
        ratio: its time divided by the baseline's, round by round.
        speedup: its time divided by this runtime's, above 1 if this runtime is faster; None if this runtime was not
            timed.
        samples: seconds for one unit, round by round.
    """

    candidate: str
    is_lstm_onnx: bool
    seconds: Spread
    ratio: Spread
    speedup: Spread | None
    samples: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """The candidates of one case at one size.

    Attributes:
        case: one of `sizes.CASES`.
        label: the case with its sizes.
        batch: rows of a batch, streams of a pool, or sequences of a map.
        time: steps in a call; 0 where lengths vary.
        unit: of `seconds`: "step" (of one sequence) or "sequence".
        baseline: the candidate that ratios refer to.
        rounds: the number of rounds.
        timings: one per candidate.
        left_out: candidates that were not timed, and why.
        per_call: for a sequence in chunks, the cost of the calls; None for other cases, or if it is not known.
    """

    case: str
    label: str
    batch: int
    time: int
    unit: str
    baseline: str
    rounds: int
    timings: tuple[Timing, ...]
    left_out: dict[str, str]
    per_call: CallCost | None = None


@dataclass(frozen=True)
class LeftOut:
    """A case that does not apply to the model, and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class BenchmarkReport:
    """Everything that one run measured.

    Attributes:
        source: the model.
        machine: where it ran.
        comparisons: one per case and size.
        left_out: cases that do not apply.
        notes: what a reader of the numbers needs to know, such as that the machine was busy.
    """

    source: str
    machine: Machine
    comparisons: tuple[Comparison, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        """Tables, below the notes."""
        return safe_copy(self)._text()

    def _text(self) -> str:
        lines = [*(f"note: {note}" for note in self.notes), *_machine_lines(self.source, self.machine)]
        for comparison in self.comparisons:
            lines += ["", *_comparison_lines(comparison)]
        if self.left_out:
            lines += ["", "left out", *(f"  {item.label}: {item.reason}" for item in self.left_out)]
        return "\n".join(lines)


def timings_of(samples: dict[str, list[float]], *, baseline: str, lstm_onnx: Collection[str]) -> tuple[Timing, ...]:
    """One `Timing` per candidate, from the seconds for one unit, round by round.

    `speedup` refers to the first candidate that is in `lstm_onnx`.
    """
    runtime = next((values for name, values in samples.items() if name in lstm_onnx), None)
    return tuple(
        Timing(
            candidate=name,
            is_lstm_onnx=name in lstm_onnx,
            seconds=Spread.of(values),
            ratio=ratios(values, samples[baseline]),
            speedup=None if runtime is None else ratios(values, runtime),
            samples=tuple(values),
        )
        for name, values in samples.items()
    )


def _machine_lines(source: str, machine: Machine) -> list[str]:
    threads = f"{machine.threads} thread{'s' if machine.threads > 1 else ''}"
    pinned = f"pinned to CPU {', '.join(map(str, machine.cores))}" if machine.cores else "not pinned"
    return [
        f"{source} on {machine.provider}, {threads}, {pinned}",
        f"{machine.device}; {machine.system}; " + ", ".join(f"{k} {v}" for k, v in machine.versions.items()),
    ]


def _comparison_lines(comparison: Comparison) -> list[str]:
    rows = [(comparison.label, f"time per {comparison.unit}", "relative [quartiles]", "lstm-onnx is")]
    for timing in comparison.timings:
        is_baseline = timing.candidate == comparison.baseline
        rows.append(
            (
                f"  {timing.candidate}",
                duration(timing.seconds.median),
                "baseline" if is_baseline else _spread(timing.ratio),
                "" if timing.is_lstm_onnx or timing.speedup is None else speedup_text(timing.speedup),
            )
        )
    lines = table_lines(rows, right=(1,))
    lines[0] += f"  ({comparison.rounds} round{'s' if comparison.rounds > 1 else ''})"
    if comparison.per_call is not None:
        cost = comparison.per_call
        lines.append(
            f"  a call takes {duration(cost.python.median)} in Python and {duration(cost.onnxruntime.median)} in ONNX "
            f"Runtime whatever its length; the steps alone take {_spread(cost.compute)} of the time of the whole"
        )
    return [*lines, *(f"  {name}: left out: {reason}" for name, reason in comparison.left_out.items())]


def speedup_text(speedup: Spread) -> str:
    """As in ``7.9 [7.5, 8.1] times slower``."""
    if speedup.median >= 1:
        return f"{_spread(speedup)} times faster"
    return f"{_spread(Spread(1 / speedup.median, 1 / speedup.high, 1 / speedup.low))} times slower"


def _spread(spread: Spread) -> str:
    """As in ``0.71 [0.70, 0.73]``."""
    return f"{_number(spread.median)} [{_number(spread.low)}, {_number(spread.high)}]"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """As in ``12.3 us``."""
    for factor, unit in ((1e-6, "us"), (1e-3, "ms")):
        if seconds < 1000 * factor:
            return f"{seconds / factor:.3g} {unit}" if seconds / factor < 999.5 else f"{seconds / factor:.0f} {unit}"
    return f"{seconds:.3g} s"

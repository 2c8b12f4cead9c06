"""What a benchmark yields: times, ratios and their spread, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..terminal_text import safe_copy
from .measure import Spread, ratios
from .peaks import Peaks


@dataclass(frozen=True)
class Machine:
    """Where it ran.

    Attributes:
        device: the processor's name, or the GPU's.
        provider: "cpu" or "cuda", where ONNX Runtime and this runtime ran.
        threads: of each contender.
        cores: the CPUs that the process was kept on; empty where that was not possible.
        system: the platform.
        versions: of Python and packages, those that are installed.
    """

    device: str
    provider: str
    threads: int
    cores: tuple[int, ...]
    system: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Timing:
    """One contender at one point.

    Attributes:
        contender: its name.
        ours: whether it is this runtime.
        seconds: for one unit (a step, a sequence), the median and quartiles of the rounds.
        ratio: its time over the baseline's, round by round.
        gain: its time over this runtime's: how many times as fast this runtime is; None where this
            runtime was not there.
        of_limit: the least time that the machine's limits allow over its own; None where not known.
        samples: seconds for one unit, round by round.
    """

    contender: str
    ours: bool
    seconds: Spread
    ratio: Spread
    gain: Spread | None
    of_limit: float | None
    samples: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """The contenders at one point.

    Attributes:
        case: one of `grid.CASES`.
        label: the case with its sizes.
        batch: rows of a batch, streams of a pool, or sequences of a map.
        time: steps in a call; 0 where lengths vary.
        unit: what `seconds` are of: "step" (of one sequence), "sequence" or "start".
        baseline: the contender that ratios are against.
        rounds: how many there were.
        limit_seconds: for one unit, at the machine's limits; None where not known.
        timings: one a contender.
        left_out: contenders that could not be, and why.
    """

    case: str
    label: str
    batch: int
    time: int
    unit: str
    baseline: str
    rounds: int
    limit_seconds: float | None
    timings: tuple[Timing, ...]
    left_out: dict[str, str]


@dataclass(frozen=True)
class Memory:
    """The peak memory of `map` over a stream of sequences, in a process of its own.

    The working set is what cannot be done without: `base_bytes`, the peak of a process that has
    opened a tiny model with this runtime and run one step; `model_bytes`, the file's; and
    `ahead_bytes`, the most that the inputs which map had taken and not yet given back, and their
    outputs, came to at any moment.  The sequences are made one by one and their outputs dropped.

    Attributes:
        label: the case with its sizes.
        peak_bytes: the process' largest resident set.
        base_bytes, model_bytes, ahead_bytes: the parts of the working set.
        ahead_sequences: the most sequences that were taken and not yet given back.
    """

    label: str
    peak_bytes: int
    base_bytes: int
    model_bytes: int
    ahead_bytes: int
    ahead_sequences: int

    @property
    def working_set_bytes(self) -> int:
        """The sum of its parts."""
        return self.base_bytes + self.model_bytes + self.ahead_bytes

    @property
    def ratio(self) -> float:
        """Peak over working set."""
        return self.peak_bytes / self.working_set_bytes


@dataclass(frozen=True)
class LeftOut:
    """A case that was asked for, or belongs to the grid, and does not apply; and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class ParityReport:
    """Everything that one run measured.

    `peaks` are None where the provider is not the CPU: they are the CPU's.
    """

    source: str
    machine: Machine
    peaks: Peaks | None
    comparisons: tuple[Comparison, ...]
    memory: tuple[Memory, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """JSON-ready; the memory cases with their sum and their ratio."""
        memory = [
            {**asdict(item), "working_set_bytes": item.working_set_bytes, "ratio": item.ratio} for item in self.memory
        ]
        return {**asdict(self), "memory": memory}

    def __str__(self) -> str:
        """Tables, for people."""
        return safe_copy(self)._tables()

    def _tables(self) -> str:
        lines = [*_head(self.source, self.machine, self.peaks)]
        for comparison in self.comparisons:
            lines += ["", *_table(comparison)]
        for item in self.memory:
            lines += ["", *_memory_lines(item)]
        if self.left_out:
            lines += ["", "left out", *(f"  {item.label}: {item.reason}" for item in self.left_out)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def timings_of(
    samples: dict[str, list[float]], *, baseline: str, ours: Sequence[str], limit: float | None
) -> tuple[Timing, ...]:
    """One `Timing` a contender from the seconds for one unit, round by round.

    `gain` is against the first of `ours`.
    """
    runtime = samples[ours[0]] if ours else None
    found = []
    for name, own in samples.items():
        seconds = Spread.of(own)
        gain = None if runtime is None else ratios(own, runtime)
        of_limit = None if limit is None else limit / seconds.median
        found.append(Timing(name, name in ours, seconds, ratios(own, samples[baseline]), gain, of_limit, tuple(own)))
    return tuple(found)


def _head(source: str, machine: Machine, peaks: Peaks | None) -> list[str]:
    threads = f"{machine.threads} thread{'s' if machine.threads > 1 else ''}"
    pinned = f"pinned to CPU {', '.join(map(str, machine.cores))}" if machine.cores else "not pinned"
    lines = [
        f"{source} on {machine.provider}, {threads}, {pinned}",
        f"{machine.device}; {machine.system}; " + ", ".join(f"{k} {v}" for k, v in machine.versions.items()),
    ]
    if peaks is not None:
        lines.append(
            f"limits of {peaks.cores} core{'s' if peaks.cores > 1 else ''}: {peaks.gemm / 1e9:,.0f} GFLOP/s "
            f"({peaks.dtype} matrix product), {peaks.read / 1e9:,.1f} GB/s from memory, "
            f"{peaks.read_weights / 1e9:,.1f} GB/s over as many bytes as the weights have"
        )
    return lines


def _table(comparison: Comparison) -> list[str]:
    rounds = f"{comparison.rounds} round{'s' if comparison.rounds > 1 else ''}"
    rows = [
        (
            comparison.label,
            f"a {comparison.unit}",
            "time / baseline's [quartiles]",
            "this runtime is",
            "of the limit",
        )
    ]
    for timing in comparison.timings:
        is_base = timing.contender == comparison.baseline
        gain = "" if timing.ours or timing.gain is None else f"{_spread(timing.gain)} times as fast"
        rows.append(
            (
                f"  {timing.contender}",
                duration(timing.seconds.median),
                "baseline" if is_base else _spread(timing.ratio),
                gain,
                "" if timing.of_limit is None else f"{100 * timing.of_limit:.2g}%",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].ljust(widths[2]), row[3].ljust(widths[3])])
        + f"  {row[4].rjust(widths[4])}"
        for row in rows
    ]
    lines[0] += f"  ({rounds})"
    lines += [f"  {name}: left out: {reason}" for name, reason in comparison.left_out.items()]
    return [line.rstrip() for line in lines]


def _memory_lines(memory: Memory) -> list[str]:
    parts = (("base", memory.base_bytes), ("model", memory.model_bytes), ("ahead", memory.ahead_bytes))
    said = " + ".join(f"{name} {size / 1e6:,.1f}" for name, size in parts)
    return [
        memory.label,
        (
            f"  peak {memory.peak_bytes / 1e6:,.1f} MB is {memory.ratio:.2f} times the working set, "
            f"{memory.working_set_bytes / 1e6:,.1f} MB ({said}; at most {memory.ahead_sequences} sequences ahead)"
        ),
    ]


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

"""What a parity check found: one object, for people, for programs and for the exit code."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from .criterion import K, TensorResult


@dataclass(frozen=True)
class CaseResult:
    """One case: its tensors, or the error that kept the file from running."""

    label: str
    tensors: tuple[TensorResult, ...] = ()
    error: str = ""

    @property
    def inconclusive(self) -> bool:
        """Whether PyTorch's own error was too large in this case for it to say anything."""
        return not self.error and any(tensor.inconclusive for tensor in self.tensors)

    @property
    def passed(self) -> bool:
        """Whether it ran and every tensor is within the criterion."""
        return not self.error and bool(self.tensors) and all(tensor.passed for tensor in self.tensors)


@dataclass(frozen=True)
class Report:
    """The outcome of `verify`; truthy when the file is in parity with PyTorch.

    Where a case is inconclusive, the case after it takes its place: the same steps, fewer at a time.
    """

    file: str
    source: str
    provider: str
    cases: tuple[CaseResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def judged(self) -> tuple[CaseResult, ...]:
        """The cases that say something."""
        return tuple(case for case in self.cases if not case.inconclusive)

    def __bool__(self) -> bool:
        """Whether there was something to judge, and all of it passed."""
        return bool(self.judged) and all(case.passed for case in self.judged)

    @property
    def worst(self) -> dict[str, tuple[CaseResult, TensorResult]]:
        """For each output, the judged case in which it came off worst."""
        worst: dict[str, tuple[CaseResult, TensorResult]] = {}
        for case in self.judged:
            for tensor in case.tensors:
                held = worst.get(tensor.output)
                if held is None or not tensor.ratio <= held[1].ratio:
                    worst[tensor.output] = (case, tensor)
        return worst

    def to_dict(self) -> dict[str, object]:
        """JSON-ready: the verdict, the worst of each output, every case."""
        return {
            "passed": bool(self),
            "file": self.file,
            "source": self.source,
            "provider": self.provider,
            "limit": K,
            "outputs": {name: _finite({**asdict(t), "case": c.label}) for name, (c, t) in self.worst.items()},
            "cases": [
                {
                    "case": case.label,
                    "passed": case.passed,
                    "inconclusive": case.inconclusive,
                    "error": case.error or None,
                    "outputs": {tensor.output: _finite(asdict(tensor)) for tensor in case.tensors},
                }
                for case in self.cases
            ],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """A table for people: per output the largest error, PyTorch's own, their ratio, and where."""
        ran = len(self.judged)
        verdict = "in parity with PyTorch" if self else "NOT in parity with PyTorch"
        lines = [
            f"{self.file}: {verdict}, {self.source}",
            f"{ran} cases on {self.provider}; an error may be up to {K:g} times PyTorch's own",
            f"{'output':8} {'largest error':>14} {'PyTorch own':>12} {'ratio':>9}  where",
        ]
        for name, (case, tensor) in self.worst.items():
            at = f"{list(tensor.where)} of {case.label}" if not tensor.problem else f"{case.label}: {tensor.problem}"
            mark = "" if tensor.passed else "  <- fails"
            lines.append(f"{name:8} {tensor.error:14.3g} {tensor.torch_error:12.3g} {tensor.ratio:9.3g}  {at}{mark}")
        lines += [f"failed to run at {case.label}: {case.error}" for case in self.judged if case.error]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def _finite(values: dict[str, object]) -> dict[str, object]:
    """NaN and infinities as strings: JSON has no word for them."""
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }

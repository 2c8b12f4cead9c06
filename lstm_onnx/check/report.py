"""The results of rules, and the report of `check`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..runtime.providers import Placement
from ..terminal_text import one_line, safe_copy
from .finding import MARKS, Finding

_ORDER = (*MARKS.values(), "skip", "ok")
_MOST_LINES = 12
"""The most findings of one rule that are printed; JSON has them all."""


@dataclass(frozen=True)
class CheckResults:
    """Results of rules for a file: where it runs, the findings, the names of the rules applied."""

    provider: str
    findings: tuple[Finding, ...] = ()
    tried: tuple[str, ...] = ()
    placements: tuple[Placement, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> CheckResults:
        """The inverse of `to_dict`."""
        return cls(
            fields["provider"],
            tuple(Finding(**item) for item in fields["findings"]),
            tuple(fields["tried"]),
            tuple(Placement(**item) for item in fields["placements"]),
        )

    def joined(self, other: CheckResults) -> CheckResults:
        """The results of both, with this one's provider."""
        return CheckResults(
            self.provider,
            (*self.findings, *other.findings),
            (*self.tried, *other.tried),
            (*self.placements, *other.placements),
        )


@dataclass(frozen=True)
class CheckReport:
    """The outcome of `check` for one file; truthy if nothing failed.

    Attributes:
        file: the path, as the caller wrote it.
        provider: where the model was run, "cpu" or "cuda".
        findings: sorted by the rules' ids.
        silent: names of further rules that were applied and found nothing.
        ignored: names of rules that were ignored and violated.
        placements: where each node runs, after ONNX Runtime's optimizations.
        required: whether every node had to be on the provider.
        targets: the engines and servers that the file is meant for.
    """

    file: str
    provider: str
    findings: tuple[Finding, ...]
    silent: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    placements: tuple[Placement, ...] = ()
    required: bool = False
    targets: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        file: str,
        results: CheckResults,
        *,
        required: bool = False,
        strict: bool = False,
        ignore: Collection[str] = (),
        targets: tuple[str, ...] = (),
    ) -> CheckReport:
        """The report on results; `ignore` has names of rules, and `strict` turns warnings into errors."""
        findings = sorted(results.findings, key=lambda finding: finding.id)
        with_findings = {finding.rule for finding in findings}
        return cls(
            file,
            results.provider,
            tuple(item.as_error() if strict else item for item in findings if item.rule not in ignore),
            silent=tuple(name for name in dict.fromkeys(results.tried) if name not in with_findings),
            ignored=tuple(dict.fromkeys(item.rule for item in findings if item.rule in ignore and item.violated)),
            placements=results.placements,
            required=required,
            targets=targets,
        )

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that fail the check."""
        return tuple(finding for finding in self.findings if finding.failed)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The violations with the severity "warning"."""
        return tuple(item for item in self.findings if item.violated and item.severity == "warning")

    def __bool__(self) -> bool:
        """Whether something was checked, and nothing failed."""
        return any(finding.passed for finding in self.findings) and not self.failures

    def to_dict(self) -> dict[str, object]:
        """JSON-ready: the verdict and every finding."""
        return {
            "passed": bool(self),
            "file": self.file,
            "provider": self.provider,
            "targets": list(self.targets),
            "findings": [asdict(finding) for finding in self.findings],
            "silent": list(self.silent),
            "ignored": list(self.ignored),
            "placements": [asdict(item) for item in self.placements],
        }

    def __str__(self) -> str:
        """A table as text: failures first, each with its place and its fix, and the verdict last."""
        return safe_copy(self)._table()

    def __repr__(self) -> str:
        """One line: the file, the verdict and how many rules were violated."""
        return one_line(f"<CheckReport {self._verdict()}>")

    def _table(self) -> str:
        width = max((len(finding.rule) for finding in self.findings), default=0)
        lines: list[str] = []
        counts: dict[tuple[str, str], int] = {}
        for finding in sorted(self.findings, key=lambda item: _ORDER.index(item.mark)):
            kind = finding.rule, finding.mark
            counts[kind] = counts.get(kind, 0) + 1
            if counts[kind] <= _MOST_LINES:
                lines += _lines(finding, width)
        more = sum(max(0, count - _MOST_LINES) for count in counts.values())
        lines += [f"      {more} more like these; --json lists them all"] if more else []
        if self.silent:
            lines.append(f"ok    {len(self.silent)} further rules found nothing")
        if self.ignored:
            lines.append(f"      ignored: {', '.join(self.ignored)}")
        if self.required:
            lines += [f"      {item.node or 'unnamed'} ({item.op_type}) -> {item.provider}" for item in self.placements]
        ids = dict.fromkeys(finding.id for finding in (*self.failures, *self.warnings) if finding.id)
        if ids:
            lines.append(f"why: lstm-onnx check --explain {next(iter(ids))}")
        return "\n".join([*lines, self._verdict()])

    def _verdict(self) -> str:
        rules = dict.fromkeys(f"{finding.id} {finding.rule}".strip() for finding in self.failures)
        verdict = "passed" if self else f"FAILED ({', '.join(rules) or 'nothing was checked'})"
        count = len(self.warnings)
        warnings = f", {count} warning{'s' * (count > 1)}" if count else ""
        meant = f", for {', '.join(self.targets)}" if self.targets else ""
        return f"{self.file}: {verdict} on {self.provider}{meant}{warnings}"


@dataclass(frozen=True)
class CheckReports:
    """The reports on several files, and the errors of those that could not be read."""

    reports: tuple[CheckReport, ...]
    errors: Mapping[str, str]

    SCHEMA = 1
    """Version of the JSON, raised when a key changes its meaning or is removed."""

    def __bool__(self) -> bool:
        """Whether every file was read and passed."""
        return all(self.reports) and not self.errors

    def to_dict(self) -> dict[str, object]:
        """JSON-ready: one object for one file or many; a file that cannot be read has an "error"."""
        errors = [{"file": file, "passed": False, "error": error} for file, error in self.errors.items()]
        files = [*(report.to_dict() for report in self.reports), *errors]
        return {"schema": self.SCHEMA, "passed": bool(self), "files": files}

    def __str__(self) -> str:
        """The tables, one after another."""
        return "\n\n".join(map(str, self.reports))


def _lines(finding: Finding, width: int) -> list[str]:
    where = f"{finding.where}: " if finding.where else ""
    head = f"{finding.mark:4}  {finding.id + ' ' if finding.id else ''}{finding.rule:{width}}  "
    lines = [f"{head}{where}{finding.message}"]
    if finding.fix and finding.violated:
        lines.append(f"{'':{len(head)}}fix: {finding.fix}")
    return lines

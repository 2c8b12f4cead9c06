"""What a check says: the findings of its rules, and the report that holds them."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..runtime.providers import Placement
from ..terminal_text import safe_copy
from .rule import catalogue, named

REEXPORT = "export the model again"
BAKED = "a size was baked in; export again with dynamic batch and time"
_MARKS = {"error": "FAIL", "warning": "warn", "info": "note"}
_ORDER = ("FAIL", "warn", "note", "skip", "ok")
_MOST_LINES = 12
"""So many findings of a rule are shown to people; JSON has all."""


@dataclass(frozen=True)
class Finding:
    """What one rule has to say.

    `rule` is its name; `where` the node or value it is about, or ""; `message` says what is so or what
    is wrong; `fix` how to mend it.  What is wrong fails the check where `severity` is "error"; a
    "warning" and "info" are told.  A rule that could not be tried on this file is `skipped`: neither
    passed nor failed.
    """

    rule: str
    passed: bool
    where: str
    message: str
    fix: str = ""
    skipped: bool = False
    severity: str = "error"

    @property
    def id(self) -> str:
        """The rule's stable id."""
        rule = named(self.rule)
        return rule.id if rule is not None else ""

    @property
    def failed(self) -> bool:
        """Whether something is wrong that fails the check."""
        return self.told and self.severity == "error"

    @property
    def told(self) -> bool:
        """Whether there is something to say, of whatever severity."""
        return not self.passed and not self.skipped

    @property
    def mark(self) -> str:
        """A word for the first column of a table."""
        return "skip" if self.skipped else "ok" if self.passed else _MARKS.get(self.severity, "FAIL")


@dataclass(frozen=True)
class Examined:
    """What the rules have found in a file, or some of them: where it runs, and the names of those that were tried."""

    provider: str
    findings: tuple[Finding, ...] = ()
    tried: tuple[str, ...] = ()
    placements: tuple[Placement, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Examined:
        """What `to_dict` was made of."""
        return cls(
            fields["provider"],
            tuple(Finding(**item) for item in fields["findings"]),
            tuple(fields["tried"]),
            tuple(Placement(**item) for item in fields["placements"]),
        )

    def joined(self, other: Examined) -> Examined:
        """Both, where this one runs."""
        return Examined(
            self.provider,
            (*self.findings, *other.findings),
            (*self.tried, *other.tried),
            (*self.placements, *other.placements),
        )


@dataclass(frozen=True)
class CheckReport:
    """The outcome of `check`; truthy when nothing failed.

    `provider` is where the model was run; `silent` the names of further rules that were tried and found
    nothing; `ignored` of those that were asked to be left out and had something to say; `placements` where each
    node runs, after ONNX Runtime's optimisations, and `required` whether each had to be on the provider.
    """

    file: str
    provider: str
    findings: tuple[Finding, ...]
    silent: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    placements: tuple[Placement, ...] = ()
    required: bool = False

    @classmethod
    def of(
        cls, file: str, found: Examined, *, required: bool = False, strict: bool = False, ignore: Collection[str] = ()
    ) -> CheckReport:
        """The report on what was found, in the order of the rules' ids; `ignore` are names."""
        findings = sorted(found.findings, key=lambda item: item.id)
        spoke = {item.rule for item in findings}
        return cls(
            file,
            found.provider,
            tuple(strictly(item) if strict else item for item in findings if item.rule not in ignore),
            silent=tuple(rule.name for rule in catalogue() if rule.name in found.tried and rule.name not in spoke),
            ignored=tuple(dict.fromkeys(item.rule for item in findings if item.rule in ignore and item.told)),
            placements=found.placements,
            required=required,
        )

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that failed."""
        return tuple(finding for finding in self.findings if finding.failed)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that are told and do not fail."""
        return tuple(item for item in self.findings if item.told and item.severity == "warning")

    def __bool__(self) -> bool:
        """Whether something was checked, and nothing failed."""
        return any(finding.passed for finding in self.findings) and not self.failures

    def to_dict(self) -> dict[str, object]:
        """JSON-ready: the verdict and every finding."""
        return {
            "passed": bool(self),
            "file": self.file,
            "provider": self.provider,
            "findings": [{"id": finding.id, **asdict(finding)} for finding in self.findings],
            "silent": list(self.silent),
            "ignored": list(self.ignored),
            "placements": [asdict(item) for item in self.placements],
        }

    def __str__(self) -> str:
        """A table for people: what failed first, with where and how to mend it, the verdict last."""
        return safe_copy(self)._table()

    def _table(self) -> str:
        wide = max((len(finding.rule) for finding in self.findings), default=0)
        lines: list[str] = []
        counts: dict[tuple[str, str], int] = {}
        for finding in sorted(self.findings, key=lambda item: _ORDER.index(item.mark)):
            kind = finding.rule, finding.mark
            counts[kind] = counts.get(kind, 0) + 1
            if counts[kind] <= _MOST_LINES:
                lines += _lines(finding, wide)
        more = sum(max(0, count - _MOST_LINES) for count in counts.values())
        lines += [f"      {more} more like these; --json has them all"] if more else []
        if self.silent:
            lines.append(f"ok    {len(self.silent)} further rules found nothing")
        if self.ignored:
            lines.append(f"      ignored: {', '.join(self.ignored)}")
        if self.required:
            lines += [f"      {item.node or 'unnamed'} ({item.op_type}) -> {item.provider}" for item in self.placements]
        ids = dict.fromkeys(finding.id for finding in (*self.failures, *self.warnings) if finding.id)
        if ids:
            lines.append(f"why: lstm-onnx check --explain {next(iter(ids))}")
        rules = dict.fromkeys(f"{finding.id} {finding.rule}".strip() for finding in self.failures)
        verdict = "passed" if self else f"FAILED ({', '.join(rules) or 'nothing was checked'})"
        count = len(self.warnings)
        told = f", {count} warning{'s' * (count > 1)}" if count else ""
        return "\n".join([*lines, f"{self.file}: {verdict} on {self.provider}{told}"])


def _lines(finding: Finding, wide: int) -> list[str]:
    where = f"{finding.where}: " if finding.where else ""
    head = f"{finding.mark:4}  {finding.id + ' ' if finding.id else ''}{finding.rule:{wide}}  "
    lines = [f"{head}{where}{finding.message}"]
    if finding.fix and finding.told:
        lines.append(f"{'':{len(head)}}fix: {finding.fix}")
    return lines


def passed(rule: str, message: str) -> Finding:
    """What is so."""
    return Finding(rule, True, "", message, severity=_severity(rule))


def failed(rule: str, where: str, message: str, fix: str = "") -> Finding:
    """What is wrong, and where; of the rule's own severity, and its own fix unless another is given."""
    known = named(rule)
    where = str(where)  # protobuf hands out a name that is not UTF-8 as bytes
    return Finding(rule, False, where, message, fix or (known.fix if known else REEXPORT), severity=_severity(rule))


def skipped(rule: str, message: str) -> Finding:
    """Why the rule could not be tried."""
    return Finding(rule, False, "", message, skipped=True, severity=_severity(rule))


def strictly(finding: Finding) -> Finding:
    """A warning as an error."""
    return replace(finding, severity="error") if finding.severity == "warning" else finding


def _severity(rule: str) -> str:
    known = named(rule)
    return known.severity if known else "error"


def words(error: BaseException | str) -> str:
    """An error's message on one line, and not without end."""
    return textwrap.shorten(str(error) or type(error).__name__, 400, placeholder=" ...")

"""What a check says: a finding for each rule, and the report that holds them."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass

REEXPORT = "export the model again"
BAKED = "a size was baked in; export again with dynamic batch and time"
_FIRST_COLUMN = 15


@dataclass(frozen=True)
class Finding:
    """What one rule has to say.

    `where` is the node or value it is about, or ""; `message` says what is so or what is wrong; `fix`
    how to mend it.  A rule that could not be tried on this file is `skipped`: neither passed nor failed.
    """

    rule: str
    passed: bool
    where: str
    message: str
    fix: str = ""
    skipped: bool = False

    @property
    def failed(self) -> bool:
        """Whether something is wrong."""
        return not self.passed and not self.skipped


@dataclass(frozen=True)
class CheckReport:
    """The outcome of `check`; truthy when nothing failed.  `provider` is where the model was run."""

    file: str
    provider: str
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that failed."""
        return tuple(finding for finding in self.findings if finding.failed)

    def __bool__(self) -> bool:
        """Whether something was checked, and nothing failed."""
        return any(finding.passed for finding in self.findings) and not self.failures

    def to_dict(self) -> dict[str, object]:
        """JSON-ready: the verdict and every finding."""
        return {
            "passed": bool(self),
            "file": self.file,
            "provider": self.provider,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def __str__(self) -> str:
        """A table for people: a line for each finding, how to mend it below, the verdict last."""
        lines = []
        for finding in self.findings:
            mark = "skip" if finding.skipped else "ok" if finding.passed else "FAIL"
            where = f"{finding.where}: " if finding.where else ""
            lines.append(f"{mark:4}  {finding.rule:{_FIRST_COLUMN}}{where}{finding.message}")
            if finding.fix and finding.failed:
                lines.append(f"{'':{_FIRST_COLUMN + 6}}fix: {finding.fix}")
        rules = dict.fromkeys(finding.rule for finding in self.failures)
        verdict = "passed" if self else f"FAILED ({', '.join(rules) or 'nothing was checked'})"
        return "\n".join([*lines, f"{self.file}: {verdict} on {self.provider}"])


def passed(rule: str, message: str) -> Finding:
    """What is so."""
    return Finding(rule, True, "", message)


def failed(rule: str, where: str, message: str, fix: str = REEXPORT) -> Finding:
    """What is wrong, and where."""
    return Finding(rule, False, where, message, fix)


def skipped(rule: str, message: str) -> Finding:
    """Why the rule could not be tried."""
    return Finding(rule, False, "", message, skipped=True)


def words(error: BaseException | str) -> str:
    """An error's message on one line, and not without end."""
    return textwrap.shorten(str(error) or type(error).__name__, 400, placeholder=" ...")

"""`Finding`: one result of a rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

MARKS = {"error": "FAIL", "warning": "warn", "info": "note"}


@dataclass(frozen=True)
class Finding:
    """One result of a rule: passed, violated or skipped.

    Attributes:
        rule: the rule's name.
        passed: whether the file complies.
        where: the node or value at fault, or "".
        message: what is right or wrong.
        fix: how to fix what is wrong.
        skipped: the rule could not be applied to this file: neither passed nor violated.
        severity: "error" (a violation fails the check), "warning" or "info" (it is only reported).
        id: the rule's stable id.
    """

    rule: str
    passed: bool
    where: str
    message: str
    fix: str = ""
    skipped: bool = False
    severity: str = "error"
    id: str = ""

    @property
    def violated(self) -> bool:
        """Whether the file violates the rule, whatever the severity."""
        return not self.passed and not self.skipped

    @property
    def failed(self) -> bool:
        """Whether it fails the check."""
        return self.violated and self.severity == "error"

    @property
    def mark(self) -> str:
        """The word in the first column of the report."""
        return "skip" if self.skipped else "ok" if self.passed else MARKS.get(self.severity, "FAIL")

    def as_error(self) -> Finding:
        """The same finding with the severity "error" in place of "warning"."""
        return replace(self, severity="error") if self.severity == "warning" else self

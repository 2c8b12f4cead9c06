"""What a rule of the checker is, and how one is found: by its id or by its name."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass

from ..errors import ConfigError

SEVERITIES = ("error", "warning", "info")
"""An error fails the check, a warning does so where the check is strict, and info is told."""
_WIDTH = 96


@dataclass(frozen=True)
class Rule:
    """One thing that `check` looks at.

    `id` and `name` stay as they are from version to version.  `summary` says what a file that violates
    it does; `why` what comes of that; `fix` how to mend it.
    """

    id: str
    name: str
    severity: str
    summary: str
    why: str
    fix: str

    def to_dict(self) -> dict[str, str]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        """All that is known of it, for people."""
        parts = [f"{self.id} {self.name} ({self.severity})", self.summary, self.why, f"Fix: {self.fix}"]
        return "\n\n".join(textwrap.fill(part, _WIDTH, break_on_hyphens=False) for part in parts)


def catalogue() -> tuple[Rule, ...]:
    """Every rule, in the order of their ids."""
    from .catalogue import RULES

    return RULES


def find(text: str) -> Rule:
    """The rule of that id or name, in capitals or not.

    Raises:
        ConfigError: there is none; the message lists them.
    """
    wanted = text.strip().lower().replace("_", "-")
    for rule in catalogue():
        if wanted in (rule.id.lower(), rule.name):
            return rule
    known = ", ".join(f"{rule.id} {rule.name}" for rule in catalogue())
    raise ConfigError(f'no rule is called "{text}"; the rules are {known}')


def named(name: str) -> Rule | None:
    """The rule of exactly that name."""
    return next((rule for rule in catalogue() if rule.name == name), None)


@dataclass(frozen=True)
class Rules:
    """All rules, to be listed."""

    rules: tuple[Rule, ...]

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {"rules": [rule.to_dict() for rule in self.rules]}

    def __str__(self) -> str:
        """A line for each."""
        wide = max(len(rule.name) for rule in self.rules)
        return "\n".join(f"{rule.id}  {rule.name:{wide}}  {rule.severity:7}  {rule.summary}" for rule in self.rules)

"""The rules of `check`, one module per family, with the rules' texts and the functions that apply them.

LO1xx are about the file, LO2xx axes, LO3xx states and lengths, LO4xx recurrent operators, LO5xx providers,
LO6xx other engines and servers (`rule.TARGETS`).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Collection
from dataclasses import dataclass

from ...errors import ConfigError
from ..rule import APPLICATIONS, RULES, Application, Rule

_LEAST_LIKENESS = 0.7
"""The cutoff of difflib's ratio: one character of "LO307" may be wrong or missing, or two of a name."""

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
RULES.sort(key=lambda rule: rule.id)
APPLICATIONS.sort(key=lambda application: application.rules[0].id)


def all_rules() -> tuple[Rule, ...]:
    """Every rule, sorted by id."""
    return tuple(RULES)


def applications(*needs: str, targets: Collection[str] = ()) -> list[Application]:
    """The functions whose needs are among `needs`, sorted by the id of their first rule.

    Those on an engine are left out unless it is among `targets`.
    """
    wanted = ("", *targets)
    return [item for item in APPLICATIONS if item.needs in needs and item.rules[0].target in wanted]


def sorted_names(names: Collection[str]) -> tuple[str, ...]:
    """Names of rules without repetitions, sorted by the rules' ids."""
    return tuple(rule.name for rule in RULES if rule.name in names)


def find_rule(text: str) -> Rule:
    """The rule of that id or name, in any case.

    Raises:
        ConfigError: there is none; the message names the closest.
    """
    wanted = str(text).strip().lower().replace("_", "-")
    by_key = {key: rule for rule in RULES for key in (rule.id.lower(), rule.name)}
    if wanted in by_key:
        return by_key[wanted]
    close = difflib.get_close_matches(wanted, by_key, n=1, cutoff=_LEAST_LIKENESS)
    hint = f"did you mean {by_key[close[0]].id} {by_key[close[0]].name}? " if close else ""
    raise ConfigError(f'no rule is called "{text}"; {hint}`lstm-onnx check --rules` lists all')


@dataclass(frozen=True)
class RuleList:
    """Rules to print: a line each, or JSON."""

    rules: tuple[Rule, ...]

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {"rules": [rule.to_dict() for rule in self.rules]}

    def __str__(self) -> str:
        """A line for each."""
        width = max(len(rule.name) for rule in self.rules)
        return "\n".join(f"{rule.id}  {rule.name:{width}}  {rule.severity:7}  {rule.summary}" for rule in self.rules)

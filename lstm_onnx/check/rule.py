"""The registry of rules: each is registered where it is defined, and so is the function that applies it.

A module in `rules/` holds a family of rules::

    LAYOUT = rule("LO401", "layout", "error", summary="...", why="...", fix="...")


    @applies(LAYOUT)
    def layout(context: CheckContext) -> Iterator[Finding]:
        for _, node in context.onnx_operators:
            yield LAYOUT.violated(node, "...")

Rules are listed nowhere else: every module in `rules/` is imported, and its rules are run, listed and explained.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeVar

from onnx import NodeProto

from ..onnxgraph import node_label
from ..spec import TARGETS
from .finding import Finding

if TYPE_CHECKING:
    from .context import CheckContext

SEVERITIES = ("error", "warning", "info")
_WIDTH = 96
RuleFunction = Callable[["CheckContext"], Iterable[Finding]]
F = TypeVar("F", bound=RuleFunction)


@dataclass(frozen=True)
class Rule:
    """One rule of `check`.

    Attributes:
        id: "LO" and three digits; as stable as `name` from version to version.
        name: lower case, with hyphens.
        severity: "error" fails the check, "warning" does so with --strict, "info" never does.
        summary: what is wrong with a file that violates it.
        why: the consequences.
        fix: how to fix it.
        target: the engine that it is about, of `spec.TARGETS`: it is applied only if that is requested; "" is always.
        source: for a rule about an engine, what was run, with its version, or the document and the place in it.
    """

    id: str
    name: str
    severity: str
    summary: str
    why: str
    fix: str
    target: str = ""
    source: str = ""

    def passed(self, message: str) -> Finding:
        """A finding that the file complies with the rule."""
        return Finding(self.name, True, "", message, severity=self.severity, id=self.id)

    def violated(self, where: str | NodeProto, message: str, fix: str = "", *, severity: str = "") -> Finding:
        """The node or value `where` violates it; `fix` and `severity` default to the rule's."""
        # protobuf returns a name that is not UTF-8 as bytes.
        at = node_label(where) if isinstance(where, NodeProto) else str(where)
        return Finding(self.name, False, at, message, fix or self.fix, severity=severity or self.severity, id=self.id)

    def skipped(self, message: str) -> Finding:
        """It could not be applied."""
        return Finding(self.name, False, "", message, skipped=True, severity=self.severity, id=self.id)

    def to_dict(self) -> dict[str, str]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        """The whole rule as text."""
        heading = f"{self.id} {self.name} ({self.severity}{f', --target {self.target}' if self.target else ''})"
        parts = [heading, self.summary, self.why, f"Fix: {self.fix}"]
        parts += [f"Source: {self.source}"] if self.source else []
        return "\n\n".join(textwrap.fill(part, _WIDTH, break_on_hyphens=False) for part in parts)


@dataclass(frozen=True)
class Application:
    """A function and the rules that it applies; `needs` is one of the constants below."""

    rules: tuple[Rule, ...]
    function: RuleFunction
    needs: str


FILE = "the file"
"""Needs only the file: applied before ONNX Runtime opens it."""
PROVIDER = "a provider"
"""Needs the provider on which the model runs: applied after it was opened."""
CUDA = "CUDA"
"""As PROVIDER, if CUDA was requested, even if only by "auto"."""
FORECAST = "a forecast for CUDA"
"""As CUDA, if no session has shown where each node runs."""
RULES: list[Rule] = []
APPLICATIONS: list[Application] = []


def rule(
    id: str,  # noqa: A002
    name: str,
    severity: str,
    *,
    summary: str,
    why: str,
    fix: str,
    target: str = "",
    source: str = "",
) -> Rule:
    """Define and register a rule; for the arguments see `Rule`.

    Raises:
        ValueError: the id or the name is taken, the severity or the target is unknown, or a rule about a target has
            no source.
    """
    if severity not in SEVERITIES or any(id == other.id or name == other.name for other in RULES):
        raise ValueError(f"{id} {name}: the id or the name is taken, or the severity {severity} is unknown")
    if target not in ("", *TARGETS) or bool(target) is not bool(source):
        raise ValueError(f"{id} {name}: the target {target} is unknown, or its source is not said")
    RULES.append(Rule(id, name, severity, summary, why, fix, target, source))
    return RULES[-1]


def applies(*rules: Rule, needs: str = FILE) -> Callable[[F], F]:
    """Register the function that applies `rules`; a graph too damaged for it violates the first of them."""

    def register(function: F) -> F:
        APPLICATIONS.append(Application(rules, function, needs))
        return function

    return register

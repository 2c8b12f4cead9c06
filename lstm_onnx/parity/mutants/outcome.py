"""What came of changing a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """Whether a mistake was made in a model.

    `applied` is False where there is nothing to make it in, and where it is proven to be none, which
    `reason` then says.
    """

    applied: bool
    reason: str = ""


APPLIED, ABSENT = Outcome(applied=True), Outcome(applied=False)


def equivalent(reason: str) -> Outcome:
    """The changed model would compute what the right one does, for this reason."""
    return Outcome(applied=False, reason=reason)

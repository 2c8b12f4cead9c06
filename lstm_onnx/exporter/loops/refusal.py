"""Why a loop was not rolled up."""

from __future__ import annotations

from collections.abc import Iterable


class NotRolled(Exception):  # noqa: N818 - for the search it is not an error
    """There is no proof that the unrolled code is a loop.

    Args:
        reason: what stands in the way, as a clause.
        line: the user's line at which it shows.
        depth: how far the search had come; the refusal that came furthest says most.
    """

    def __init__(self, reason: str, line: str | None = None, depth: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.line, self.depth = reason, line, depth


def deepest(refusals: Iterable[NotRolled]) -> NotRolled:
    """The one that came furthest."""
    return max(refusals, key=lambda refusal: (refusal.depth, refusal.line is not None))

"""Checks that the rows of a file's outputs come in the module's order, also where equal numbers are sorted."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import ExportError
from ..functional.functional_module import FixedSizeError
from .shape_trial import WRONG, ShapeTrial, Sizes

SORTED_STABLY = 16
"""With up to this many equal numbers, PyTorch's sort is stable in practice."""
_MANY = 67
_LONGER = 5
_COST = 2 * 10**9
"""The most multiplications of a trial."""


def require_row_order(trial: ShapeTrial, within: Callable[[Sizes], Sizes]) -> None:
    """Run a file on sequences that all differ, and on lengths that differ, so that a wrong order shows.

    A resized example does not show it, since its sequences repeat and its lengths may be equal.

    Args:
        trial: runs the file beside its module.
        within: moves sizes into the limits of the axes.

    Raises:
        ExportError: the file's rows come in another order.
    """
    for name in trial.names if trial.facts.sorts else ():
        sizes = within({**trial.own, name: _MANY})
        if trial.cost(sizes) <= max(_COST, 4 * trial.cost(trial.own)):
            outcome = trial.with_other_rows(sizes)
            if outcome.kind == WRONG:
                at = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
                raise FixedSizeError(f"{outcome.message} at {at}, so it was not kept; {sort_cause(trial)}")
    if trial.facts.each:
        outcome = trial.with_other_lengths(within({name: own + _LONGER for name, own in trial.own.items()}))
        if outcome.kind == WRONG:
            raise ExportError(
                f"{outcome.message} where lengths differ from row to row, so it was not kept; the module's code takes "
                "the numbers of a tensor one by one (a loop, tolist(), numpy()) and depends on their order; write it "
                "with tensor operations, such as torch.sort"
            )


def sort_cause(trial: ShapeTrial) -> str:
    """Why rows come in another order, and what to write instead."""
    return (
        f"at {trial.facts.sorts[0]}: sort does not define the order of equal numbers, and the outputs or states "
        "depend on it; pass stable=True, or put the rows back into the caller's order"
    )

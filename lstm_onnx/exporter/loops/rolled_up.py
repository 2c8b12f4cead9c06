"""The module to trace in the place of one whose Python loops fix an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import ExportError
from ..functional.functional_module import FunctionalModule
from ..opaque.operators import RecurrentModule
from .detect import busiest_line, nested_loops, shortened_axis
from .emit import RolledModule
from .refusal import NotRolled
from .roll import Rolled, roll

_ADVICE = (
    "write the step so that it is the same in all steps (torch.where in the place of an if, an index that grows by 1), "
    "use nn.LSTM or nn.GRU, or export a single step and keep the loop outside"
)

_MANY = 60
"""Entries more, with which the line of a loop is called more often than others."""
_FLAT = "the inner loop must be one call, such as one of nn.LSTM, with the outer axis as part of the batch"


@dataclass(frozen=True)
class RolledUp:
    """What is traced, and what it was made of."""

    module: RolledModule
    rolled: Rolled

    @property
    def recurrent_modules(self) -> Mapping[str, RecurrentModule]:
        """By path, those of hand-written cells included."""
        return self.rolled.modules


def rolled_up(functional: FunctionalModule, loops: Sequence[str], sizes: Mapping[str, int]) -> RolledUp | None:
    """A module with its Python loops rolled up; None where it has none.

    Args:
        functional: the module.
        loops: the axes over which it may loop.
        sizes: a size for each dynamic axis, 2 or more.

    Raises:
        ExportError: there is a loop, and no proof of what it is; the message has the line and the reason.
    """
    try:
        if len(loops) > 1 and (problem := _nested(functional, loops, sizes)) is not None:
            raise problem
        rolled = roll(functional, loops, sizes)
        if rolled is None:
            if (problem := _shortened(functional, loops, sizes)) is not None:
                raise problem
            return None
        inner = functional.stateful.inner
        module = RolledModule(rolled.apart, inner, rolled.calls, rolled.least)
        return RolledUp(module.eval(), rolled)
    except NotRolled as refusal:
        refusal = _nested(functional, loops, sizes) or _shortened(functional, loops, sizes) or refusal
        raise refused(refusal) from None


def _nested(functional: FunctionalModule, loops: Sequence[str], sizes: Mapping[str, int]) -> NotRolled | None:
    """The refusal of a module whose loops are nested."""
    nested = nested_loops(functional, loops, sizes)
    if nested is None:
        return None
    one, other = nested
    what = f"{one} within a loop over {one}" if one == other else f"{one} and {other} within one another"
    return NotRolled(f"it loops over {what}; {_FLAT}", busiest_line(functional, sizes))


def _shortened(functional: FunctionalModule, loops: Sequence[str], sizes: Mapping[str, int]) -> NotRolled | None:
    """The refusal of a module with a loop over an axis that was made shorter before."""
    name = shortened_axis(functional, loops, sizes)
    if name is None:
        return None
    what = f"it makes a step for several entries of {name}; export what is before the loop by itself, and the loop"
    longer = {**sizes, name: functional.arguments.within(name, sizes[name] + _MANY)}
    return NotRolled(f"{what} as a module with an input of its steps", busiest_line(functional, longer))


def refused(refusal: NotRolled) -> ExportError:
    """The refusal as the user reads it."""
    at = f"at {refusal.line}: " if refusal.line else ""
    problem = f"a Python loop over a dynamic axis cannot become one of the file: {refusal.reason}"
    return ExportError(f"{at}{problem}; {_ADVICE}")

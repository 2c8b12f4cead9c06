"""Finds the axes over which a module loops in Python: the longer such an axis, the more often its code calls torch."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ExportError
from ..functional.dynamic_axes import is_other_axis
from ..functional.functional_module import FunctionalModule
from ..functional.recurrent_calls import CountedCalls
from ..functional.resized_example import resize_example
from ..tracing.scripted_functions import scripted_functions_in_python
from ..user_code import user_line

_MORE = 3
_MANY_MORE = 12
"""For a loop over a part of an axis, such as every second or fourth step."""


class _CountedLines(CountedCalls):
    """Also counts the calls of each of the user's lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, and pass on."""
        self.lines[user_line()] += 1
        return super().__torch_function__(func, types, args, kwargs)


def looped_axes(functional: FunctionalModule, sizes: Mapping[str, int]) -> list[str]:
    """The names of the dynamic axes over which the module's code may loop.

    Args:
        functional: the module.
        sizes: a size for each dynamic axis.
    """
    before = _calls(functional, sizes)
    found = []
    for name, size in sizes.items():
        for more in (_MORE, _MANY_MORE):
            longer = functional.arguments.within(name, size + more)
            calls = _calls(functional, {**sizes, name: longer}) if longer > size else None
            if before is not None and calls is not None and calls - before >= longer - size:
                found.append(name)
                break
    return found


def nested_loops(
    functional: FunctionalModule, loops: Sequence[str], sizes: Mapping[str, int]
) -> tuple[str, str] | None:
    """Two axes (or one axis twice) with a loop over one inside a loop over the other; None if there are none.

    Args:
        functional: the module.
        loops: the names of the axes over which it loops.
        sizes: a size for each dynamic axis.
    """
    for one, other in itertools.combinations_with_replacement(loops, 2):
        # Steps that alternate, such as every second one of an axis, repeat after twice as many.
        more = 2 * _MORE if one == other else _MORE
        grown = [
            {**sizes, **{name: sizes[name] + own.count(name) * more for name in (one, other)}}
            for own in ((), (one,), (other,), (one, other))
        ]
        if any(functional.arguments.within(name, own[name]) != own[name] for own in grown for name in (one, other)):
            continue
        counts = [found for own in grown if (found := _calls(functional, own)) is not None]
        # Calls of successive loops add up, and those of nested loops multiply.
        if len(counts) == len(grown) and counts[0] + counts[3] - counts[1] - counts[2] >= more**2:
            return one, other
    return None


def shortened_axis(functional: FunctionalModule, loops: Sequence[str], sizes: Mapping[str, int]) -> str | None:
    """An axis of which each step of a loop takes several entries, such as after a stride; None where there is none."""
    for name in loops:
        grown = [sizes[name] + more for more in (0, 1, 2, _MANY_MORE, 2 * _MANY_MORE)]
        counts = [found for size in grown if (found := _calls(functional, {**sizes, name: size})) is not None]
        # One more entry adds no calls, but many do, repeatedly: a branch on the size would add calls only once.
        if len(counts) == len(grown) and len({*counts[:3]}) < 3 and counts[0] < counts[3] < counts[4]:
            return name
    return None


def busiest_line(functional: FunctionalModule, sizes: Mapping[str, int]) -> str | None:
    """The line of the user's code that calls torch most often: that of the innermost loop."""
    count = _CountedLines()
    if _calls(functional, sizes, count) is None or not count.lines:
        return None
    return count.lines.most_common(1)[0][0] or None


def _calls(functional: FunctionalModule, sizes: Mapping[str, int], count: CountedCalls | None = None) -> int | None:
    count = count or CountedCalls()
    with contextlib.suppress(ExportError):
        inputs, states = resize_example(functional, sizes)
        with count, scripted_functions_in_python():
            functional.run(inputs, states)
        return count.count
    return None


def may_be_static(functional: FunctionalModule, loops: list[str]) -> bool:
    """Whether the caller named no dynamic axes, and one of `loops` is neither batch nor time: it can be made static."""
    arguments = functional.arguments
    if not arguments.guessed or not functional.recurrent_modules:
        return False
    places = [(name, axis) for name, own in arguments.axes.items() for axis, label in own.items() if label in loops]
    return any(is_other_axis(arguments, place) for place in places)

"""Traces a module at fixed lengths of the looped axes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ..functional.functional_module import FunctionalModule
from ..functional.resized_example import resize_example
from ..tracing.torch_export import exported_program, fixed_graph
from ..tracing.without_writes import changes_graph, without_writes
from .canonical import canonical, canonical_program
from .program import NotRolled, Sizes, Trace


def trace_at(functional: FunctionalModule, sizes: Mapping[str, int], axes: Sequence[str], *, lines: bool) -> Trace:
    """The trace of a module.

    Args:
        functional: the module.
        sizes: the size of each dynamic axis.
        axes: the order of their names in the trace.
        lines: keep the lines of the user's code.

    Raises:
        ExportError: the module cannot be traced at these sizes.
        NotRolled: the trace holds something that a program with loops cannot.
    """
    inputs, states = resize_example(functional, sizes)
    graph = fixed_graph(functional, inputs, states, lines=lines)
    order = tuple(sizes[name] for name in axes)
    plain = without_writes(functional, graph) if changes_graph(graph) else graph
    if plain is None:
        return replace(canonical_program(exported_program(functional, inputs, states), order), checks=graph.checks)
    return replace(canonical(plain, functional.stateful, order), checks=graph.checks)


def places_of(functional: FunctionalModule, loops: Collection[str]) -> tuple[tuple[int, int], ...]:
    """For each looped axis, an input's number and its axis.

    Raises:
        NotRolled: an axis occurs only in expressions for other axes.
    """
    known: dict[str, tuple[int, int]] = {}
    for number, name in enumerate(functional.arguments.tensors):
        for axis, label in functional.arguments.axes[name].items():
            known.setdefault(label, (number, axis))
    if missing := [name for name in loops if name not in known]:
        raise NotRolled(f"the axis {missing[0]} occurs only as part of another axis")
    return tuple(known[name] for name in loops)


def sizes_to_trace(
    functional: FunctionalModule, loops: Sequence[str], others: Mapping[str, int]
) -> tuple[list[Sizes], list[list[Sizes]]]:
    """Sizes to find a program at, and lists of sizes to check it at: in each list, the first at which the module runs.

    Args:
        functional: the module.
        loops: the looped axes, which come first in the sizes.
        others: the other dynamic axes, with a size of 2 or more of each.

    Raises:
        NotRolled: the requested limits of an axis leave too few.
    """
    arguments = functional.arguments
    least = [arguments.limits.get(name, (1, None))[0] for name in loops]
    fixed = _fixed_sizes(functional)
    first = next((size for size in range(_BASE, _BASE + 3) if fixed.isdisjoint((size, size + 1))), _BASE)
    base = [max(first + 2 * place, low) for place, low in enumerate(least)]
    rest: list[int] = []
    for name, size in others.items():
        rest.append(_free_size(functional, name, size, {*base, *rest, *(size + 1 for size in rest)}, fixed))
    own = [*base, *rest]
    found = [tuple(size + (i == j) for j, size in enumerate(own)) for i in range(-1, len(own))]
    more = [size + 1 for size in rest]
    longer = tuple([size + 3 + 2 * i for i, size in enumerate(base)] + more)
    shorter = [tuple([max(size + i, low) for i, low in enumerate(least)] + more) for size in (3, 4, 5)]
    other = tuple([size + 5 + i for i, size in enumerate(base)] + more)
    names = [*loops, *others]
    for sizes in (*found, longer):
        for name, size in zip(names, sizes, strict=True):
            if arguments.within(name, size) != size:
                raise NotRolled(f"a proof needs several sizes of {name} up to {size}, which its limits exclude")
    return found, [[longer], [*(sizes for sizes in shorter if sizes not in found), other]]


def _free_size(functional: FunctionalModule, name: str, size: int, taken: Collection[int], fixed: set[int]) -> int:
    """A size of an axis that differs from all others, and so does that size plus one.

    Otherwise zeros of ``(batch, source)`` might equal those of ``(batch, features)`` by chance, and become one value.
    """
    least, largest = functional.arguments.limits.get(name, (1, None))
    usual = (size, 2, 4, 5, 12, 13)
    ways: list[tuple[int, set[int], set[int]]] = [(c, {*taken, *fixed}, {c, c + 1}) for c in (*usual, *range(6, 40))]
    for candidate, others, own in (*ways, *((c, {*taken}, {c}) for c in usual)):
        if max(least, 2) <= candidate and others.isdisjoint(own) and (largest is None or candidate < largest):
            return candidate
    return size


def _fixed_sizes(functional: FunctionalModule) -> set[int]:
    """The sizes of weights, and of the inputs' axes that are not dynamic."""
    arguments = functional.arguments
    weights = (*functional.stateful.parameters(), *functional.stateful.buffers())
    found: set[int] = {size for tensor in weights for size in tensor.shape}
    for name, tensor in arguments.tensors.items():
        found.update(size for axis, size in enumerate(tensor.shape) if axis not in arguments.axes[name])
    return found


_BASE = 7
"""The shortest length at which loops are looked for; the four gates of a cell must not look like steps."""

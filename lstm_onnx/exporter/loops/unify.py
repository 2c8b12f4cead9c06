"""One expression for a value that was seen in several steps and at several lengths; without one there is no loop."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .program import Affine, Carry, Element, Here, Listed, NotRolled, Run, Sizes

Place = tuple[int | None, Sizes]
"""Where something was seen: in which step (None outside of a loop), at which lengths."""
OTHER_LIST = "a list is put together in another way at other lengths"
_WIDEST_BLOCK = 4
"""Values that each step appends to a list."""
_SHORTEST_RUN = 3


def as_number(values: Sequence[int], places: Sequence[Place]) -> Any:
    """A number, or an `Affine`, that gives each of these values in its place.

    Raises:
        NotRolled: there is none.
    """
    if all(value == values[0] for value in values):
        return values[0]
    rows = np.array([[step or 0, *sizes, 1] for step, sizes in places], dtype=np.float64)
    wanted = np.array(values, dtype=np.float64)
    if np.abs(wanted).max() > 2**31:
        raise NotRolled("a whole number changes from step to step, and not by the same amount")
    solution = np.rint(np.linalg.lstsq(rows, wanted, rcond=None)[0]).astype(np.int64)
    if not np.array_equal(rows.astype(np.int64) @ solution, np.array(values, dtype=np.int64)):
        raise NotRolled(
            "a whole number (an index, a size) is not a sum of multiples of the step and of the length with a constant"
        )
    found = Affine(int(solution[0]), tuple(int(v) for v in solution[1:-1]), int(solution[-1]))
    return (_product(values, places) if sum(map(bool, found.sizes)) > 1 and not found.step else None) or found


def _product(values: Sequence[int], places: Sequence[Place]) -> Affine | None:
    """A multiple of the product of two sizes; at a few sizes that can look like a sum of multiples of them."""
    count = len(places[0][1])
    for one, two in itertools.combinations(range(count), 2):
        products = [sizes[one] * sizes[two] for _, sizes in places]
        factor = values[0] // products[0]
        if factor and all(value == factor * product for value, product in zip(values, products, strict=True)):
            return Affine(0, (0,) * count, 0, (factor, one, two))
    return None


def as_one(seen: Sequence[Any], places: Sequence[Place]) -> Any:
    """One expression for what was seen at all places.

    Raises:
        NotRolled: there is none.
    """
    first = seen[0]
    if all(isinstance(value, int) and not isinstance(value, bool) for value in seen):
        return as_number(seen, places)
    if all(isinstance(value, Element) for value in seen):
        if len({(value.loop, value.position) for value in seen}) > 1:
            raise NotRolled("a value comes from different places in different steps")
        return Element(first.loop, first.position, as_number([value.step for value in seen], places))
    if all(isinstance(value, tuple) for value in seen):
        if len({len(value) for value in seen}) == 1 and not _is_of_all_steps(seen):
            return tuple(as_one([value[i] for value in seen], places) for i in range(len(first)))
        return _as_list(seen, places)
    if any(type(value) is not type(first) or not _equal(value, first) for value in seen):
        if all(isinstance(value, float) for value in seen):
            raise NotRolled(
                f"a number is {first:g} in one step or at one length, and another one elsewhere; compute it for all "
                "steps before the loop, as in decay = 0.9 ** torch.arange(x.shape[1]), and take decay[t]"
            )
        raise NotRolled("a value comes from different places in different steps, or at different lengths")
    return first


def _equal(one: Any, two: Any) -> bool:
    return bool(one == two or (isinstance(one, float) and one != one and two != two))


def _is_of_all_steps(seen: Sequence[tuple[Any, ...]]) -> bool:
    """Whether lists of equal length are still runs of a loop, such as an earlier loop's in each step of a later one."""
    return len(seen[0]) > _WIDEST_BLOCK and any(isinstance(piece, Run) for piece in _pieces(seen[0]))


def _as_list(seen: Sequence[tuple[Any, ...]], places: Sequence[Place]) -> Listed:
    split = [_pieces(value) for value in seen]
    if len({len(pieces) for pieces in split}) > 1:
        raise NotRolled(OTHER_LIST)
    pieces: list[Any] = []
    for column in zip(*split, strict=True):
        if all(isinstance(piece, Run) for piece in column):
            if len({(piece.block, piece.by) for piece in column}) > 1:
                raise NotRolled("a list is put together in another order at other lengths")
            first = column[0]
            start = as_number([piece.start for piece in column], places)
            pieces.append(Run(first.block, start, first.by, as_number([piece.count for piece in column], places)))
        elif any(isinstance(piece, Run) for piece in column):
            raise NotRolled(OTHER_LIST)
        else:
            pieces.append(as_one(list(column), places))
    return Listed(tuple(pieces))


def _pieces(items: tuple[Any, ...]) -> list[Any]:
    """The items, with those that successive steps of a loop made as one `Run`."""
    pieces: list[Any] = []
    at = 0
    while at < len(items):
        runs = [_run(items, at, width, by) for width in range(1, _WIDEST_BLOCK + 1) for by in (1, -1)]
        best = max((run for run in runs if run is not None), key=lambda run: run.count * len(run.block), default=None)
        if best is None:
            pieces.append(items[at])
            at += 1
        else:
            pieces.append(best)
            at += best.count * len(best.block)
    return pieces


def _run(items: tuple[Any, ...], at: int, width: int, by: int) -> Run | None:
    block = items[at : at + width]
    if len(block) < width or not all(isinstance(item, Element) for item in block):
        return None
    if len({item.step for item in block}) > 1 or not isinstance(block[0].step, int):
        return None
    count = 1
    while items[at + count * width : at + (count + 1) * width] == tuple(
        Element(item.loop, item.position, item.step + by * count) for item in block
    ):
        count += 1
    if count < _SHORTEST_RUN:
        return None
    return Run(tuple((item.loop, item.position) for item in block), block[0].step, by, count)


def in_body(seen: Sequence[Any], places: Sequence[Place], loop: int) -> Any:
    """One argument at one position of a body, from what it was in each step.

    Args:
        seen: the values, in which those of this loop are `Element`.
        places: of each, its step and the lengths.
        loop: the number of the loop.

    Raises:
        NotRolled: the steps differ.
    """
    tuples = all(isinstance(value, tuple) for value in seen)
    if tuples and len({len(value) for value in seen}) == 1 and not _is_of_all_steps(seen):
        return tuple(in_body([value[i] for value in seen], places, loop) for i in range(len(seen[0])))
    own = [
        value.step - step if isinstance(value, Element) and value.loop == loop and step is not None else None
        for value, (step, _) in zip(seen, places, strict=True)
    ]
    if all(offset is None for offset in own):
        return as_one(seen, places)
    return _of_this_loop(seen, own, places)


def _of_this_loop(seen: Sequence[Any], own: Sequence[int | None], places: Sequence[Place]) -> Here | Carry:
    """A value of this step, or of an earlier step, with what takes its place in the first steps."""
    at, back = next((value.position, -offset) for value, offset in zip(seen, own, strict=True) if offset is not None)
    initial: list[list[Any]] = [[] for _ in range(back)]
    starts: list[list[Place]] = [[] for _ in range(back)]
    for value, offset, (step, sizes) in zip(seen, own, places, strict=True):
        if offset is None and step is not None and step < back:
            initial[step].append(value)
            starts[step].append((None, sizes))
        elif offset != -back or value.position != at:
            raise NotRolled("a value comes from different places in different steps")
    if back == 0:
        return Here(at)
    if any(not group for group in initial) or any(isinstance(v, (int, float)) for group in initial for v in group):
        raise NotRolled("a state is a number before the first step, and a tensor after it")
    return Carry(at, back, tuple(as_one(group, own) for group, own in zip(initial, starts, strict=True)))

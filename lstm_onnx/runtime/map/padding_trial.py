"""Tests whether padding changes the results of sequences, before the first ones are padded.

An input for lengths is no proof that it does not: what follows the LSTM may use the padding, as a mean does.  So does a
maximum over all steps, though hardly any result of a long sequence shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ...errors import RunError
from ...symbolic_dims import names_in
from .padding import own_results, padded_feeds, results_agree
from .sample import Arrays, Sample, SequenceLayout

Run = Callable[[Arrays], Sequence[Any]]
"""The model, from inputs by name to outputs in its order."""

_FEWEST = (1, 2, 3)
"""Numbers of steps of the beginnings that are tried."""
_SAMPLES = 8
"""The number of sequences whose beginnings are tried."""


def padding_changes_nothing(
    padded: SequenceLayout, layout: SequenceLayout, samples: Sequence[Sample], long: Sample, run: Run
) -> bool:
    """Whether shorter sequences give the same results beside a long one as without it.

    Args:
        padded: the layout in which sequences of different sizes run together.
        layout: the one in which they do not.
        samples: the shortest one, and the beginnings of some, are tried.
        long: one of them.
        run: the model.

    Raises:
        RunError, MemoryError: the shortest sample or the long one cannot be run.
    """
    shortest = min(samples, key=lambda sample: sample.length)
    if not _agree(padded, layout, [shortest], long, run):
        return False
    for group in _beginnings(padded, samples, long):
        try:
            if not _agree(padded, layout, group, long, run):
                return False
        except RunError:
            # Too few steps for the model: such a sequence has no results, which its own run reports.
            continue
    return True


def _agree(padded: SequenceLayout, layout: SequenceLayout, group: list[Sample], long: Sample, run: Run) -> bool:
    """Whether samples of equal sizes give the same together as beside a longer one."""
    alone = own_results(layout, run(padded_feeds(layout, group)), group)
    together = [long, *group]
    _, *beside = own_results(padded, run(padded_feeds(padded, together)), together)
    return all(results_agree(one, other) for one, other in zip(alone, beside, strict=True))


def _beginnings(layout: SequenceLayout, samples: Sequence[Sample], long: Sample) -> Iterator[list[Sample]]:
    """Groups of equal sizes: the first steps of some samples, and the same with all signs changed.

    The maximum of a few steps is often one that padding adds; so is the minimum, for the other sign.
    """
    if any(names_in(dim) & layout.padded for info in layout.single.values() for dim in _derived(info.shape)):
        return  # an axis that follows from a padded axis is not cut with it
    (key,) = layout.keys([long])
    alike = [sample for sample, own in zip(samples, layout.keys(samples), strict=True) if own == key]
    some = list(islice(alike, 0, None, -(-len(alike) // _SAMPLES)))
    for steps in _FEWEST:
        if _fewest(layout) <= steps < min(long.sizes[axis] for axis in layout.padded):
            begun = [_beginning(layout, sample, steps) for sample in some if _has(layout, sample, steps)]
            group = [*begun, *map(_negated, begun)][: None if layout.rows is None else layout.rows - 1]
            if group:
                yield group


def _derived(shape: Sequence[int | str | None]) -> Iterator[str]:
    """The dims that are expressions of others, such as ``2*time``."""
    return (dim for dim in shape if isinstance(dim, str) and names_in(dim) != {dim})


def _fewest(layout: SequenceLayout) -> int:
    """The fewest steps that a sequence may have, by the file's limits and the least of a length."""
    limits = layout.model.metadata.axis_limits
    lengths = [count.low for count in layout.model.counts.values() if count.axis in layout.padded]
    return max(1, *lengths, *[limits.get(axis, (1, None))[0] for axis in layout.padded])


def _has(layout: SequenceLayout, sample: Sample, steps: int) -> bool:
    return all(sample.sizes[axis] >= steps for axis in layout.padded)


def _beginning(layout: SequenceLayout, sample: Sample, steps: int) -> Sample:
    """The first steps of a sequence along each axis that is padded, with all of them as its length."""
    arrays = {}
    for name, array in sample.arrays.items():
        if name not in layout.counts:
            shape = layout.single[name].shape
            arrays[name] = array[tuple([slice(steps) if dim in layout.padded else slice(None) for dim in shape])]
    return sample._replace(arrays=arrays, sizes={**sample.sizes, **dict.fromkeys(layout.padded, steps)}, length=steps)


def _negated(sample: Sample) -> Sample:
    return sample._replace(
        arrays={name: np.negative(array) if array.dtype.kind == "f" else array for name, array in sample.arrays.items()}
    )

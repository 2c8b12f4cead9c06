"""Compares sequences with themselves in a batch, by running both: do the sequences of a batch affect each other?"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import InputError, RunError
from .batch_axes import batch_axes, batch_name, state_batch_axis
from .chunk_check import Arrays, Run, mismatch, random_sequence, rounded, taken
from .loaded_model import LoadedModel
from .run import run_model
from .tensor_info import ValueInfo, axis_sizes

Range = tuple[float | None, float | None]
"""The least and the largest number of an input; None where there is none."""
_NONE: Mapping[str, Any] = MappingProxyType({})
_ROWS = 2
_OTHER = 3
"""The size of the first dynamic axis that is not the batch; each further one is larger by one."""
_UNEQUAL = 6
"""The sizes of axes other than the batch if sequences have unequal lengths, one of which is the lengths' axis."""
_LARGER = 5
"""How many larger batches are tried: a module may do something else for every third row."""
_FACTORS = ((1, 1e4), (1e-4, 1))
"""Factors of the floats of the first sequences, and of those beside them."""


def row_difference(
    run: Run,
    feeds: Arrays,
    axes: Mapping[str, int],
    outputs: Mapping[str, int],
    rows: int = 1,
    *,
    longer: bool = False,
    last: bool = True,
) -> str:
    """How the first or the last sequences of a batch differ from themselves when run alone; "" if they do not.

    The first ones do not show it if each depends on those before it, as in an LSTM that runs along the batch.

    Args:
        run: the model, from inputs and states by name to outputs by name.
        feeds: all inputs and states, of a batch.
        axes: the batch axis of those that have one.
        outputs: the same for outputs.
        rows: how many of the sequences are run alone.
        last: whether the last ones are compared, too.
        longer: whether outputs may be longer in the batch than alone, up to those of its longest sequence.

    Raises:
        InputError, RunError: the model does not run on the batch, or on `rows` of its sequences.
    """
    whole = run(dict(feeds))
    perturbed = cache(lambda: run(rounded(feeds)))  # seldom needed
    for some in (range(rows), *([range(-rows, 0)] if last else [])):
        alone = run(taken(feeds, axes, some))
        for name in outputs:
            actual = np.asarray(alone[name])
            part = partial(_part, index=some, axis=outputs[name], like=actual if longer else None)
            in_batch = part(whole[name])
            if actual.shape != in_batch.shape:
                problem = f"its shape is {actual.shape}"
            else:
                problem = mismatch(actual, in_batch, in_batch) and mismatch(actual, in_batch, part(perturbed()[name]))
            if problem:
                which = "one sequence depends" if rows == 1 else f"{rows} sequences depends"
                return f"{name} of {which} on the other sequences in its batch: {problem}"
    return ""


def _part(output: np.ndarray, index: range, axis: int, like: np.ndarray | None) -> np.ndarray:
    """Sequences of an output; if `like` is given, no longer than that is."""
    part = np.take(np.asarray(output), index, axis)
    return part[tuple(map(slice, like.shape))] if like is not None and like.ndim == part.ndim else part


def rows_difference(
    run: Run,
    feeds: Arrays,
    axes: Mapping[str, int],
    outputs: Mapping[str, int],
    rows: int = 1,
    *,
    ranges: Mapping[str, Range] = _NONE,
    lengths: Mapping[str, tuple[int, int]] = _NONE,
    most: int | None = None,
) -> str:
    """The same as `row_difference`, also beside more sequences, and beside such with other numbers and lengths.

    A module may use the largest number of a batch only where it is above a limit, or the shortest of its lengths.

    Args:
        run, feeds, axes, outputs, rows: see there.
        ranges: of inputs; other integers stay as they are.
        lengths: the least and the largest length, of the inputs that hold lengths.
        most: the largest size of the batch.

    Raises:
        InputError, RunError: the model does not run on the batch, or on `rows` of its sequences.
    """
    found = row_difference(run, feeds, axes, outputs, rows)
    for others in _beside(feeds, axes, rows, ranges, lengths, most):
        if found:
            break
        with contextlib.suppress(InputError, RunError):
            # Where lengths differ, an output may be as long as the longest.
            found = row_difference(run, others, axes, outputs, rows, longer=bool(lengths), last=False)
    return found


def _beside(
    feeds: Arrays,
    axes: Mapping[str, int],
    rows: int,
    ranges: Mapping[str, Range],
    lengths: Mapping[str, tuple[int, int]],
    most: int | None,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches that begin with the first sequences of `feeds`, or with the same at another scale or length."""
    kinds = {name: feeds[name].dtype.kind for name in axes if name in feeds}
    floats = [name for name, kind in kinds.items() if kind == "f"]
    # Apart, since loud inputs close a forget gate, which hides loud states.
    inputs, states = ([name for name in floats if (name in ranges) is given] for given in (True, False))
    limits = {name: (low or 0, 1 if high is None else high) for name, (low, high) in ranges.items() if name in kinds}
    counted = {name: ends for name, ends in lengths.items() if name in axes and name in feeds}

    def changed(name: str, own: float | None, others: float | None, *, factor: bool = False) -> np.ndarray:
        array = feeds[name]
        parts = zip(np.split(array, [rows], axes[name]), (own, others), strict=True)
        with np.errstate(over="ignore"):
            made = [
                part
                if by is None
                else np.clip(part * by, *ranges.get(name, (None, None)))
                if factor
                else np.full_like(part, by)
                for part, by in parts
            ]
        return np.concatenate(made, axes[name]).astype(array.dtype)

    for names in (inputs, states):
        for own, others in _FACTORS if names else ():
            yield {**feeds, **{name: changed(name, own, others, factor=True) for name in names}}
    if states:
        yield {**feeds, **{name: changed(name, 0, None) for name in states}}
    # Not others at their least beside random ones, since a mask may have to select something.
    yield {**feeds, **{name: changed(name, None, high) for name, (_, high) in limits.items()}}
    yield {**feeds, **{name: changed(name, high, low) for name, (low, high) in limits.items()}}
    yield {**feeds, **{name: changed(name, low, high) for name, (low, high) in limits.items()}}
    if counted:
        yield {**feeds, **{name: changed(name, -(-ends[1] // 2), ends[1]) for name, ends in counted.items()}}
        yield {**feeds, **{name: changed(name, ends[1], ends[0]) for name, ends in counted.items()}}
    for size in range(2 * rows + 1, 2 * rows + 1 + _LARGER):
        if most is None or size <= most:
            beside = itertools.islice(itertools.cycle(range(rows, 2 * rows)), size - rows)
            yield taken(feeds, axes, [*range(rows), *beside])


def unlike_integers(states: Arrays, axes: Mapping[str, int], rows: int) -> dict[str, np.ndarray]:
    """States of twice as many rows, with other integers in the second half: of few zeros and ones, all may be equal."""
    found = dict(states)
    for name, array in states.items():
        if name in axes and array.dtype.kind != "f":
            own = np.take(array, range(rows), axes[name])
            found[name] = np.concatenate([own, (own == 0).astype(array.dtype)], axes[name])
    return found


def why_rows_mix(model: LoadedModel) -> str:
    """Run a model without metadata on a batch, and on its first sequence alone; returns how they differ, or "".

    If its batch is fixed or unknown, or it fails at such sizes, there is nothing to compare.
    """
    free = {name: info for name, info in model.inputs.items() if name not in model.states}
    batches = {batch_name(model), *(_batch_dim(model.inputs[name]) for name in model.states)}
    known = batch_axes({**model.inputs, **model.outputs}, batches)
    dims = {dim for name in free if name in known for dim in free[name].shape}
    if any(dim not in dims and not isinstance(dim, int) for info in free.values() for dim in info.shape):
        return ""  # the batch may have another name there
    ends = {name: known[name] for name in model.outputs if name in known}
    for other in (_OTHER, None):
        sequence = random_sequence(model, free, {}, _ROWS, other, 1)
        states = unlike_integers(sequence.states, known, 1)
        streaming = model.metadata.streaming_or_default
        if streaming.steps is not None:  # streams are stepped together where they have had the same steps
            states[streaming.steps][...] = streaming.settled * streaming.period
        try:
            return rows_difference(
                partial(run_model, model),
                {**sequence.feeds, **states},
                known,
                ends,
                ranges=dict.fromkeys(free, (None, None)),
            )
        except (InputError, RunError):
            continue
    return ""


def why_lengths_mix(model: LoadedModel, *, longer: bool = True) -> str:
    """Run batches of sequences of unequal lengths, and the first and the last alone; returns how they differ, or "".

    A module may compute with the longest of a batch.  If it fails at such sizes, there is nothing to compare.
    `longer` is whether outputs may have as many steps as the longest of a batch.
    """
    known = batch_axes({**model.inputs, **model.outputs}, {batch_name(model)})
    free = {name: info for name, info in model.inputs.items() if name not in model.states}
    sequence = random_sequence(model, free, {}, _ROWS, _UNEQUAL, 1)
    feeds = {**sequence.feeds, **sequence.states}
    sizes = axis_sizes(model.inputs, feeds)
    ends = {name: known[name] for name in model.outputs if name in known}
    # A maximum over all steps shows padding if there are few steps, of one sign.
    for more, sign in itertools.product((None, 0, 1, 2), (1, -1)):
        tried = {
            name: array * array.dtype.type(sign) if array.dtype.kind == "f" else array for name, array in feeds.items()
        }
        for name, count in model.counts.items():
            fewest, most = max(1, count.low), sizes.get(count.axis, 1)
            shorter = max(fewest, most // 2) if more is None else min(most, fewest + more)
            tried[name] = np.resize(np.array([most, shorter], feeds[name].dtype), feeds[name].shape)
        with contextlib.suppress(InputError, RunError):
            difference = row_difference(partial(run_model, model), tried, known, ends, longer=longer)
            if difference:
                return difference
    return ""


def _batch_dim(info: ValueInfo) -> int | str | None:
    axis = state_batch_axis(info)
    return None if axis is None else info.shape[axis]

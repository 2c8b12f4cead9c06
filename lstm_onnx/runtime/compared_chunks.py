"""Finds out whether a file without metadata can be streamed, by running it in chunks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from ..errors import InputError, RunError
from .chunk_check import CHUNKINGS, TIMES, WholeSequence, difference, longer_difference, sequences
from .loaded_model import LoadedModel
from .run import run_model

Why = TypeVar("Why", str, str | None)
_FRAMES = (8, 64, 512)
"""The steps in each of six frames, for a model that takes no chunks of a few steps, such as samples of audio."""


@dataclass(frozen=True)
class Compared:
    """The result of running a model without metadata in chunks.

    Attributes:
        why: why it cannot be streamed; "" if chunks give the same as the whole sequence.
        inputs: the time axis of each input that was cut.
        outputs: the time axis of each output that is not a state; None if it has none.
        joined: whether an output has all steps of one sequence before those of the next.
    """

    why: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int | None]
    joined: bool = False


def compared_chunks(model: LoadedModel) -> Compared | None:
    """Run a model without metadata on 6 steps and 48, at once and in chunks; None if there is nothing to compare.

    If it has no dynamic axis but the batch, or fails at such sizes (since it takes exactly 512 samples), every call is
    one step.  A model with strides, or with convolutions without padding, fails on chunks of one step.  Then each step
    is a frame of 8, 64 or 512, and chunks that are not multiples of it are also compared, if the model takes them.
    """
    tried: dict[str, Compared] = {}
    for sequence, longer in zip(sequences(model), sequences(model, TIMES), strict=True):
        cut = str(sorted(sequence.axes.items()))
        if cut in tried:
            continue
        try:
            why, joined = _compared(partial(_steps_differ, model), sequence)
            why = why or longer_difference(partial(run_model, model), longer, model.states)
            tried[cut] = Compared(why, sequence.axes, _output_axes(model, sequence), joined)
        except (InputError, RunError):
            continue  # that axis is not time, or not really dynamic
        if not why:
            return tried[cut]
    for frame in () if tried else _FRAMES:
        for sequence in sequences(model, frame):
            try:
                axes = _output_axes(model, sequence, frame)
            except (InputError, RunError):
                continue
            if all(axis is None for axis in axes.values()):
                continue  # each call is one step with its own score
            found, joined = _compared(partial(_frames_differ, model, frame), sequence)
            if found is not None:
                compared = tried.setdefault(str(frame), Compared(found, sequence.axes, axes, joined))
                if not found:
                    return compared
        if tried:
            break
    return next(iter(tried.values()), None)


def joins_sequences(model: LoadedModel) -> bool:
    """Whether an output of a file that streams has all steps of one sequence before those of the next."""
    for sequence in sequences(model):
        with contextlib.suppress(InputError, RunError):
            return _compared(partial(_steps_differ, model), sequence)[1]
    return False


def _output_axes(model: LoadedModel, sequence: WholeSequence, frame: int = 1) -> dict[str, int | None]:
    """The axis of each output, except states, whose size follows the number of steps (InputError, RunError)."""
    fewer, whole = (run_model(model, {**sequence.chunk(0, n), **sequence.states}) for n in (2 * frame, sequence.steps))
    axes: dict[str, int | None] = {}
    for name in whole:
        if name not in model.states.values():
            sizes = enumerate(zip(np.shape(fewer[name]), np.shape(whole[name]), strict=True))
            axes[name] = next((axis for axis, (one, other) in sizes if one != other), None)
    return axes


def _compared(differ: Callable[[WholeSequence], Why], sequence: WholeSequence) -> tuple[Why, bool]:
    """The result of `differ`, and whether an output has all steps of one sequence before those of the next."""
    apart = differ(replace(sequence, rows=1))  # as if of one row, which allows no other order of steps
    why = differ(sequence) if apart else apart
    return why, why == "" != apart


def _steps_differ(model: LoadedModel, sequence: WholeSequence) -> str:
    """`difference` of a sequence in chunks of a few steps."""
    return difference(partial(run_model, model), sequence, model.states, CHUNKINGS)


def _frames_differ(model: LoadedModel, frame: int, sequence: WholeSequence) -> str | None:
    """`difference` of a sequence of frames, in frames and in other chunks; None if the model takes none of them."""
    found: str | None = None
    uneven = (frame + 1, 2 * frame - 1, 3 * frame)
    for chunking in (*(tuple(frame * size for size in sizes) for sizes in CHUNKINGS), uneven):
        try:
            found = difference(partial(run_model, model), sequence, model.states, (chunking,))
        except (InputError, RunError):
            continue  # a stream reports the same error
        if found:
            break
    return found

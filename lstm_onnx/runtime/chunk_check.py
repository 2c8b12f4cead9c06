"""Compares chunks with the whole sequence, by running both.

This is used if a file's metadata does not say whether it can be streamed, and by the exporter for every file with
states.  The tolerance is relative to the model's own rounding: how far its outputs move when its inputs change by about
one rounding error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, RunError
from ..symbolic_dims import size_of
from .batch_axes import state_dim_names
from .loaded_model import LoadedModel
from .tensor_info import ValueInfo
from .tuning import CHUNK_TOLERANCE

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
Run = Callable[[dict[str, "np.ndarray[Any, Any]"]], Mapping[str, Any]]

CHUNKINGS = ((1, 1, 1, 1, 1, 1), (2, 1, 3), (4, 2))
"""How the six steps are divided when a stream is opened."""
TIMES, LONGER = 8, (1, 30, 17)
"""A longer sequence of this many times six steps, and its chunks: an operator may reach further back than six steps."""
_BATCH = 2
_OTHER = 3
"""The size of the first dynamic axis that is neither batch nor time; each further one is larger by one."""
LARGEST_INTEGERS = (7, 2, 1)
"""The largest integers with a time axis, such as tokens; a smaller one is taken where the one before is out of range.

0 may be padding, so two other values are needed to show their order.
"""
_LIKELY_TIME = ("time", "seq", "frame", "step", "length", "sample")


@dataclass(frozen=True)
class WholeSequence:
    """A whole sequence, and how to split it.

    Attributes:
        feeds: every input that is not a state.
        axes: the time axis of those inputs that have one.
        states: every state before the first step.
        lengths: inputs that hold the number of steps of a chunk.
        rows: the size of the batch.
    """

    feeds: Arrays
    axes: Mapping[str, int]
    states: Arrays
    lengths: tuple[str, ...] = ()
    rows: int = 1

    @property
    def steps(self) -> int:
        """Its number of time steps."""
        name, axis = next(iter(self.axes.items()))
        return int(self.feeds[name].shape[axis])

    def chunk(self, start: int, size: int) -> dict[str, np.ndarray]:
        """The inputs of `size` steps from step `start` on."""
        parts = taken(self.feeds, self.axes, range(start, start + size))
        return parts | {name: np.full_like(self.feeds[name], size) for name in self.lengths}


def taken(arrays: Arrays, axes: Mapping[str, int], places: Sequence[int]) -> dict[str, np.ndarray]:
    """Some entries of arrays along their axes, such as steps or rows; the whole array if it has no such axis."""
    return {name: np.take(array, places, axes[name]) if name in axes else array for name, array in arrays.items()}


def cut(arrays: Arrays, axes: Mapping[str, int], sizes: Iterable[int]) -> Iterator[dict[str, np.ndarray]]:
    """Arrays in chunks of these numbers of steps; see `taken`."""
    start = 0
    for size in sizes:
        yield taken(arrays, axes, range(start, start + size))
        start += size


def difference(run: Run, sequence: WholeSequence, pairs: Mapping[str, str], chunkings: Sequence[Sequence[int]]) -> str:
    """How a sequence in chunks, with carried states, differs from the whole sequence; "" if it does not.

    Args:
        run: the model, from inputs and states by name to outputs by name.
        sequence: the sequence.
        pairs: which output feeds which state.
        chunkings: ways to divide it, each a list of chunk sizes.

    Raises:
        InputError, RunError: the model does not run on the whole sequence, or on a chunk.
    """
    whole = run({**sequence.feeds, **sequence.states})
    for name, after in pairs.items():
        if np.shape(whole[after]) != sequence.states[name].shape:
            raise InputError(
                f"{after} has shape {np.shape(whole[after])}, but {name}, which it feeds, has "
                f"{sequence.states[name].shape}"
            )
    perturbed = run({**rounded(sequence.feeds), **rounded(sequence.states)})
    for chunking in chunkings:
        parts = []
        states = dict(sequence.states)
        start = 0
        for size in chunking:
            outputs = run({**sequence.chunk(start, size), **states})
            start += size
            states = {name: np.asarray(outputs[after]) for name, after in pairs.items()}
            parts.append(outputs)
        cut = "+".join(map(str, chunking))
        for name, expected in whole.items():
            problem = _differs(
                [np.asarray(part[name]) for part in parts],
                np.asarray(expected),
                np.asarray(perturbed[name]),
                chunking,
                sequence.rows,
                is_state=name in pairs.values(),
            )
            if problem:
                return f"{sequence.steps} steps in chunks of {cut} give a different {name} than all at once: {problem}"
    return ""


def longer_difference(run: Run, sequence: WholeSequence, pairs: Mapping[str, str]) -> str:
    """`difference` of a longer sequence; also "" if the model takes no such sequence at once, or no such chunks."""
    try:
        return difference(run, sequence, pairs, [LONGER])
    except (InputError, RunError):
        return ""


def _differs(
    parts: Sequence[np.ndarray],
    whole: np.ndarray,
    perturbed: np.ndarray,
    chunking: Sequence[int],
    rows: int,
    *,
    is_state: bool,
) -> str:
    """How the chunks of an output differ from the whole output; "" where they do not."""
    candidates = [parts[-1]] if is_state else _concatenations(parts, whole.shape, chunking, rows)
    candidates = [array for array in candidates if array.shape == whole.shape]
    if not candidates:
        shapes = ", ".join(str(part.shape) for part in parts)
        return f"its shape is {whole.shape}, but the chunks' shapes are {shapes}"
    problems = [mismatch(array, whole, perturbed) for array in candidates]
    return "" if "" in problems else problems[0]


def mismatch(actual: np.ndarray, whole: np.ndarray, perturbed: np.ndarray) -> str:
    """How an array differs from the whole sequence's; "" if not by more than rounding.

    Args:
        actual: of the same shape as `whole`.
        whole: the output of the whole sequence.
        perturbed: the same with inputs changed by about one rounding; see `rounded`.
    """
    if whole.dtype.kind not in "fc":
        # Rounding may change an integer (an argmax of two nearly equal numbers); then the perturbed run changes it too.
        steady = (whole == perturbed) if perturbed.shape == whole.shape else np.ones(whole.shape, bool)
        wrong = int(((actual != whole) & steady).sum())
        return f"{wrong} of {whole.size} numbers differ" if wrong else ""
    exact, near, other = (np.array(array, np.float64) for array in (whole, perturbed, actual))
    finite = np.isfinite(exact)
    if not np.array_equal(finite, np.isfinite(other)):
        return "NaN or infinity is in other places"
    if not finite.any():
        return ""
    epsilon = float(np.finfo(whole.dtype).eps)
    scale = float(np.abs(exact[finite]).max())
    steady = finite & np.isfinite(near) if near.shape == exact.shape else np.zeros(exact.shape, bool)
    moved = float(np.abs(near[steady] - exact[steady]).max(initial=0.0))
    error = float(np.abs(other[finite] - exact[finite]).max())
    if error <= CHUNK_TOLERANCE * max(moved, epsilon * scale):
        return ""
    return f"it is off by {error:.3g}; the largest number is {scale:.3g}"


def _concatenations(
    parts: Sequence[np.ndarray], shape: tuple[int, ...], chunking: Sequence[int], rows: int
) -> list[np.ndarray]:
    """The ways to combine the chunks to `shape`: the last one alone, or all concatenated along time.

    Time may be a factor of an axis, as in a module that merges batch and time, or be divided, as by a stride.
    """
    if {part.shape for part in parts} == {shape} and len(set(chunking)) > 1:
        return [parts[-1]]  # there is no time axis
    ways = [parts[-1]] if parts[-1].shape == shape else []
    total = sum(chunking)
    if {part.ndim for part in parts} != {len(shape)}:
        return ways
    for axis, size in enumerate(shape):
        others = {part.shape[:axis] + part.shape[axis + 1 :] for part in parts}
        folded, rest = divmod(size, total)
        if others != {shape[:axis] + shape[axis + 1 :]} or sum(part.shape[axis] for part in parts) != size:
            continue
        ways.append(np.concatenate(parts, axis))
        fits = all(part.shape[axis] == folded * steps for part, steps in zip(parts, chunking, strict=True))
        if folded == rows > 1 and fits and not rest:
            split = [
                part.reshape(*shape[:axis], folded, steps, *shape[axis + 1 :])
                for part, steps in zip(parts, chunking, strict=True)
            ]
            ways.append(np.concatenate(split, axis + 1).reshape(shape))
    return ways


def rounded(arrays: Arrays) -> dict[str, np.ndarray]:
    """Floats changed by two rounding errors, alternately up and down."""
    moved = {}
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            signs = np.where(np.arange(array.size).reshape(array.shape) % 2, 1.0, -1.0)
            array = (array * (1 + signs * 2 * float(np.finfo(array.dtype).eps))).astype(array.dtype)
        moved[name] = array
    return moved


def sequences(model: LoadedModel, frame: int = 1) -> Iterator[WholeSequence]:
    """Random inputs with six steps, or frames, along each axis that may be time, the most likely one first."""
    free = {name: info for name, info in model.inputs.items() if name not in model.states}
    batches = state_dim_names(model)
    fixed = all(isinstance(dim, int) for name in model.states for dim in model.inputs[name].shape)
    groups = _groups(free, batches)
    order = sorted(groups, key=lambda key: not any(word in str(key).lower() for word in _LIKELY_TIME))
    for key in order:
        dtypes = [free[name].dtype for name in groups[key]]
        has_integers = any(dtype is not None and dtype.kind in "iu" for dtype in dtypes)
        for batch in (1, _BATCH) if fixed else (_BATCH, 1):
            # Other dynamic axes have sizes of their own, or are the batch under another name.
            for other in (_OTHER, None):
                for most in LARGEST_INTEGERS if has_integers else LARGEST_INTEGERS[-1:]:
                    yield random_sequence(model, free, groups[key], batch, other, most, frame)


def _groups(free: Mapping[str, ValueInfo], batches: set[str]) -> dict[Any, dict[str, int]]:
    """Axes that may be time, each with the inputs that have it: by name, or by position where it has none."""
    groups: dict[Any, dict[str, int]] = {}
    for name, info in free.items():
        for axis, dim in enumerate(info.shape):
            if dim is None or (isinstance(dim, str) and dim not in batches):
                groups.setdefault(axis if dim is None else dim, {})[name] = axis
    shared = {key for key, axes in groups.items() if len(axes) > 1}
    by_position: dict[Any, dict[str, int]] = {}
    for key, axes in groups.items():
        if key not in shared and len(free) > 1:  # some tools name the same axis differently in each input
            for name, axis in axes.items():
                by_position.setdefault(axis, {})[name] = axis
    return {**groups, **{("axis", key): axes for key, axes in by_position.items() if len(axes) > 1}}


def random_sequence(
    model: LoadedModel,
    free: Mapping[str, ValueInfo],
    axes: Mapping[str, int],
    batch: int,
    other: int | None,
    most: int,
    frame: int = 1,
) -> WholeSequence:
    """Random inputs and states.

    Args:
        model: the model.
        free: its inputs that are no states.
        axes: the time axis of those that have one.
        batch: the size of the batch.
        other: the size of the first other dynamic axis, each further one of which is larger; None if all are the batch.
        most: the largest integer along a time axis.
        frame: so many entries of a time axis are one step.
    """
    rng = np.random.default_rng(0)
    steps = frame * sum(CHUNKINGS[0])
    sizes = dict.fromkeys(state_dim_names(model), batch)
    for info in free.values():
        for dim in info.shape:
            if isinstance(dim, str):
                sizes.setdefault(dim, batch if other is None else other + len(sizes))

    def draw(info: ValueInfo, shape: Sequence[int]) -> np.ndarray:
        dtype = np.dtype(info.dtype or np.float32)
        if dtype.kind == "f":
            return np.asarray(rng.standard_normal(shape), dtype)
        return np.asarray(rng.integers(0, most + 1 if info.name in axes and dtype.kind != "b" else 2, shape), dtype)

    def shape_of(info: ValueInfo) -> list[int]:
        return [
            steps if axes.get(info.name) == axis else _size(dim, sizes, batch) for axis, dim in enumerate(info.shape)
        ]

    feeds = {name: draw(info, shape_of(info)) for name, info in free.items()}
    if model.spec is not None:
        feeds.pop("lengths", None)
    states = {}
    for name in model.states:
        states[name] = draw(model.inputs[name], [_size(dim, sizes, batch) for dim in model.inputs[name].shape])
        if states[name].dtype.kind == "f":
            states[name] = np.asarray(np.tanh(states[name]), states[name].dtype)
    return WholeSequence(feeds, axes, states, rows=batch)


def _size(dim: int | str | None, sizes: Mapping[str, int], batch: int) -> int:
    return (size_of(dim, sizes) if isinstance(dim, str) else dim) or batch

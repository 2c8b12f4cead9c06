"""Do chunks give what the whole sequence gives, and one row what it gives in a batch?  Found by running both.

It is used where a file's metadata does not say whether it may be streamed, and by the exporter on every
file that has states.  The yardstick is the model's own rounding: how far its outputs move when its inputs
do by about one rounding error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, RunError
from .symbolic_dims import names_in, size_of
from .tensor_info import ValueInfo

if TYPE_CHECKING:
    from .model import Model

Arrays = Mapping[str, "np.ndarray[Any, Any]"]
Run = Callable[[dict[str, "np.ndarray[Any, Any]"]], Mapping[str, Any]]

_ROUNDINGS = 64.0
"""How many times as far as by rounding alone chunks and the whole may lie apart.

Measured over 400 drawn models (see tests/runtime/test_chunk_check.py): at most 9; steps that meet outside
of the states give 1e3 and more.
"""
_CHUNKINGS = ((1, 1, 1, 1, 1, 1), (2, 1, 3), (4, 2))
"""Cuts of the six steps that are tried when a stream is opened."""
_BATCH = 2
_OTHER = 3
"""The size of open axes that are neither batch nor time, and one more for each further one."""
_LIKELY_TIME = ("time", "seq", "frame", "step", "length", "sample")


@dataclass(frozen=True)
class WholeSequence:
    """A whole sequence, ready to be cut.

    Attributes:
        feeds: every input that is not a state.
        axes: the time axis of those inputs that have one.
        states: what every state starts from.
        lengths: inputs that say how many steps a chunk has.
    """

    feeds: Arrays
    axes: Mapping[str, int]
    states: Arrays
    lengths: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """How many there are."""
        name, axis = next(iter(self.axes.items()))
        return int(self.feeds[name].shape[axis])

    def chunk(self, start: int, size: int) -> dict[str, np.ndarray]:
        """The inputs from step `start` on."""
        parts = {
            name: np.take(array, range(start, start + size), axis=self.axes[name]) if name in self.axes else array
            for name, array in self.feeds.items()
        }
        return parts | {name: np.full_like(self.feeds[name], size) for name in self.lengths}


def difference(run: Run, sequence: WholeSequence, pairs: Mapping[str, str], chunkings: Sequence[Sequence[int]]) -> str:
    """Where a sequence run in chunks, with the states carried, differs from the whole; "" where it does not.

    Args:
        run: inputs and states by name to outputs by name.
        sequence: what is run.
        pairs: which output feeds which state.
        chunkings: sizes of chunks, each of them all of the sequence.

    Raises:
        InputError, RunError: the model does not run on the whole, or on a chunk.
    """
    whole = run({**sequence.feeds, **sequence.states})
    for name, after in pairs.items():
        if np.shape(whole[after]) != sequence.states[name].shape:
            raise InputError(f"{after} has shape {np.shape(whole[after])}, and {name} that it feeds another")
    shaken = run({**_shaken(sequence.feeds), **_shaken(sequence.states)})
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
        for name, wanted in whole.items():
            problem = _differs(
                [np.asarray(part[name]) for part in parts],
                np.asarray(wanted),
                np.asarray(shaken[name]),
                chunking,
                is_state=name in pairs.values(),
            )
            if problem:
                return f"{sequence.steps} steps in chunks of {cut} give another {name} than in one piece: {problem}"
    return ""


def row_difference(run: Run, feeds: Arrays, axes: Mapping[str, int], outputs: Mapping[str, int]) -> str:
    """Where the first sequence of a batch, alone, differs from itself in the batch; "" where it does not.

    Args:
        run: inputs and states by name to outputs by name.
        feeds: all of them, of a batch.
        axes: the batch axis of those that have one.
        outputs: the same of outputs.

    Raises:
        InputError, RunError: the model does not run on the batch, or on one sequence.
    """
    whole, shaken = run(dict(feeds)), run(_shaken(feeds))
    alone = run({name: np.take(array, [0], axes[name]) if name in axes else array for name, array in feeds.items()})
    for name, axis in outputs.items():
        one, near = (np.take(np.asarray(found[name]), [0], axis) for found in (whole, shaken))
        given = np.asarray(alone[name])
        problem = _other_numbers(given, one, near) if given.shape == one.shape else f"its shape is {given.shape}"
        if problem:
            return f"{name} of one sequence is another alone than beside others: {problem}"
    return ""


def _differs(
    parts: Sequence[np.ndarray], whole: np.ndarray, shaken: np.ndarray, chunking: Sequence[int], *, is_state: bool
) -> str:
    """How the parts of an output differ from the whole of it; "" where they do not."""
    given = [parts[-1]] if is_state else _joined(parts, whole.shape, chunking)
    given = [array for array in given if array.shape == whole.shape]
    if not given:
        shapes = ", ".join(str(part.shape) for part in parts)
        return f"its shape is {whole.shape}, and those of the chunks are {shapes}"
    problems = [_other_numbers(array, whole, shaken) for array in given]
    return "" if "" in problems else problems[0]


def _other_numbers(given: np.ndarray, whole: np.ndarray, shaken: np.ndarray) -> str:
    if whole.dtype.kind not in "fc":
        # An integer may tip over by rounding (an argmax of two that are nearly equal), where the shaken run does.
        steady = (whole == shaken) if shaken.shape == whole.shape else np.ones(whole.shape, bool)
        wrong = int(((given != whole) & steady).sum())
        return f"{wrong} of {whole.size} numbers differ" if wrong else ""
    exact, near, other = (np.array(array, np.float64) for array in (whole, shaken, given))
    finite = np.isfinite(exact)
    if not np.array_equal(finite, np.isfinite(other)):
        return "other numbers are finite"
    if not finite.any():
        return ""
    epsilon = float(np.finfo(whole.dtype).eps)
    scale = float(np.abs(exact[finite]).max())
    steady = finite & np.isfinite(near) if near.shape == exact.shape else np.zeros(exact.shape, bool)
    moved = float(np.abs(near[steady] - exact[steady]).max(initial=0.0))
    error = float(np.abs(other[finite] - exact[finite]).max())
    if error <= _ROUNDINGS * max(moved, epsilon * scale):
        return ""
    return f"it is off by {error:.3g}, where the largest number is {scale:.3g}"


def _joined(parts: Sequence[np.ndarray], shape: tuple[int, ...], chunking: Sequence[int]) -> list[np.ndarray]:
    """The ways in which the parts can be put together to `shape`: the last alone, or end to end along time.

    Time may be one factor of an axis, as where a module makes one axis of batch and time.
    """
    if {part.shape for part in parts} == {shape} and len(set(chunking)) > 1:
        return [parts[-1]]  # it has no time axis
    ways = [parts[-1]] if parts[-1].shape == shape else []
    total = sum(chunking)
    if {part.ndim for part in parts} != {len(shape)}:
        return ways
    for axis, size in enumerate(shape):
        others = {part.shape[:axis] + part.shape[axis + 1 :] for part in parts}
        folded, rest = divmod(size, total)
        fits = all(part.shape[axis] == folded * steps for part, steps in zip(parts, chunking, strict=True))
        if others != {shape[:axis] + shape[axis + 1 :]} or rest or not fits:
            continue
        ways.append(np.concatenate(parts, axis))
        if folded > 1:
            split = [
                part.reshape(*shape[:axis], folded, steps, *shape[axis + 1 :])
                for part, steps in zip(parts, chunking, strict=True)
            ]
            ways.append(np.concatenate(split, axis + 1).reshape(shape))
    return ways


def _shaken(arrays: Arrays) -> dict[str, np.ndarray]:
    """Floats moved by two roundings, one up and the next down."""
    moved = {}
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            signs = np.where(np.arange(array.size).reshape(array.shape) % 2, 1.0, -1.0)
            array = (array * (1 + signs * 2 * float(np.finfo(array.dtype).eps))).astype(array.dtype)
        moved[name] = array
    return moved


def why_not_streamable(model: Model) -> str:
    """Try a model of which nothing is known on six steps, whole and in chunks; why it cannot be streamed, or "".

    Where it has no open axis but the batch, or runs at no such size (as one that takes 512 samples and
    nothing else), a call is a step whatever its size, and there is nothing to compare.
    """
    reasons: dict[str, str] = {}
    for sequence in _sequences(model):
        cut = str(sorted(sequence.axes.items()))
        if cut in reasons:
            continue
        try:
            reasons[cut] = difference(model.run, sequence, model.states, _CHUNKINGS)
        except (InputError, RunError):
            continue  # that axis is not time, or not open in truth
        if not reasons[cut]:
            return ""
    return next(iter(reasons.values()), "")


def _sequences(model: Model) -> Iterator[WholeSequence]:
    """Random inputs with six steps along each of the axes that may be time, the likeliest first."""
    free = {name: info for name, info in model.inputs.items() if name not in model.states}
    held = {dim for name in model.states for dim in model.inputs[name].shape if isinstance(dim, str)}
    batches = {name for dim in held for name in names_in(dim)}
    fixed = all(isinstance(dim, int) for name in model.states for dim in model.inputs[name].shape)
    groups = _groups(free, batches)
    order = sorted(groups, key=lambda key: not any(word in str(key).lower() for word in _LIKELY_TIME))
    for key in order:
        for batch in (1, _BATCH) if fixed else (_BATCH, 1):
            # Other open axes have sizes of their own, or are the batch under another name.
            for other in (_OTHER, None):
                yield _drawn(model, free, groups[key], batch, other)


def _groups(free: Mapping[str, ValueInfo], batches: set[str]) -> dict[Any, dict[str, int]]:
    """Axes that may be time, each in all of the inputs that have it: by name, or where it has none by its place."""
    groups: dict[Any, dict[str, int]] = {}
    for name, info in free.items():
        for axis, dim in enumerate(info.shape):
            if dim is None or (isinstance(dim, str) and dim not in batches):
                groups.setdefault(axis if dim is None else dim, {})[name] = axis
    shared = {key for key, axes in groups.items() if len(axes) > 1}
    by_place: dict[Any, dict[str, int]] = {}
    for key, axes in groups.items():
        if key not in shared and len(free) > 1:  # others give the same axis a name in each input
            for name, axis in axes.items():
                by_place.setdefault(axis, {})[name] = axis
    return {**groups, **{("axis", key): axes for key, axes in by_place.items() if len(axes) > 1}}


def _drawn(
    model: Model, free: Mapping[str, ValueInfo], axes: Mapping[str, int], batch: int, other: int | None
) -> WholeSequence:
    rng = np.random.default_rng(0)
    steps = sum(_CHUNKINGS[0])
    held = {dim for name in model.states for dim in model.inputs[name].shape if isinstance(dim, str)}
    sizes = {name: batch for dim in held for name in names_in(dim)}
    for info in free.values():
        for dim in info.shape:
            if isinstance(dim, str):
                sizes.setdefault(dim, batch if other is None else other + len(sizes))
    known: dict[str, int | None] = dict(sizes)

    def draw(info: ValueInfo, shape: Sequence[int]) -> np.ndarray:
        dtype = np.dtype(info.dtype or np.float32)
        if dtype.kind == "f":
            return np.asarray(rng.standard_normal(shape), dtype)
        return np.asarray(rng.integers(0, 2, shape), dtype)

    def shape_of(info: ValueInfo) -> list[int]:
        return [
            steps if axes.get(info.name) == axis else _size(dim, known, batch) for axis, dim in enumerate(info.shape)
        ]

    feeds = {name: draw(info, shape_of(info)) for name, info in free.items()}
    lengths = "lengths" in feeds and model.spec is not None
    if lengths:
        del feeds["lengths"]
    states = {}
    for name in model.states:
        info = model.inputs[name]
        states[name] = draw(info, [_size(dim, known, batch) for dim in info.shape])
        if states[name].dtype.kind == "f":
            states[name] = np.asarray(np.tanh(states[name]), states[name].dtype)
    return WholeSequence(feeds, axes, states)


def _size(dim: int | str | None, sizes: Mapping[str, int | None], batch: int) -> int:
    if isinstance(dim, int):
        return dim
    if dim is None:
        return batch
    return size_of(dim, {name: size for name, size in sizes.items() if size is not None}) or batch

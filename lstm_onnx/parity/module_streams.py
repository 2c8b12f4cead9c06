"""A module's streams: every cut of a sequence must give what PyTorch gives for the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..input_spec import InputSpec, draw, sizes_of
from ..runtime import Model
from ..runtime.symbolic_dims import names_in
from .cases import compositions
from .expected import Arrays, Call, Expected
from .module_run import shape_of

_BATCHES, _STEPS = (1, 3), 6
"""Of the sequences that are cut in every way."""


@dataclass(frozen=True)
class Cut:
    """How the inputs and outputs of a file go along time.

    Attributes:
        time: the names of the time axes.
        axes: the time axis of every input and output that has one; of a single sequence also where time is a
            factor of it, as in ``batch*time``.
        folded: whether it is so in some output, in which several sequences cannot be told apart.
        lengths: inputs that are lengths of sequences.
        batch_axes: the batch axis of every input and output that has one.
    """

    time: frozenset[str]
    axes: Mapping[str, int]
    folded: bool
    lengths: tuple[str, ...]
    batch_axes: Mapping[str, int]

    @classmethod
    def of(cls, model: Model, specs: Sequence[InputSpec], batch_axes: Mapping[str, int]) -> Cut:
        """From the names of the axes."""
        time = frozenset(model.metadata.time_axes)
        carried = {*model.states, *model.states.values()}
        axes: dict[str, int] = {}
        folded = False
        for name, info in {**model.inputs, **model.outputs}.items():
            for axis, dim in enumerate(info.shape):
                if name not in carried and isinstance(dim, str) and names_in(dim) & time:
                    axes[name] = axis
                    folded = folded or dim not in time
        lengths = tuple(spec.name for spec in specs if spec.high in time)
        return cls(time, axes, folded, lengths, batch_axes)


def stream_feeds(
    model: Model, specs: Sequence[InputSpec], cut: Cut, sizes: tuple[int, int], rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and states of a whole sequence of `sizes` (batch, steps), whose sequences all go to its end."""
    batch, steps = sizes
    named = {**sizes_of(specs, batch, steps), **dict.fromkeys(cut.time, steps)}
    inputs = draw(specs, named, rng)
    for name in cut.lengths:
        inputs[name] = np.full_like(inputs[name], steps)
    states = {}
    for name in model.states:
        info = model.inputs[name]
        states[name] = np.tanh(rng.standard_normal(shape_of(info, named))).astype(info.dtype or np.float32)
    return {name: array for name, array in inputs.items() if name not in states}, states


def stream_cases(
    model: Model,
    specs: Sequence[InputSpec],
    batch_axes: Mapping[str, int],
    least: int,
    seed: int,
    expect: Callable[[str, Arrays, Arrays], Expected | None],
) -> Iterator[Expected]:
    """What streams must give: the whole sequence, cut in every way.

    Args:
        model: a file whose metadata names its time axes.
        specs: its inputs.
        batch_axes: the batch axis of the inputs and outputs that have one.
        least: the fewest steps that a chunk may have.
        seed: of the numbers.
        expect: what PyTorch gives for a label, inputs and states; None where the module does not run on them.
    """
    cut = Cut.of(model, specs, batch_axes)
    rng = np.random.default_rng(seed)
    limits = [model.metadata.axis_limits.get(name, (1, None)) for name in cut.time]
    least = max([least, *(low for low, _ in limits)])
    most = min((high for _, high in limits if high is not None), default=_STEPS * least)
    steps = min(_STEPS, most // least)
    if steps < 2:
        return
    for batch in _BATCHES[:1] if cut.folded else _BATCHES:
        for given in (True, False):
            inputs, states = stream_feeds(model, specs, cut, (batch, steps * least), rng)
            started = states if given else {}
            label = f"batch {batch}, {steps * least} steps, {'states' if given else 'no states'}"
            whole = expect(label, inputs, started)
            if whole is None:
                continue
            if cut.lengths:
                for chunking in dict.fromkeys([(1,) * steps, (steps - 1, 1), (1, steps - 1)]):
                    chunks = tuple(size * least for size in chunking)
                    calls = _calls(whole.calls[0], cut, chunks, model)
                    named = f"{label}, chunks of {'+'.join(map(str, chunks))}"
                    yield replace(whole, label=named, kind="chunks", calls=calls)
                continue
            ways = tuple(tuple(size * least for size in chunking) for chunking in compositions(steps))
            yield replace(whole, label=f"{label}, every chunking", kind="chunks", chunkings=ways, time_axes=cut.axes)
            names = {*whole.calls[0].feeds, *whole.calls[0].reference}
            if batch > 1 and not given and least == 1 and names <= batch_axes.keys():
                yield replace(whole, label=f"{label}, in a pool", kind="pool", time_axes=cut.axes)


def _calls(whole: Call, cut: Cut, chunking: Sequence[int], model: Model) -> tuple[Call, ...]:
    """The whole as calls in turn; what has no time axis is compared after the last."""
    calls = []
    start = 0
    for index, size in enumerate(chunking):
        last = index == len(chunking) - 1
        steps = range(start, start + size)
        start += size
        feeds = {
            name: np.full_like(array, size) if name in cut.lengths else _part(array, name, cut, steps)
            for name, array in whole.feeds.items()
            if not (name in model.states and index)
        }
        own, reference = (
            {name: _part(array, name, cut, steps) for name, array in arrays.items() if last or name in cut.axes}
            for arrays in (whole.own, whole.reference)
        )
        calls.append(Call(feeds, own, reference))
    return tuple(calls)


def _part(array: np.ndarray, name: str, cut: Cut, steps: range) -> np.ndarray:
    """Some steps of an input or an output; all of what has no time axis."""
    return np.take(array, steps, axis=cut.axes[name]) if name in cut.axes else array

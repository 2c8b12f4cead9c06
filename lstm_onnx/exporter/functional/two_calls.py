"""Tests whether states that a caller carries are the same after two calls as after one call for all their steps."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping

import torch

from ...errors import ExportError
from ...symbolic_dims import names_in, size_of
from .functional_module import FunctionalModule, Tensors
from .resized_example import resize_example

_STEPS = 2
"""Numbers of steps: the fewer there are, the more the last value of a state depends on the first."""
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5


def held_in_two_calls(
    functional: FunctionalModule, pairs: Mapping[str, str], doubtful: Collection[str] = ()
) -> set[str]:
    """The inputs of `pairs` whose outputs, carried from call to call, end up as in one call for all steps.

    Each axis that the states do not have is tried as time.

    Args:
        functional: the module.
        pairs: each input, and the output that may be its next value.
        doubtful: inputs that are left out if the second call ends up the same without the first one's result: they
            are not states, but values passed along, such as the features of a speaker.
    """
    axes = functional.arguments.axes
    pairs = {source: target for source, target in pairs.items() if source in axes and target in functional.outputs}
    own = {name for source in pairs for dim in axes[source].values() for name in names_in(dim)}
    held: set[str] = set()
    for time in sorted({name for dims in axes.values() for dim in dims.values() for name in names_in(dim)} - own):
        # A module that fails in such calls carries nothing from call to call.
        with contextlib.suppress(ExportError):
            for inputs, states in _examples(functional, time):
                found = _held(functional, pairs, time, inputs, states)
                if found.intersection(doubtful):
                    carried = {source: target for source, target in pairs.items() if source not in doubtful}
                    found -= _held(functional, carried, time, inputs, states, pairs).intersection(doubtful)
                held |= found
                break
    return held


def _examples(functional: FunctionalModule, time: str) -> Iterator[tuple[Tensors, Tensors]]:
    """Inputs and attribute states with a few steps, and otherwise with as many as in the example."""
    sizes = functional.arguments.sizes
    for steps in dict.fromkeys([_STEPS, sizes[time]]):
        with contextlib.suppress(ExportError):
            if steps > 1:
                yield resize_example(functional, {**sizes, time: steps})


def _held(
    functional: FunctionalModule,
    pairs: Mapping[str, str],
    time: str,
    inputs: Tensors,
    states: Tensors,
    compared: Mapping[str, str] | None = None,
) -> set[str]:
    """The inputs of `compared`, by default of `pairs`, whose outputs are the same if those of `pairs` are carried."""
    whole, _ = functional.run(inputs, states)
    axes = functional.arguments.axes
    places = {name: (axis, dim) for name, dims in axes.items() for axis, dim in dims.items() if time in names_in(dim)}
    sizes = functional.arguments.sizes
    if any(size_of(dim, {**sizes, time: 0}) != 0 for _, dim in places.values()):
        return set()  # such as for time + 4: the parts of two calls overlap
    firsts = {name: size_of(dim, {**sizes, time: 1}) or 0 for name, (_, dim) in places.items()}
    carried, outputs = dict(inputs), whole
    for first in (True, False):
        part = {}
        for name, (axis, _) in places.items():
            start, end = (0, firsts[name]) if first else (firsts[name], inputs[name].shape[axis])
            part[name] = carried[name].narrow(axis, start, end - start)
        outputs, after = functional.run({**carried, **part}, states)
        states = {name: after[result] for name, result in functional.states.items()}
        carried |= {source: outputs[target] for source, target in pairs.items()}
    ends = pairs if compared is None else compared
    return {source for source, target in ends.items() if _close(outputs[target], whole[target])}


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=_RELATIVE, atol=_ABSOLUTE)

"""Compares a file's metadata on states with the module: their initial values, and the outputs that feed them.

Cases pass states, or start both from the file's values, so their numbers show no mistake in the metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from ...exporter.functional.attribute_states import AttributeState, initial_tensors
from ...metadata import Metadata
from ..expected import Expected
from ..results import CaseResult
from .run import ModuleRun
from .subject import Subject

STATES = "initial states, and the outputs that feed states"
"""The label of the case on these metadata."""
_Place = tuple[str, int]
"""A recurrent module's path, and 0 for h or 1 for c."""


def state_problems(subject: Subject, cases: Sequence[Expected]) -> Iterator[CaseResult]:
    """A failure for each mistake in the metadata; `cases` are those of the subject."""
    metadata = subject.metadata
    problems = list(initial_problems(metadata, subject.own.attribute_states))
    feeds = next((one.calls[0].feeds for one in cases if one.kind == "whole"), {})
    if not metadata.states.keys().isdisjoint(feeds):
        problems += pair_problems(subject.models.float64, feeds, metadata.states)
    yield from (CaseResult(STATES, error=problem, kind="described") for problem in problems)


def initial_problems(metadata: Metadata, states: tuple[AttributeState, ...]) -> Iterator[str]:
    """The states whose initial values in the module and in the file differ.

    Args:
        metadata: the file's.
        states: those that the module keeps in attributes.
    """
    starts = initial_tensors(states)
    for state in states:
        for name in state.input_names:
            if name not in metadata.states:
                continue
            own = _array(starts[name])
            given = metadata.initial.get(name, np.zeros((), own.dtype))
            if not _equal(given, own):
                yield (
                    f"{state.where} of the module starts as {_shown(own)}, and the file's {name} as {_shown(given)}; "
                    "if a call has changed it since the export, pass the module as it was then"
                )


def _equal(given: np.ndarray, own: np.ndarray) -> bool:
    """Whether a file's initial value, which may be one for a whole batch, equals the module's, up to a cast."""
    try:
        given, own = np.broadcast_arrays(given, own)
    except ValueError:
        return False
    if given.dtype.kind != "f" or own.dtype.kind != "f":
        return np.array_equal(given, own)
    coarser = min(given.dtype, own.dtype, key=lambda dtype: dtype.itemsize)
    return np.array_equal(given.astype(coarser), own.astype(coarser), equal_nan=True)


def _shown(array: np.ndarray) -> str:
    numbers = array.reshape(-1)
    if numbers.size == 0 or (numbers == numbers[0]).all():
        return f"{numbers[0]:.6g}" if numbers.size else "nothing"
    return f"{', '.join(f'{number:.6g}' for number in numbers[:3])}{', ...' if numbers.size > 3 else ''}"


def pair_problems(run: ModuleRun, feeds: Mapping[str, np.ndarray], states: Mapping[str, str]) -> Iterator[str]:
    """The states that the caller passes and whose next value is another output than the metadata say.

    Only where one is exactly what a recurrent module starts from, and the outputs exactly what such modules end with.

    Args:
        run: the module.
        feeds: inputs and states that it runs on.
        states: the pairs of the file.
    """
    outputs = run(feeds)
    starts = {name: _places(run, feeds[name], "initial") for name in states if name in run.arguments and name in feeds}
    ends = {name: _places(run, array, "final") for name, array in outputs.items()}
    for name, places in starts.items():
        own = ends.get(states[name], set())
        others = [output for output, found in ends.items() if found & places]
        if places and own and not own & places and others:
            yield (
                f"the metadata feed the state {name} from {states[name]}, and the next value of what {name} starts, "
                f"{' and '.join(map(_named, sorted(places)))}, is {others[0]}"
            )


def _named(place: _Place) -> str:
    return f"{'hc'[place[1]]} of {place[0] or 'the module'}"


def _places(run: ModuleRun, array: np.ndarray, end: str) -> set[_Place]:
    """The states of recurrent modules that an array is, but for axes of one entry."""
    found = set()
    for path, site in run.sites.items():
        calls = site.calls[:1] if end == "initial" else site.calls[-1:]
        for index, state in ((index, each) for call in calls for index, each in enumerate(getattr(call, end) or ())):
            if np.array_equal(_array(state).squeeze(), np.asarray(array).squeeze()):
                found.add((path, index))
    return found


def _array(tensor: torch.Tensor) -> np.ndarray:
    array = tensor.detach().cpu()
    return np.asarray((array.float() if array.dtype == torch.bfloat16 else array).numpy())

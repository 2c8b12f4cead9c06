"""The sizes of each axis at which a file is right: the requested ones, narrowed by trial runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...metadata import Metadata
from ...symbolic_dims import ANY_SIZE, clamped
from ..call.arguments import least_sizes
from ..functional.functional_module import FunctionalModule
from ..tracing.size_decisions import SizeFacts, axis_names, least_steps
from .shape_trial import ShapeTrial, Sizes

_MOST_BOUNDARIES = 12
"""How many sizes near which the code may branch differently are kept at most, for later tests of the file."""


@dataclass
class Limits:
    """The sizes of each axis at which a file is right, while they are being found.

    Attributes:
        least: of each axis.
        largest: of each axis; None where there is none.
        boundaries: sizes of an axis at which the code may begin to branch differently.
        reasons: for limits that were not requested, by axis.
        guarded: calls of recurrent modules, as ``(path, number)``, that may get 0 steps despite the limits.
    """

    least: dict[str, int]
    largest: dict[str, int | None]
    boundaries: dict[str, tuple[int, ...]] = field(default_factory=dict)
    reasons: dict[str, list[str]] = field(default_factory=dict)
    guarded: set[tuple[str, int]] = field(default_factory=set)

    def within(self, name: str, size: int) -> int:
        """`size`, or the nearest size within the limits."""
        return clamped(size, (self.least[name], self.largest[name]))

    def all_within(self, sizes: Mapping[str, int]) -> Sizes:
        """Each size, or the nearest one within the limits."""
        return {name: self.within(name, size) for name, size in sizes.items()}

    def raise_least(self, name: str, size: int, reason: str) -> None:
        """Allow no smaller size of an axis."""
        if size > self.least[name]:
            self.least[name] = size
            self.reasons.setdefault(name, []).append(f"{name} is {size} or more in the file: {reason}")

    def lower_largest(self, name: str, size: int, reason: str) -> None:
        """Allow no larger size of an axis."""
        largest = self.largest[name]
        if largest is None or size < largest:
            self.largest[name] = size
            self.reasons.setdefault(name, []).append(f"{name} is {size} or less in the file: {reason}")

    def add_boundary(self, name: str, size: int) -> None:
        """Keep a size near which the code may branch differently, unless there are many already."""
        stored = self.boundaries.get(name, ())
        if len(stored) < _MOST_BOUNDARIES:
            self.boundaries[name] = tuple(sorted({*stored, size}))

    @property
    def axis_limits(self) -> dict[str, tuple[int, int | None]]:
        """As the metadata holds them."""
        return {
            name: (least, self.largest[name])
            for name, least in self.least.items()
            if least > 1 or self.largest[name] is not None
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """A note for each limit that was not requested."""
        return tuple(reason for reasons in self.reasons.values() for reason in reasons)


def requested_limits(functional: FunctionalModule, metadata: Metadata, facts: SizeFacts) -> Limits:
    """The limits of `dynamic_shapes`, and those that leave every recurrent module at least one step.

    If no limit does so for a call, the call is in `guarded`.
    """
    axes = axis_names(metadata)
    names = dict.fromkeys(axes.values())
    limits = Limits(dict.fromkeys(names, 1), dict.fromkeys(names))
    for (key, axis), name in axes.items():
        label = functional.arguments.axes.get(key, {}).get(axis, "")
        least, largest = functional.arguments.limits.get(label, ANY_SIZE)
        limits.least[name] = max(limits.least[name], least)
        if largest is not None:
            limits.largest[name] = min(largest, limits.largest[name] or largest)
    dims = (dim for spec in metadata.inputs for dim in spec.shape if isinstance(dim, str))
    for name, size in least_sizes(dims).items():
        if name in limits.least:
            limits.least[name] = max(limits.least[name], size)
    sizes = {(key, axis): functional.arguments.tensors[key].shape[axis] for key, axis in axes}
    for recurrent in facts.recurrent:
        found = least_steps(recurrent, sizes, {axis: limits.least[name] for axis, name in axes.items()})
        if found is not None and found.axis is not None:
            reason = f"{recurrent.path or 'the module'} would get 0 {recurrent.what}, and needs at least one"
            limits.raise_least(axes[found.axis], found.least, reason)
        elif found is not None:
            limits.guarded.add((recurrent.path, recurrent.call))
    return limits


def refusal_notes(trial: ShapeTrial, limits: Limits) -> tuple[str, ...]:
    """A note for each line of the module that refuses sizes, such as odd ones, which the file takes within its limits.

    Args:
        trial: after all its runs.
        limits: the limits that it found.
    """
    notes: dict[str | None, str] = {}
    for sizes, line, message in trial.refusals():
        if limits.all_within(sizes) == sizes:
            at = ", ".join(f"{name} {size}" for name, size in sizes.items())
            notes.setdefault(line, f"the file also takes sizes that the module refuses: at {at} {message}")
    return tuple(notes.values())

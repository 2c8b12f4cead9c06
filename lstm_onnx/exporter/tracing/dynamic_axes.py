"""Which axes of a module's inputs are dynamic, when nobody says: the module itself is asked.

It runs with one axis longer, or several of one size together; what runs is dynamic.  Which of them is batch
and which time shows in what reaches its recurrent modules.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from ...errors import ExportError
from ...symbolic_dims import names_in
from .arguments import Arguments, resize_tensor
from .call_structure import by_argument
from .functional import FunctionalModule, resize_example

Axis = tuple[str, int]
"""An input's name and one of its axes."""
Group = tuple[Axis, ...]
"""Axes that always have one size."""
_MOST_RUNS = 300
"""Runs of the module; each input has few axes, and few inputs share a size."""
_LARGEST_GROUP = 8
_SMALL = 16
"""Axes up to this size are tried at every size up to its double."""
_FACTORS = 20
_BATCH, _TIME = "batch", "time"


def find_dynamic_axes(functional: FunctionalModule) -> Arguments:
    """The arguments of a functional module, with its dynamic axes found and named ``batch``, ``time``, or ``x_2``.

    Args:
        functional: the module; what `axes` its arguments have is not looked at.

    Raises:
        ExportError: no axis can be of another size.
    """
    search = _Search(functional)
    search.enlarge_ones()
    groups = [group for axes in search.by_size() for group in search.separate(axes)]
    tied = search.tied_time(groups) if not any(search.role(group) == _TIME for group in groups) else None
    if tied is not None:
        groups.append(tied[0])
    if not groups:
        raise ExportError(
            "no axis of the inputs can have another size: the module fails with each axis that is made longer; "
            "pass dynamic_shapes for axes that can only change together, or dynamic_shapes={} for a file of these "
            "sizes alone"
        )
    roles = _completed([search.role(group) for group in groups])
    if tied is not None:
        roles[-1] = _TIME
    axes: dict[str, dict[int, str]] = {name: {} for name in functional.arguments.tensors}
    for group, label in zip(groups, _labels(groups, roles), strict=True):
        for name, axis in group:
            axes[name][axis] = label
    if tied is not None:
        base = axes[tied[0][0][0]][tied[0][0][1]]
        for name, axis in tied[1]:
            axes[name][axis] = _multiple(base, *tied[2])
    return replace(functional.arguments, axes={name: dict(sorted(own.items())) for name, own in axes.items()})


def left_out_axes(functional: FunctionalModule) -> tuple[str, list[Axis]] | None:
    """A dynamic axis that only changes together with axes that are static, found by running the module.

    Returns:
        Its name, and the others; None where there is no such axis.
    """
    try:
        found = find_dynamic_axes(functional).axes
    except ExportError:
        return None
    named = {(name, axis): label for name, own in functional.arguments.axes.items() for axis, label in own.items()}
    for (name, axis), label in named.items():
        together = found[name].get(axis)
        others = [(other, at) for other, own in found.items() for at, each in own.items() if each == together]
        left_out = [each for each in others if each not in named]
        if together is not None and left_out:
            return label, left_out
    return None


def is_other_axis(arguments: Arguments, axis: Axis) -> bool:
    """Whether an axis is dynamic, and neither batch nor time."""
    return arguments.axes[axis[0]].get(axis[1], _BATCH) not in (_BATCH, _TIME)


def without_axes(arguments: Arguments, axes: Collection[Axis]) -> Arguments:
    """The arguments with some axes, and those that go with them, static."""
    closed = {arguments.axes[name][axis] for name, axis in axes}
    kept = {
        name: {axis: label for axis, label in own.items() if not names_in(label) & closed and label not in closed}
        for name, own in arguments.axes.items()
    }
    return replace(arguments, axes=kept)


def dynamic_shapes_text(arguments: Arguments) -> str:
    """The axes as ``dynamic_shapes`` takes them, to be pasted: ``{'x': {0: 'batch', 1: 'time'}}``."""
    return repr(by_argument(arguments.call, {name: dict(axes) for name, axes in arguments.axes.items()}))


class _Search:
    """Runs of the module with some axes longer."""

    def __init__(self, functional: FunctionalModule) -> None:
        self.runs = 0
        self.functional = replace(functional, arguments=replace(functional.arguments, axes=self._no_axes(functional)))
        self.known: dict[tuple[Group, int], list[tuple[int, int]] | None] = {}

    @staticmethod
    def _no_axes(functional: FunctionalModule) -> dict[str, dict[int, str]]:
        return {name: {} for name in functional.arguments.tensors}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.functional.arguments.tensors.items()}

    def axes_of(self, size: int) -> list[Axis]:
        return [(name, axis) for name, shape in self.shapes.items() for axis, own in enumerate(shape) if own == size]

    def by_size(self) -> list[list[Axis]]:
        return [self.axes_of(size) for size in dict.fromkeys(size for shape in self.shapes.values() for size in shape)]

    def enlarge_ones(self) -> None:
        """Lengthen axes of size 1 in the example, as many as the module takes; broadcasting hides what a 1 is for."""
        ones = self.axes_of(1)[:_LARGEST_GROUP]
        for count in range(len(ones), 0, -1):
            for group in itertools.combinations(ones, count):
                if self.sizes_at(group, 2) is not None:
                    tensors = dict(self.functional.arguments.tensors)
                    for name, axis in group:
                        tensors[name] = resize_tensor(tensors[name], {axis: 2})
                    arguments = replace(self.functional.arguments, tensors=tensors)
                    self.functional = replace(self.functional, arguments=arguments)
                    self.known.clear()
                    return

    def separate(self, axes: list[Axis]) -> Iterator[Group]:
        """The smallest groups of axes of one size that can change together, and alone.

        Those that change what reaches the recurrent modules come first: of 3 sequences with 2 lengths,
        pack_padded_sequence quietly takes 2.
        """
        left = list(axes)
        if self.shapes[axes[0][0]][axes[0][1]] < 2:
            return
        for only_multiples, wanted in itertools.product((False, True), (self.role, self.changes)):
            for count in range(1, min(len(axes), _LARGEST_GROUP) + 1):
                for group in itertools.combinations(left, count):
                    if not all(axis in left for axis in group) or not wanted(group):
                        continue
                    if any(map(self.is_features, group)) if only_multiples else self.is_folded(group):
                        continue
                    yield group
                    left = [axis for axis in left if axis not in group]

    def tied_time(self, groups: Iterable[Group]) -> tuple[Group, Group, tuple[int, int]] | None:
        """Time, as two groups of axes that only change together, at different sizes: a spectrogram and its waveform.

        Returns:
            The axes of n steps, those of ``factor * n + offset`` steps, and factor and offset; None where there are
            none.
        """
        taken = {axis for group in groups for axis in group}
        left = [[axis for axis in axes if axis not in taken and not self.is_features(axis)] for axes in self.by_size()]
        sized = sorted((self.shapes[axes[0][0]][axes[0][1]], tuple(axes)) for axes in left if axes)
        for (own, base), (size, other) in itertools.combinations(sized, 2):
            if own < 2 or max(len(base), len(other)) > _LARGEST_GROUP:
                continue
            for factor in _factors(own, size):
                tie = other, factor, size - factor * own
                if self.tied_sizes(base, tie, own + 1) is not None and self.tied_sizes(base, tie, own + 3) is not None:
                    before, after = self.sizes_at((), 0) or [], self.tied_sizes(base, tie, own + 1) or []
                    if any(one[0] != more[0] for one, more in zip(before, after, strict=False)):
                        return base, other, tie[1:]
        return None

    def tied_sizes(self, base: Group, tie: tuple[Group, int, int], size: int) -> list[tuple[int, int]] | None:
        """As `sizes_at`, with other axes at a multiple of the size."""
        key = (*base, ("", -1), *tie[0], ("", tie[1])), size
        if key not in self.known:
            self.known[key] = self._run(base, size, tie) if self.runs < _MOST_RUNS else None
            self.runs += 1
        return self.known[key]

    def is_folded(self, group: Group) -> bool:
        """Whether the axes can only be multiples of their size: other axes are folded into them, as by a reshape."""
        own = self.shapes[group[0][0]][group[0][1]]
        between = range(own + 1, 2 * own if own <= _SMALL else own + 2)
        return all(self.sizes_at(group, size) is None for size in between)

    def is_features(self, axis: Axis) -> bool:
        """Whether an axis is an input's last one, of as many entries as a recurrent module's input or state."""
        name, at = axis
        tensor = self.functional.arguments.tensors[name]
        specs = [recurrent.spec for recurrent in self.functional.recurrent_modules.values()]
        sizes = {size for spec in specs for size in (spec.input_size, spec.hidden_size, spec.state_size)}
        return tensor.is_floating_point() and at == tensor.dim() - 1 and tensor.shape[at] in sizes

    def changes(self, group: Group) -> bool:
        return any(self.sizes_at(group, size) is not None for size in self._larger(group))

    def role(self, group: Group) -> str:
        """`batch` or `time`, by what changes in what reaches the recurrent modules; "" where nothing does."""
        before = self.sizes_at((), 0) or []
        for size in self._larger(group):
            after = self.sizes_at(group, size)
            if after is None or len(after) != len(before):
                continue
            for (steps, rows), (more_steps, more_rows) in zip(before, after, strict=True):
                if more_steps != steps:
                    return _TIME
                if more_rows != rows:
                    return _BATCH
        return ""

    def _larger(self, group: Group) -> tuple[int, ...]:
        name, axis = group[0]
        own = self.shapes[name][axis]
        return own + 1, 2 * own, 4 * own

    def sizes_at(self, group: Group, size: int) -> list[tuple[int, int]] | None:
        """Steps and rows that reach each call of a recurrent module; None where the module does not run."""
        key = group, size
        if key not in self.known:
            self.known[key] = self._run(group, size) if self.runs < _MOST_RUNS else None
            self.runs += 1
        return self.known[key]

    def _run(self, group: Group, size: int, tie: tuple[Group, int, int] | None = None) -> list[tuple[int, int]] | None:
        axes = self._no_axes(self.functional)
        for name, axis in group:
            axes[name][axis] = "axis"
        for name, axis in tie[0] if tie is not None else ():
            axes[name][axis] = _multiple("axis", *tie[1:])  # type: ignore[index]
        functional = replace(self.functional, arguments=replace(self.functional.arguments, axes=axes))
        with _recorded(functional) as found:
            try:
                resize_example(functional, {"axis": size} if group else {})
            except ExportError:
                return None
        return found


@contextlib.contextmanager
def _recorded(functional: FunctionalModule) -> Iterator[list[tuple[int, int]]]:
    """Steps and rows of what recurrent modules are called with, in order."""
    found: list[tuple[int, int]] = []

    def hook(
        input_size: int, batch_first: bool, cell: bool
    ) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def record(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = next((value for value in (*args, *kwargs.values())), None)
            data = x.data if isinstance(x, PackedSequence) else x
            # torch 2.13 takes packed sequences of one step with any number of features, and computes nonsense.
            if isinstance(data, torch.Tensor) and data.shape[-1] != input_size:
                raise ExportError(f"a recurrent module of {input_size} features was given {data.shape[-1]}")
            if isinstance(x, PackedSequence):
                found.append((len(x.batch_sizes), int(x.batch_sizes[0])))
            elif isinstance(x, torch.Tensor) and (cell or x.dim() == 2):
                found.append((1, x.shape[0]) if cell else (x.shape[0], 1))
            elif isinstance(x, torch.Tensor):
                steps, rows = (1, 0) if batch_first else (0, 1)
                found.append((x.shape[steps], x.shape[rows]))

        return record

    # A module with states of its own is tried with several shapes of them: only its last call counts.
    handles = [functional.stateful.register_forward_pre_hook(lambda *_: found.clear())]
    for path, recurrent in functional.recurrent_modules.items():
        module = functional.stateful.inner.get_submodule(path)
        record = hook(recurrent.spec.input_size, bool(getattr(module, "batch_first", False)), recurrent.cell)
        handles.append(module.register_forward_pre_hook(record, with_kwargs=True))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _factors(own: int, size: int) -> list[int]:
    """How many entries a step may have, where `own` steps have `size` entries; the likely ones first."""
    divisors = [factor for factor in range(1, size + 1) if size % factor == 0]
    return list(dict.fromkeys([size // own, 1, *sorted(divisors, key=lambda factor: abs(factor - size / own))]))[
        :_FACTORS
    ]


def _multiple(name: str, factor: int, offset: int) -> str:
    """``4*time - 16``, as torch writes it."""
    text = name if factor == 1 else f"{factor}*{name}"
    return text if offset == 0 else f"{text} {'-' if offset < 0 else '+'} {abs(offset)}"


def _completed(roles: list[str]) -> list[str]:
    """Where batch or time alone is missing, the only group without a role has it: more steps than lengths say."""
    missing = {_BATCH, _TIME} - set(roles)
    if len(missing) == 1 and roles.count("") == 1:
        return [role or next(iter(missing)) for role in roles]
    return roles


def _labels(groups: Iterable[Group], roles: Iterable[str]) -> Iterator[str]:
    """``batch`` and ``time`` for the first of each role; ``x_2`` for others, by input and axis."""
    used: set[str] = set()
    for group, role in zip(groups, roles, strict=True):
        name, axis = group[0]
        label = role if role and role not in used else f"{name}_{axis}".replace(".", "_")
        used.add(label)
        yield label

"""Finds the dynamic axes of a module's inputs by running the module, if the caller does not name them.

It runs with one axis longer, or several of the same size together; if that works, they are dynamic.  What reaches the
recurrent modules shows which axis is batch and which is time.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import ExportError
from ...symbolic_dims import names_in
from ..call.arguments import Arguments
from ..call.structure import as_dynamic_shapes
from .attribute_states import initial_tensors
from .functional_module import FunctionalModule, Tensors
from .recurrent_calls import CountedCalls, recorded_calls
from .resized_example import resize_example
from .tied_sizes import AXIS, Tied, follows, labels_of, multiple

Axis = tuple[str, int]
"""An input's name and one of its axes."""
Group = tuple[Axis, ...]
"""Axes that always have the same size."""
_MOST_RUNS = 300
"""The most runs of the module; each input has few axes, and few inputs share a size."""
_RESERVED = 40
"""How many runs are reserved for each size that many axes have, such as the batch of a dozen inputs."""
_LARGEST_GROUP = 8
_SMALL = 16
"""Axes up to this size are tried at every size up to twice their own."""
_MOST_LEFT_OUT = 2
"""The most axes that are fixed and equal others by chance: a state's layers, a number of features."""
_MOST_PICKED = 32
"""The most choices of one axis for each input, such as a state's batch rather than its layers of the same number."""
_MOST_TIED, _MOST_TIED_RUNS = 2, 200
"""The most sizes that follow from another size, and the most runs to find them."""
_BATCH, _TIME = "batch", "time"


def find_dynamic_axes(functional: FunctionalModule) -> Arguments:
    """The arguments of a functional module, with its dynamic axes found and named ``batch``, ``time``, or ``x_2``.

    Args:
        functional: the module; `axes` of its arguments are ignored.

    Raises:
        ExportError: no axis can have another size.
    """
    search = _Search(functional)
    search.enlarge_ones()
    by_size = search.by_size()
    # Sizes that few axes have first: many axes of one size may take all the runs.
    parts = {}
    for later, alike in zip(reversed(range(len(by_size))), sorted(by_size, key=len), strict=True):
        search.most = max(_MOST_RUNS - later * _RESERVED, search.runs + _RESERVED)
        parts[id(alike)] = list(search.separate(alike))
    groups: list[Group | Mapping[Axis, str]] = [group for axes in by_size for group in parts[id(axes)]]
    given_up = search.runs > _MOST_RUNS
    tied = Tied() if {_BATCH, _TIME} <= set(map(search.role, groups)) else search.tied({*itertools.chain(*groups)})
    groups += tied.growths
    if not groups and given_up:
        most = max(by_size, key=len)
        name, axis = most[0]
        raise ExportError(
            f"the dynamic axes of the inputs could not be found: {len(most)} axes have the same size, "
            f"{search.shapes[name][axis]}; pass dynamic_shapes, or example inputs whose batch, time and other axes "
            "have different sizes"
        )
    if by_size and not groups:
        raise ExportError(
            "no axis of the inputs can have another size: the module fails whichever axis is made longer; "
            "pass dynamic_shapes for axes that can only change together, or dynamic_shapes={} for a file of only "
            "these sizes"
        )
    search.most = search.runs + _RESERVED
    groups = [group for group in groups if search.role(group) or search.may_be_smaller(group)]
    axes: dict[str, dict[int, str]] = {name: {} for name in functional.arguments.tensors}
    labels = list(labels_of(groups, search.completed(groups)))
    alone = len(groups) - len(tied.growths)
    for group, label in zip(groups[:alone], labels[:alone], strict=True):
        for name, axis in group:
            axes[name][axis] = label
    for (name, axis), dim in tied.dims.items():
        axes[name][axis] = dim.format(*labels[alone:])
    return replace(functional.arguments, axes={name: dict(sorted(own.items())) for name, own in axes.items()})


def all_axes(arguments: Arguments) -> list[Axis]:
    """All dynamic axes."""
    return [(name, axis) for name, own in arguments.axes.items() for axis in own]


def is_other_axis(arguments: Arguments, axis: Axis) -> bool:
    """Whether an axis is dynamic, and neither batch nor time."""
    return not names_in(arguments.axes[axis[0]].get(axis[1], _BATCH)) <= {_BATCH, _TIME}


def is_batch(arguments: Arguments, axis: Axis) -> bool:
    """Whether an axis is dynamic, and the batch."""
    return arguments.axes[axis[0]].get(axis[1]) == _BATCH


def without_axes(arguments: Arguments, axes: Collection[Axis]) -> Arguments:
    """The arguments with some axes, and all axes that depend on them, static."""
    closed = {label for name, axis in axes for label in names_in(arguments.axes[name][axis])}
    kept = {
        name: {axis: label for axis, label in own.items() if not names_in(label) & closed}
        for name, own in arguments.axes.items()
    }
    return replace(arguments, axes=kept)


def dynamic_shapes_text(arguments: Arguments) -> str:
    """The axes as ``dynamic_shapes`` takes them, to be pasted: ``{'x': {0: 'batch', 1: 'time'}}``."""
    return repr(as_dynamic_shapes(arguments.call, {name: dict(axes) for name, axes in arguments.axes.items()}))


class _Search:
    """A search by running the module with some axes longer."""

    def __init__(self, functional: FunctionalModule) -> None:
        self.runs, self.most = 0, _MOST_RUNS
        self.functional = _with_arguments(functional, axes={name: {} for name in functional.arguments.tensors})
        self.states = initial_tensors(functional.attribute_states)
        self.known: dict[tuple[frozenset[tuple[Axis, str]], int], list[tuple[int, int]] | None] = {}
        self.calls: dict[tuple[frozenset[tuple[Axis, str]], int], int] = {}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.functional.arguments.tensors.items()}

    def axes_of(self, size: int) -> list[Axis]:
        return [(name, axis) for name, shape in self.shapes.items() for axis, own in enumerate(shape) if own == size]

    @property
    def sizes(self) -> list[int]:
        return list(dict.fromkeys(size for shape in self.shapes.values() for size in shape))

    def by_size(self) -> list[list[Axis]]:
        return [self.axes_of(size) for size in self.sizes]

    def enlarge_ones(self) -> None:
        """Lengthen as many of the example's axes of size 1 as the module allows, since a 1 may be broadcast."""
        ones = self.axes_of(1)[:_LARGEST_GROUP]
        # No other axis has it: an axis of 1 that can only be as long as an axis of the example is broadcast along it.
        size = next(size for size in itertools.count(2) if size not in self.sizes)
        for count in range(len(ones), 0, -1):
            for group in itertools.combinations(ones, count):
                if self.sizes_at(group, size) is not None:
                    tensors, self.states = self.resized(_dims(group), size)
                    self.functional = _with_arguments(self.functional, tensors=tensors)
                    self.known.clear()
                    return

    def separate(self, axes: list[Axis]) -> Iterator[Group]:
        """Groups of axes of one size that can change together, independently of others.

        The first are in the largest group that changes what reaches the recurrent modules: an axis that can grow alone
        stays with axes that cannot grow without it (torch.gather takes fewer rows than there are).  The others are the
        smallest groups.
        """
        left = list(axes)
        if self.shapes[axes[0][0]][axes[0][1]] < 2:
            return
        for only_multiples, wanted in itertools.product((False, True), (self.role, self.changes)):
            for group in () if only_multiples else self.split(self.largest(left, wanted)):
                if not self.is_folded(group):
                    yield group
                    left = [axis for axis in left if axis not in group]
            for count in range(1, min(len(axes), _LARGEST_GROUP) + 1):
                for group in itertools.combinations(left, count):
                    if not all(axis in left for axis in group) or not wanted(group):
                        continue
                    if any(map(self.is_features, group)) if only_multiples else self.is_folded(group):
                        continue
                    yield group
                    left = [axis for axis in left if axis not in group]

    def largest(self, axes: list[Axis], wanted: Callable[[Group], object]) -> Group:
        """All axes but the fewest that must be left out for the rest to be `wanted`; otherwise one axis of each input.

        Empty where only one axis would be left, or no choice is `wanted`.
        """
        for count in range(min(_MOST_LEFT_OUT, len(axes) - 2) + 1):
            for out in itertools.combinations(axes, count):
                group = tuple(axis for axis in axes if axis not in out)
                if wanted(group):
                    return group
        by_input: dict[str, list[Axis]] = {}
        for axis in axes:
            by_input.setdefault(axis[0], []).append(axis)
        for group in itertools.islice(itertools.product(*by_input.values()), _MOST_PICKED):
            if len(by_input) > 1 and wanted(group):
                return group
        return ()

    def split(self, group: Group) -> Iterator[Group]:
        """The parts of a group that can change without the rest, and the rest without them.

        Where all of it changes what reaches the recurrent modules, so does one of them: `zip` stops at the shortest.
        """
        size = next((size for size in self._larger(group) if self.sizes_at(group, size) is not None), 0) if group else 0
        rest = group
        for count in range(1, len(group) // 2 + 1):
            for part in itertools.combinations(group, count):
                others = tuple(axis for axis in rest if axis not in part)
                if not others or len(others) + count != len(rest):
                    continue
                if self.sizes_at(part, size) is None or self.sizes_at(others, size) is None:
                    continue
                known = self.role(part) or self.role(others) or not self.role(rest)
                if known and not self.is_zipped(part, others, size):
                    yield part
                    rest = others
        if rest:
            yield rest

    def is_zipped(self, one: Group, other: Group, size: int) -> bool:
        """Whether results have more entries only where both grow: `zip` stops at the shortest."""
        own, longer = self.result_shapes((), 0), self.result_shapes((*one, *other), size)
        return longer != own and self.result_shapes(one, size) == own == self.result_shapes(other, size)

    def result_shapes(self, group: Group, size: int) -> list[tuple[int, ...]] | None:
        """The shapes of the module's results; None where it fails."""
        with contextlib.suppress(ExportError):
            found, _ = self.functional.run(*self.resized(_dims(group), size))
            return [tuple(tensor.shape) for tensor in found.values()]
        return None

    def tied(self, found: Collection[Axis]) -> Tied:
        """Axes of one size and others whose sizes follow from it: none of `found`, and as few others as possible.

        Examples are a spectrogram and its waveform, or an input for each step but the last.  Axes that may be
        features, the last ones of floating-point inputs, are tried last.
        """
        self.runs = self.most - _MOST_TIED_RUNS
        tensors = self.functional.arguments.tensors
        last = {(name, x.dim() - 1) for name, x in tensors.items() if x.is_floating_point() and x.dim() > 1}
        for features in (last, set(filter(self.is_features, last)), set()):
            left_out = {*found, *features}
            sizes = {size: [axis for axis in self.axes_of(size) if axis not in left_out] for size in self.sizes}
            sizes = {size: axes for size, axes in sizes.items() if axes and size > 1}
            for count in range(1, _MOST_TIED + 1):
                for base, *others in itertools.combinations(sorted(sizes), count + 1):
                    for dims in itertools.product(*(follows(size, base, alone=count == 1) for size in others)):
                        each = zip((base, *others), (AXIS, *dims), strict=True)
                        growth = {axis: dim for size, dim in each for axis in sizes[size]}
                        if self.grows(growth):
                            return self.with_factor(growth, base, sizes)
        return Tied()

    def with_factor(self, growth: Mapping[Axis, str], base: int, sizes: Mapping[int, list[Axis]]) -> Tied:
        """Tied axes, where one may have another size as a factor, such as rows for each step of a batch."""
        dims = {axis: dim.replace(AXIS, "{0}") for axis, dim in growth.items()}
        for factor in (size for size in sizes if not {*sizes[size]} & growth.keys()):
            products = [axis for axis, dim in growth.items() if dim == multiple(AXIS, factor, 0)]
            other = dict.fromkeys(sizes[factor], AXIS) | dict.fromkeys(products, multiple(AXIS, base, 0))
            # Lengths may keep further steps from the layers, so runs alone do not show which products grow.
            if products and self.runs_larger(other):
                both = dict.fromkeys(sizes[factor], "{1}") | dict.fromkeys(products, "{0}*{1}")
                return Tied((growth, other), dims | both)
        return Tied((growth,), dims)

    def grows(self, growth: Mapping[Axis, str]) -> bool:
        """Whether the module runs with these axes larger, by several sizes, and more then reaches its layers."""
        return self.runs_larger(growth) and bool(self.role(growth))

    def runs_larger(self, growth: Mapping[Axis, str]) -> bool:
        """Whether the module runs with these axes larger, by several sizes."""
        name, axis = next(iter(growth))
        own = self.shapes[name][axis]
        return all(self.sizes_at(growth, own + more) is not None for more in (1, 3))

    def is_folded(self, group: Group) -> bool:
        """Whether the axes can only be multiples of their size, such as where a reshape folds other axes into them."""
        own = self.shapes[group[0][0]][group[0][1]]
        between = range(own + 1, 2 * own if own <= _SMALL else own + 2)
        return all(self.sizes_at(group, size) is None for size in between)

    def is_features(self, axis: Axis) -> bool:
        """Whether an axis is an input's last one, with the size of a recurrent module's input or state."""
        name, at = axis
        tensor = self.functional.arguments.tensors[name]
        specs = [recurrent.spec for recurrent in self.functional.recurrent_modules.values()]
        sizes = {size for spec in specs for size in (spec.input_size, spec.hidden_size, spec.state_size)}
        return tensor.is_floating_point() and at == tensor.dim() - 1 and tensor.shape[at] in sizes

    def changes(self, group: Group) -> bool:
        return any(self.sizes_at(group, size) is not None for size in self._larger(group))

    def role(self, group: Group | Mapping[Axis, str]) -> str:
        """`batch` or `time`, by how the axes change what reaches the recurrent modules; "" where they change nothing.

        An axis is also time if more entries take more calls of one step each (cells in a Python loop) or, where nothing
        reaches a recurrent module, more calls of torch's functions (cells written by hand).
        """
        before = self.sizes_at((), 0) or []
        if not before:
            return _TIME if self.is_looped(group) else ""
        for size in self._larger(group):
            after = self.sizes_at(group, size)
            if after and len(after) > len(before) and all(steps == 1 for steps, _ in before):
                return _TIME
            if after is None or len(after) != len(before):
                continue
            for (steps, rows), (more_steps, more_rows) in zip(before, after, strict=True):
                if more_steps != steps:
                    return _TIME
                if more_rows != rows:
                    return _BATCH
        return ""

    def completed(self, groups: Sequence[Group | Mapping[Axis, str]]) -> list[str]:
        """The role of each group; a single group without a role gets the missing one, and a single looped one is time.

        Steps beyond the lengths reach no layer, and more calls of a cell do not make any call longer.
        """
        roles = [self.role(group) for group in groups]
        missing = {_BATCH, _TIME} - set(roles)
        others = [index for index, role in enumerate(roles) if not role]
        looped = [index for index in others if self.is_looped(groups[index])] if missing == {_TIME} else []
        for only in (looped, others):
            if len(missing) == 1 and len(only) == 1:
                roles[only[0]] = missing.pop()
        return roles

    def may_be_smaller(self, group: Group | Mapping[Axis, str]) -> bool:
        """Whether the module also runs with one entry less; if not, it ignores extra ones, such as extra layers."""
        if isinstance(group, Mapping) or self.is_looped(group):
            return True
        name, axis = group[0]
        return self.sizes_at(group, self.shapes[name][axis] - 1) is not None

    def is_looped(self, group: Group | Mapping[Axis, str]) -> bool:
        """Whether the module calls torch's functions more often the longer the axes are."""
        longer, double, _ = self._larger(group)
        if any(self.sizes_at(group, size) is None for size in (longer, double)):
            return False
        keys = [(frozenset(), 0), *((frozenset(_dims(group).items()), size) for size in (longer, double))]
        counts = [self.calls[key] for key in keys]
        return counts == sorted(set(counts))

    def _larger(self, group: Group | Mapping[Axis, str]) -> tuple[int, ...]:
        name, axis = next(iter(group))
        own = self.shapes[name][axis]
        return own + 1, 2 * own, 4 * own

    def sizes_at(self, group: Group | Mapping[Axis, str], size: int) -> list[tuple[int, int]] | None:
        """The steps and rows of each call of a recurrent module; None where the module fails."""
        dims = _dims(group)
        key = frozenset(dims.items()), size
        if key not in self.known:
            with CountedCalls() as counted:
                self.known[key] = self._run(dims, size) if self.runs < self.most else None
            self.calls[key] = counted.count
            self.runs += 1
        return self.known[key]

    def resized(self, dims: Mapping[Axis, str], size: int) -> tuple[Tensors, Tensors]:
        """The example's inputs and states with some axes of another size; the module runs on them."""
        axes = {name: {axis: dim for (own, axis), dim in dims.items() if own == name} for name in self.shapes}
        functional = _with_arguments(self.functional, axes=axes)
        return resize_example(functional, {AXIS: size} if dims else {}, self.states)

    def _run(self, dims: Mapping[Axis, str], size: int) -> list[tuple[int, int]] | None:
        with recorded_calls(self.functional) as found, contextlib.suppress(ExportError):
            self.resized(dims, size)
            return found
        return None


def _with_arguments(functional: FunctionalModule, **changes: Any) -> FunctionalModule:
    return replace(functional, arguments=replace(functional.arguments, **changes))


def _dims(group: Group | Mapping[Axis, str]) -> Mapping[Axis, str]:
    return group if isinstance(group, Mapping) else dict.fromkeys(group, AXIS)

"""Resizes a module's example inputs, and its attribute states to match.

A state must have the same shape after a call as before it to be carried from call to call.  Its axes keep the example's
sizes, except those that follow an axis of the inputs, such as the batch.  Which ones do is found by trying: the module
must run and keep the shapes.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

from ...errors import ExportError
from ..call.arguments import resize_tensor
from .attribute_states import OtherShapeError, initial_tensors, require_kept_shapes
from .functional_module import FixedSizeError, FunctionalModule, OtherSizesFailError, Tensors
from .recurrent_calls import recorded_calls

Shape = tuple[int, ...]
_AXES = (1, 0, 2, 3)
"""The axes of a state that may be the batch, the likeliest first: it is the second axis of an LSTM's h and c."""
_MOST_TRIED = 32
"""The most choices of axes that are tried; a module has few states of different shapes."""


def resize_example(
    functional: FunctionalModule, sizes: Mapping[str, int], states: Tensors | None = None
) -> tuple[Tensors, Tensors]:
    """The example inputs and the attribute states at other sizes.

    Args:
        functional: the module.
        sizes: of the dynamic axes, by their names.
        states: those at the example's sizes; None uses the initial ones.

    Raises:
        OtherSizesFailError: the module fails at these sizes, or a state's shape changes in the call.
    """
    example = functional.arguments.sizes
    states = initial_tensors(functional.attribute_states) if states is None else states
    inputs = functional.arguments.resize(sizes)
    others = (functional.arguments.resize_filled(sizes), functional.arguments.resize_indices(sizes))
    changed = [(example[name], sizes[name]) for name in example if example[name] != sizes[name]]
    problem: ExportError | None = None
    found: tuple[Tensors, Tensors] | None = None
    for resized in _resized(states, changed):
        for tensors in (inputs, *others):
            if tensors is None:
                continue
            try:
                _, after = functional.run(tensors, resized)
                require_kept_shapes(functional.attribute_states, resized, after)
            except ExportError as error:
                problem = problem or error
                continue
            if all(after[result].shape == resized[name].shape for name, result in functional.states.items()):
                return tensors, resized
            found = found or (tensors, resized)
    if found is not None:
        return found
    at = ", ".join(f"{name} {size}" for name, size in sizes.items())
    if isinstance(problem, OtherShapeError):
        calls = f"leave {', '.join(sizes)} out of dynamic_shapes to always call the file at the example's sizes"
        raise OtherSizesFailError(f"at {at} {problem}, or {calls}") from problem
    raise OtherSizesFailError(
        f"the module fails at {at}, so nothing shows that these axes can be dynamic: {problem}"
    ) from problem


def open_state_axes(functional: FunctionalModule) -> dict[str, dict[int, str]]:
    """By input name of each attribute state: its axes that follow a dynamic axis of the inputs, with that axis's name.

    All axes, named "", if that cannot be found out.
    """
    own, within = functional.arguments.sizes, functional.arguments.within
    initial = initial_tensors(functional.attribute_states)
    others = {
        label: [within(label, other) for other in (size + 1, 2 * size, 2 * size + 1, size - 1)]
        for label, size in own.items()
    }
    alone = {
        label: [{**own, label: size} for size in sizes if size not in (0, own[label])]
        for label, sizes in others.items()
    }
    together = [dict(zip(others, sizes, strict=True)) for sizes in zip(*others.values(), strict=False)]
    for tries in (alone, {"": together}) if initial else ():
        shapes = {label: _first_shapes(functional, each) for label, each in tries.items()}
        if None not in shapes.values():
            return {
                name: {
                    axis: label
                    for label, other in shapes.items()
                    for axis, size in enumerate(state.shape)
                    if other is not None and other[name][axis] != size
                }
                for name, state in initial.items()
            }
    return {name: dict.fromkeys(range(tensor.dim()), "") for name, tensor in initial.items()}


def require_steps_apart(functional: FunctionalModule) -> None:
    """Require that no attribute state has an axis with as many entries as a call has steps.

    The first state cannot know that number, and a call with another number of steps could not follow.

    Raises:
        StepsInStateError: one has.
    """
    own, within = functional.arguments.sizes, functional.arguments.within
    initial = initial_tensors(functional.attribute_states)
    with recorded_calls(functional) as calls:
        for label, size in own.items() if initial else ():
            with contextlib.suppress(OtherSizesFailError):
                resize_example(functional, own)
                before = list(calls)
                _, states = resize_example(functional, {**own, label: within(label, size + 1)})
                longer = [steps for steps, _ in calls] != [steps for steps, _ in before]
                for state in functional.attribute_states:
                    shapes = [(tuple(initial[name].shape), tuple(states[name].shape)) for name in state.input_names]
                    if longer and state.is_read and any(one != other for one, other in shapes):
                        places = functional.arguments.axes.items()
                        axes = {(name, at) for name, each in places for at, dim in each.items() if dim == label}
                        raise StepsInStateError(
                            f"{state.where} has as many entries as a call has {label}, so calls of other lengths "
                            f"cannot follow each other; cut it to a window of one size, such as "
                            f"{state.where}[:, -{size}:], or leave {label} out of dynamic_shapes",
                            axes,
                        )


class StepsInStateError(FixedSizeError):
    """A state has as many entries as a call has steps."""


def _first_shapes(functional: FunctionalModule, sizes: Sequence[Mapping[str, int]]) -> dict[str, Shape] | None:
    """The states' shapes at the first of some sizes at which the module runs; None where it runs at none."""
    for each in sizes:
        with contextlib.suppress(OtherSizesFailError):
            return {name: tuple(state.shape) for name, state in resize_example(functional, each)[1].items()}
    return None


def _resized(states: Tensors, changed: Sequence[tuple[int, int]]) -> Iterator[Tensors]:
    """The states as they are, and then with those axes resized that have the size of a changed axis of the inputs."""
    tried: set[tuple[Shape, ...]] = set()
    for shapes in itertools.islice(_shapes_to_try([tuple(state.shape) for state in states.values()], changed), 1024):
        if shapes not in tried and len(tried) < _MOST_TRIED:
            tried.add(shapes)
            pairs = zip(states.items(), shapes, strict=True)
            yield {name: resize_tensor(state, dict(enumerate(shape))) for (name, state), shape in pairs}


def _shapes_to_try(shapes: Sequence[Shape], changed: Sequence[tuple[int, int]]) -> Iterator[tuple[Shape, ...]]:
    """Shapes of all states: the same axis changed in all, then any axis in each, the same one for equal shapes."""
    yield tuple(shapes)
    for axis, (old, new) in itertools.product(_AXES, changed):
        yield tuple(_with_axis(shape, axis, old, new) for shape in shapes)
    different = list(dict.fromkeys(shapes))
    for pairs in (*([pair] for pair in changed), changed):
        for choice in itertools.product(*(_choices(shape, pairs) for shape in different)):
            chosen = dict(zip(different, choice, strict=True))
            yield tuple(chosen[shape] for shape in shapes)


def _choices(shape: Shape, changed: Sequence[tuple[int, int]]) -> list[Shape]:
    """A shape with some of the axes of an old size changed, at most one for each change; last the shape itself."""
    found = [shape]
    for old, new in changed:
        found = [_with_axis(one, axis, old, new) for one in found for axis in _AXES if axis < len(one)] + found
    return list(dict.fromkeys(sorted(found, key=lambda one: one == shape)))


def _with_axis(shape: Shape, axis: int, old: int, new: int) -> Shape:
    if axis >= len(shape) or shape[axis] != old:
        return shape
    return (*shape[:axis], new, *shape[axis + 1 :])

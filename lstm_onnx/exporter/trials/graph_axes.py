"""Checks that a traced graph has the axes of its module: the sizes of its outputs, and axes of different names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch

from ...errors import ExportError
from ..functional.functional_module import FixedSizeError, FunctionalModule
from ..functional.resized_example import resize_example
from ..lowering.rename import TracedGraph


def require_all_outputs(count: int, functional: FunctionalModule) -> None:
    """Compare the number of traced outputs with that of the module's.

    Raises:
        ExportError: they differ, since the trace took another path through the code.
    """
    wanted = len(functional.outputs) + len(functional.states)
    if count != wanted:
        raise ExportError(
            f"forward gives {wanted} outputs and states, and its trace {count}; it may test a result of item() with "
            "isinstance or match, and in a trace that is no int, float or bool: use if or torch.where"
        )


def require_dynamic_outputs(graph: TracedGraph, functional: FunctionalModule) -> None:
    """Compare the traced outputs' sizes with the module's at other sizes; see also `run_trials`.

    Raises:
        FixedSizeError: an output's size is fixed in the graph, and another one in the module.
        ExportError: an output has another number of axes, or a dtype that a file's outputs cannot have.
    """
    clamp = functional.arguments.within
    larger = {name: clamp(name, 2 * size + 1) for name, size in functional.arguments.sizes.items()}
    try:
        inputs, states = resize_example(functional, larger)
        outputs, after = functional.run(inputs, states)
    except ExportError:
        return  # the module fails at these sizes; the trials find those at which it does not
    for name, tensor in {**outputs, **after}.items():
        if tensor.dtype is torch.bfloat16:
            raise ExportError(f"the output {name} is bfloat16, which numpy does not have; convert it by .float()")
        if len(graph.dims[name]) != tensor.dim():
            raise ExportError(
                f"the output {name} has {len(graph.dims[name])} axes in the trace, and {tensor.dim()} in the module; "
                "torch traces an operator differently than it runs it: give its inputs an axis of size 1 for the batch"
            )
        for axis, (dim, size) in enumerate(zip(graph.dims[name], tensor.shape, strict=True)):
            if isinstance(dim, int) and dim != size:
                at = ", ".join(f"{label} {value}" for label, value in larger.items())
                raise FixedSizeError(
                    f"axis {axis} of the output {name} is always {dim} in the graph, and {size} in the module at {at}; "
                    "something in the module fixes a size: a Python loop, or a number in view or expand",
                    _axes_that_change(functional, name, axis, larger),
                )


def _axes_that_change(
    functional: FunctionalModule, output: str, axis: int, larger: Mapping[str, int]
) -> set[tuple[str, int]]:
    """The axes of inputs that, changed alone, change the size of an output's axis."""
    own = functional.arguments.sizes
    sizes: dict[str | None, int] = {}
    for label in (None, *own):
        with contextlib.suppress(ExportError):
            inputs, states = resize_example(functional, own if label is None else {**own, label: larger[label]})
            outputs, after = functional.run(inputs, states)
            sizes[label] = {**outputs, **after}[output].shape[axis]
    return {
        (name, at)
        for name, axes in functional.arguments.axes.items()
        for at, label in axes.items()
        if sizes.get(label, sizes.get(None)) != sizes.get(None)
    }


def require_separate_axes(graph: TracedGraph, functional: FunctionalModule) -> None:
    """Require that axes of different names have separate sizes in the graph, if they may differ in the module.

    Raises:
        FixedSizeError: two became one size, since the module's code compares them and they were equal in the trace.
    """
    label_of: dict[str, str] = {}
    for key, axes in functional.arguments.axes.items():
        for axis, label in axes.items():
            dim = graph.dims[key][axis]
            if isinstance(dim, str) and label not in functional.arguments.unnamed:
                first = label_of.setdefault(dim, label)
                if first != label and _runs_resized_alone(functional, label):
                    raise FixedSizeError(
                        f"{first} and {label} became one size in the graph, and in the module they may differ: its "
                        "code compares them, or gives an output of either size; give an example in which they differ"
                    )


def _runs_resized_alone(functional: FunctionalModule, label: str) -> bool:
    """Whether the module runs with one axis longer or shorter and all others as in the example."""
    sizes, clamp = functional.arguments.sizes, functional.arguments.within
    size = sizes[label]
    for other in {clamp(label, size + 1), clamp(label, size - 1), clamp(label, 2 * size + 1)} - {size}:
        with contextlib.suppress(ExportError):
            resize_example(functional, {**sizes, label: other})  # runs the module
            return True
    return False

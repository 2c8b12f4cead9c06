"""What to change where a module runs at no other size of a dynamic axis: found by running it."""

from __future__ import annotations

from ...errors import ExportError
from ..call.arguments import flatten_advice
from .dynamic_axes import Axis, find_dynamic_axes
from .functional_module import FunctionalModule
from .resized_example import resize_example


def left_out_axes(functional: FunctionalModule) -> tuple[str, list[Axis]] | None:
    """A dynamic axis that can change only together with axes that are static, found by running the module.

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


def folded_advice(functional: FunctionalModule) -> str:
    """What to write where the size of an axis can only be a multiple of another one's, as of rows for steps and batch.

    As the end of a message; empty where there is no such axis.
    """
    sizes = functional.arguments.sizes
    for label, size in sizes.items():
        for other, part in sizes.items():
            if other == label or part < 2 or size % part or not _runs(functional, label, size + part):
                continue
            if any(_runs(functional, label, size + more) for more in range(1, part)):
                continue
            places = [(name, at) for name, own in functional.arguments.axes.items() for at in own if own[at] == label]
            return (
                f"; {label} runs only at multiples of {other}, as rows for each step do; {flatten_advice(*places[0])}"
            )
    return ""


def _runs(functional: FunctionalModule, label: str, size: int) -> bool:
    try:
        resize_example(functional, {**functional.arguments.sizes, label: size})
    except ExportError:
        return False
    return True

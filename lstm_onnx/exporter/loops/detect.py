"""Over which dynamic axes a module loops in Python: where one of them is longer, its code calls torch more often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.overrides import TorchFunctionMode

from ...errors import ExportError
from ..functional.dynamic_axes import is_other_axis
from ..functional.functional_module import FunctionalModule, resize_example

_MORE = 3


class _Count(TorchFunctionMode):
    """Counts the functions of torch that Python code calls; a whole nn.GRU is one."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, and pass on."""
        self.number += 1
        return func(*args, **(kwargs or {}))


def looped_axes(functional: FunctionalModule, sizes: Mapping[str, int]) -> list[str]:
    """The names of the dynamic axes over which the module's code may loop.

    Args:
        functional: the module.
        sizes: a size for each dynamic axis.
    """
    before = _calls(functional, sizes)
    found = []
    for name, size in sizes.items():
        longer = functional.arguments.within(name, size + _MORE)
        calls = _calls(functional, {**sizes, name: longer}) if longer > size else None
        if before is not None and calls is not None and calls - before >= longer - size:
            found.append(name)
    return found


def _calls(functional: FunctionalModule, sizes: Mapping[str, int]) -> int | None:
    try:
        inputs, states = resize_example(functional, sizes)
        with _Count() as count:
            functional.run(inputs, states)
    except ExportError:
        return None
    return int(count.number)


def may_be_static(functional: FunctionalModule, loops: list[str]) -> bool:
    """Whether nobody named the dynamic axes, and one of these is neither batch nor time: then it is simply static."""
    arguments = functional.arguments
    if not arguments.guessed or not functional.recurrent_modules:
        return False
    places = [(name, axis) for name, own in arguments.axes.items() for axis, label in own.items() if label in loops]
    return any(is_other_axis(arguments, place) for place in places)

"""Finds where a module gets numbers that PyTorch does not define: random ones, or one of several equal ones."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ...errors import ExportError
from ..user_code import stack_line


class RandomLine(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds the first line of the user's code that gets random numbers from torch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.line: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass everything on."""
        if self.line is None and draws(func):
            self.line = stack_line()
        return func(*args, **(kwargs or {}))


class FirstOfEqual(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes of equal numbers the first ones in their order, as a file does, where PyTorch takes any of them.

    Attributes:
        line: the first of the user's code where PyTorch takes others; None where there is none.
        name: of the function.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.line: str | None = None
        self.name = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass everything on except topk and kthvalue."""
        found, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        if name not in _CHOICES or not args[0].dim():
            return found
        chosen = _CHOICES[name](*args, **(kwargs or {}))
        if self.line is None and not torch.equal(found[1], chosen[1]):
            self.line, self.name = stack_line(), name
        return chosen


def first_topk(numbers: Any, k: int, dim: int = -1, largest: bool = True, *_: Any, **__: Any) -> tuple[Any, ...]:
    """As ONNX has it: of equal numbers the first ones in their order, where PyTorch takes any in any order."""
    if not numbers.ndim:
        return tuple(numbers.topk(k, dim, largest))
    return tuple(found.narrow(dim, 0, k) for found in numbers.sort(dim=dim, descending=largest, stable=True))


def _first_kth(numbers: Any, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Any, ...]:
    found = [each.narrow(dim, k - 1, 1) for each in numbers.sort(dim=dim, stable=True)]
    return tuple(found if keepdim else [each.squeeze(dim) for each in found])


_CHOICES: dict[str, Any] = {"topk": first_topk, "kthvalue": _first_kth}


def draws(operator: Any) -> bool:
    """Whether an operator gives random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(operator, "tags", ())


def random_error(line: str | None) -> ExportError:
    """The refusal of a forward with random numbers."""
    at = f"at {line}: " if line is not None else "the forward "
    return ExportError(
        f"{at}draws random numbers in eval mode, and a file cannot draw the same numbers as PyTorch; pass them as an "
        "argument of forward, or draw them once in __init__ (F.dropout needs training=self.training)"
    )

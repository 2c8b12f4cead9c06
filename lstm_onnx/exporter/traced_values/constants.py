"""The numbers of tensors that depend on no input: buffers, ``torch.arange(1, 3)``, and what is computed from them.

In a trace no tensor has values, not even a constant.  So each operation whose inputs are all constants is
also computed outside of the trace, and ``tolist()``, ``item()``, ``int()``, ``bool()`` or ``numpy()`` of its result
give what they give in PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

from .each_number import EachNumber

_LARGEST = 4096
"""Larger tensors are not remembered."""
READS = frozenset(
    {
        *("item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__", "__complex__"),
        *("__contains__", "equal", "allclose", "is_nonzero", "__format__"),
    }
)
"""Functions that turn a tensor's numbers into Python's or numpy's."""
_SIZED_BY_NUMBERS = frozenset(
    {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount", "repeat_interleave"}
)
"""Functions whose result's size depends on values, as it does for ``where`` and for indexing by a mask."""
_RANDOM = re.compile(
    "rand|normal|bernoulli|multinomial|dropout|empty|poisson|exponential|cauchy|geometric|uniform|rrelu"
)
_UNKNOWN = object()
_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool, EachNumber)


class Constants:
    """The numbers of a trace's constant tensors.

    Args:
        module: the traced module, before its parameters and buffers lose their values.
        kept: whether they keep their values in the trace.
    """

    def __init__(self, module: nn.Module, *, kept: bool = False) -> None:
        self._module = module
        own = () if kept else _tensors(module)
        self._own = {name: tensor for name, tensor in own if _is_kept(tensor)}
        places = [
            (table, name) for part in module.modules() for table in (part._parameters, part._buffers) for name in table
        ]
        # The tracer replaces all at once, so the first plain tensor shows whether it has.
        self._places = [item for item in places if type(item[0][item[1]]) in (Tensor, nn.Parameter)][:1] or places
        self._known: Any = WeakIdKeyDictionary()
        self._started = kept

    def read(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> tuple[Any] | None:
        """The result of a function that reads values, in a tuple; None where those of an argument are not known."""
        self._start()
        real = self._real(args, kwargs)
        if real is None:
            return None
        with _disable_current_modes():
            found = func(*real[0], **real[1])
        if isinstance(found, np.ndarray):
            found.flags.writeable = False  # the graph would not contain a write into it
        return (found,)

    def call(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Call a function, and remember its result where that is constant."""
        self._start()
        name = getattr(func, "__name__", "")
        if args and type(args[0]) is FakeTensor and args[0] not in self._known:
            self._forget_changed(name, (), kwargs)
            return func(*args, **kwargs)  # most calls end here
        if name == "__get__" and (len(args) != 1 or not isinstance(args[0], FakeTensor)):
            return func(*args, **kwargs)
        real = None if _RANDOM.search(name) else self._real(args, kwargs)
        if real is None:
            self._forget_changed(name, args, kwargs)
            return func(*args, **kwargs)
        if name in _SIZED_BY_NUMBERS or (name in ("where", "__getitem__") and _chooses(args)):
            with _disable_current_modes():
                return func(*real[0], **real[1])
        result = func(*args, **kwargs)
        fakes, tree = pytree.tree_flatten(result)
        made = any(isinstance(item, FakeTensor) for item in fakes) and all(map(_is_small, fakes))
        if made or _writes(name) or "out" in kwargs:
            try:
                with _disable_current_modes():
                    values, found = pytree.tree_flatten(func(*real[0], **real[1]))
            except Exception:  # noqa: BLE001 - then the values are unknown, nothing else
                self._forget_changed(name, args, kwargs)
                return result
            if found == tree:
                self._remember(fakes, values)
        return result

    def _remember(self, fakes: list[Any], values: list[Any]) -> None:
        for fake, value in zip(fakes, values, strict=True):
            if isinstance(fake, FakeTensor) and isinstance(value, Tensor) and value.shape == fake.shape:
                self._known[fake] = value

    def _start(self) -> None:
        """Find the fake tensors that took the places of the module's own."""
        if self._started:
            return
        # Each call of torch comes here until then, so this must not walk through the module.
        if any(isinstance(table.get(name), FakeTensor) for table, name in self._places):
            self._started = True
            for name, tensor in _tensors(self._module):
                value = self._own.get(name)
                if isinstance(tensor, FakeTensor) and value is not None:
                    with _disable_current_modes():
                        self._known[tensor] = value.detach().clone()

    def _real(self, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """The arguments with their values; None where some are not known."""
        leaves, tree = pytree.tree_flatten((args, kwargs))
        real = []
        for leaf in leaves:
            value = self._value(leaf)
            if value is _UNKNOWN:
                return None
            real.append(value)
        found: tuple[Any, Any] = pytree.tree_unflatten(real, tree)
        return found

    def _value(self, leaf: Any) -> Any:
        if isinstance(leaf, FakeTensor):
            return self._known.get(leaf, _UNKNOWN)
        if isinstance(leaf, _SYMBOLS):
            return _UNKNOWN
        if isinstance(leaf, Tensor):
            own = type(leaf) in (Tensor, nn.Parameter) and not leaf.is_meta  # torch makes its own with symbolic sizes
            return leaf if own and _is_kept(leaf) else _UNKNOWN
        if isinstance(leaf, slice):
            parts = (leaf.start, leaf.stop, leaf.step)
            return _UNKNOWN if any(isinstance(part, (Tensor, *_SYMBOLS)) for part in parts) else leaf
        return leaf

    def _forget_changed(self, name: str, args: Any, kwargs: dict[str, Any]) -> None:
        """Forget the values of what a function writes into, and of everything that shares its memory."""
        targets = [*(pytree.tree_leaves(args[:1]) if _writes(name) else ()), *pytree.tree_leaves(kwargs.get("out"))]
        for target in targets:
            value = self._known.get(target) if isinstance(target, FakeTensor) else None
            if value is not None:
                memory = value.untyped_storage().data_ptr()
                for other, known in list(self._known.items()):
                    if known.untyped_storage().data_ptr() == memory:
                        del self._known[other]


def _tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _is_kept(tensor: Tensor) -> bool:
    """Whether its values are remembered; those of a sparse tensor always, since a graph has no other form of it."""
    return tensor.layout is not torch.strided or tensor.numel() <= _LARGEST


def _writes(name: str) -> bool:
    """Whether a function writes into its first argument."""
    if name.startswith("__"):
        return name in ("__setitem__", "__set__") or (name.startswith("__i") and name not in ("__invert__", "__iter__"))
    return name.endswith("_")


def _is_small(item: Any) -> bool:
    return not isinstance(item, FakeTensor) or (
        all(isinstance(size, int) for size in item.shape) and item.numel() <= _LARGEST
    )


def _chooses(args: Any) -> bool:
    """Whether these arguments of ``where`` or of indexing make the result's size depend on values."""
    if len(args) == 1:
        return True
    masks = [item for item in pytree.tree_leaves(args[1]) if isinstance(item, Tensor)]
    return any(mask.dtype in (torch.bool, torch.uint8) for mask in masks) and len(args) == 2

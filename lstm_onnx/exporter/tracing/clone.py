"""A copy of a module: its own module objects, attributes and tensors.

Everything that an export does to a module (eval mode, other classes for its LSTMs, states that its
forward leaves in attributes) happens to such a copy, so the caller's module is never touched: not
when an export fails, and not while another thread runs it.
"""

from __future__ import annotations

import functools
import itertools
import types
from collections import deque
from copy import copy as shallow
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ...errors import ExportError

_CONTAINERS = (list, set, frozenset, deque)


def cloned(module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy of `module` in eval mode.

    Parameters are copied as well as buffers and tensors in attributes, since a forward may write into
    any of them.  With a `dtype`, floating-point tensors are converted.  What is tied in the original is
    tied in the copy; objects that are neither modules, tensors nor containers, and hold no tensors, are shared.

    Raises:
        ExportError: a parameter has no values, since it is lazy or on the meta device.
    """
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if is_lazy(tensor):
            raise ExportError(f"{name} has no shape yet, since its module is lazy; call the module once first")
        if tensor.is_meta:
            raise ExportError(f"{name} is on the meta device, where weights have no values; load them first")
    copy = _Copier(dtype).of(module)
    assert isinstance(copy, nn.Module)  # noqa: S101 - a module's copy is one
    return copy.eval()


def with_open_len(copy: nn.Module) -> None:
    """Give the modules of a copy a ``len`` that leaves a traced tensor's first size open.

    ``view(len(sequence), 1, -1)`` stands in many a tutorial, and Python makes a plain number of
    whatever ``__len__`` returns.  Methods that use ``len``, and the functions of their own file that
    they call, are copied with globals of their own, so nothing changes for anybody else.
    """
    files: dict[int, dict[str, Any]] = {}
    kinds: dict[type, type] = {}
    for module in copy.modules():
        kind = type(module)
        if kind not in kinds:
            methods: dict[str, Any] = {}
            for owner in reversed(kind.__mro__):
                if not owner.__module__.startswith(("torch.", "builtins")):
                    methods |= {name: item for name, item in vars(owner).items() if _is_function(item)}
            patched = {name: _with_globals(item, files) for name, item in methods.items()}
            kinds[kind] = type(kind.__name__, (kind,), {**patched, "__module__": kind.__module__}) if patched else kind
        module.__class__ = kinds[kind]


def _is_function(item: object) -> bool:
    return isinstance(item, types.FunctionType) and not item.__module__.startswith("lstm_onnx.")


def _with_globals(function: types.FunctionType, files: dict[int, dict[str, Any]]) -> types.FunctionType:
    own = function.__globals__
    if id(own) not in files:
        table = files[id(own)] = {**own, "len": _open_len}
        for name, item in own.items():
            if isinstance(item, types.FunctionType) and item.__globals__ is own:
                table[name] = _rebuilt(item, table)
    return _rebuilt(function, files[id(own)])


def _rebuilt(function: types.FunctionType, table: dict[str, Any]) -> types.FunctionType:
    new = types.FunctionType(function.__code__, table, function.__name__, function.__defaults__, function.__closure__)
    new.__kwdefaults__ = function.__kwdefaults__
    new.__dict__.update(function.__dict__)
    new.__module__ = function.__module__
    return new


def _open_len(value: Any) -> Any:
    return value.shape[0] if isinstance(value, torch.Tensor) and value.dim() else len(value)


def _holds_tensors(value: Any) -> bool:
    """Whether a value is an object of a user's class that has tensors for attributes, as a dataclass of states has."""
    if isinstance(value, type) or not isinstance(getattr(value, "__dict__", None), dict):
        return False
    return any(isinstance(item, torch.Tensor) for item in vars(value).values())


class _Copier:
    """Copies with a memory, as copy.deepcopy has, so that shared objects stay shared."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        self.dtype = dtype
        self.memory: dict[int, Any] = {}
        self.kept: list[Any] = []  # an id is only good for as long as its object lives

    def of(self, value: Any) -> Any:
        if id(value) in self.memory:
            return self.memory[id(value)]
        self.kept.append(value)
        if isinstance(value, nn.Module):
            new = self.memory[id(value)] = value.__class__.__new__(value.__class__)
            # Past Module.__setattr__, which sorts values into tables that are copied here as they are.
            new.__dict__.update({name: self.of(item) for name, item in value.__dict__.items()})
            return new
        copy = self._other(value)
        self.memory[id(value)] = copy
        return copy

    def _other(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, dict):
            return self._dict(value)
        if isinstance(value, tuple):
            items = [self.of(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if type(value) in _CONTAINERS:
            return type(value)(self.of(item) for item in value)
        if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
            return types.MethodType(value.__func__, self.of(value.__self__))
        if _holds_tensors(value):
            holder = shallow(value)
            vars(holder).update({name: self.of(item) for name, item in vars(value).items()})
            return holder
        if isinstance(value, functools.partial):
            keywords = {name: self.of(item) for name, item in value.keywords.items()}
            return functools.partial(self.of(value.func), *map(self.of, value.args), **keywords)
        return value

    def _tensor(self, value: torch.Tensor) -> torch.Tensor:
        dtype = self.dtype if self.dtype is not None and value.is_floating_point() else value.dtype
        copy = value.detach().to(dtype, copy=True)
        return nn.Parameter(copy, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else copy

    def _dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        copy = value.copy()  # keeps the class, and a defaultdict's factory
        copy.update((key, self.of(item)) for key, item in value.items())
        return copy

"""A copy of a module: its own module objects, attributes and tensors.

Everything that an export changes in a module (eval mode, the classes of its LSTMs, states that its
forward leaves in attributes) is changed in such a copy.  The caller's module stays as it is, also when
an export fails or another thread runs it.
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
from ..wrappers import HookedWrapper, is_wrapper, plain_attributes, uncompiled, wrapped_module

_CONTAINERS = (list, set, frozenset, deque)


def clone_module(module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy of `module` in eval mode.

    Parameters, buffers and tensors in attributes are all copied, since a forward may write into any of
    them.  What is tied in the original is tied in the copy.  Other objects are shared, unless they are
    containers or have tensors as attributes.

    Args:
        module: it is not changed.
        dtype: floating-point tensors are converted to it; None keeps their dtypes.

    Raises:
        ExportError: a parameter has no values, since it is lazy or on the meta device.
    """
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if is_lazy(tensor):
            raise ExportError(f"{name} has no shape yet, since its module is lazy; call the module once first")
        if tensor.is_meta:
            raise ExportError(f"{name} is on the meta device, where weights have no values; load them first")
    copy = _Copier(dtype).of(module)
    assert isinstance(copy, nn.Module)  # noqa: S101 - the copy of a module is one
    return copy.eval()


def keep_len_symbolic(copy: nn.Module) -> None:
    """Make ``len`` of a traced tensor symbolic in the code of a copy's modules.

    Python converts what ``__len__`` returns to an int, so that ``view(len(sequence), 1, -1)`` would fix
    the size.  The methods of the modules' classes, and the functions of the same file that they call, are
    copied with globals in which ``len`` is another function; the originals stay as they are.
    """
    files: dict[int, dict[str, Any]] = {}
    kinds: dict[type, type] = {}
    for module in copy.modules():
        kind = type(module)
        if kind not in kinds:
            methods: dict[str, Any] = {}
            for owner in reversed(kind.__mro__):
                if not owner.__module__.startswith(("torch.", "builtins")):
                    own = {name: uncompiled(item) for name, item in vars(owner).items()}
                    methods |= {name: item for name, item in own.items() if _is_function(item)}
            patched = {name: _with_globals(item, files) for name, item in methods.items()}
            kinds[kind] = type(kind.__name__, (kind,), {**patched, "__module__": kind.__module__}) if patched else kind
        module.__class__ = kinds[kind]


def _is_function(item: object) -> bool:
    return isinstance(item, types.FunctionType) and not item.__module__.startswith("lstm_onnx.")


def _with_globals(function: types.FunctionType, files: dict[int, dict[str, Any]]) -> types.FunctionType:
    own = function.__globals__
    if id(own) not in files:
        table = files[id(own)] = {**own, "len": _symbolic_len}
        for name, item in own.items():
            item = uncompiled(item)
            if isinstance(item, types.FunctionType) and item.__globals__ is own:
                table[name] = _rebuilt(item, table)
    return _rebuilt(function, files[id(own)])


def _rebuilt(function: types.FunctionType, table: dict[str, Any]) -> types.FunctionType:
    new = types.FunctionType(function.__code__, table, function.__name__, function.__defaults__, function.__closure__)
    new.__kwdefaults__ = function.__kwdefaults__
    new.__dict__.update(function.__dict__)
    new.__module__ = function.__module__
    return new


def _symbolic_len(value: Any) -> Any:
    return value.shape[0] if isinstance(value, torch.Tensor) and value.dim() else len(value)


def _holds_tensors(value: Any) -> bool:
    """Whether a value is an object that has tensors as attributes, such as a dataclass of states."""
    if isinstance(value, type) or not isinstance(getattr(value, "__dict__", None), dict):
        return False
    return any(isinstance(item, torch.Tensor) for item in vars(value).values())


class _Copier:
    """Copies with a memo, like copy.deepcopy, so that shared objects stay shared."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        self.dtype = dtype
        self.memo: dict[int, Any] = {}
        self.alive: list[Any] = []  # keeps the objects alive whose ids are in the memo

    def of(self, value: Any) -> Any:
        if id(value) in self.memo:
            return self.memo[id(value)]
        self.alive.append(value)
        if isinstance(value, nn.Module):
            return self._module(value)
        copy = self._other(value)
        self.memo[id(value)] = copy
        return copy

    def _module(self, value: nn.Module) -> nn.Module:
        inner = wrapped_module(value)
        if inner is not None:
            copy: nn.Module = self.of(inner)
            self.memo[id(value)] = copy
            # Code that reaches into the wrapper, as by ``self.encoder.module.lstm``, finds the module itself.
            name = next(name for name, part in value._modules.items() if part is inner)
            if not hasattr(copy, name):
                copy.__dict__[name] = copy
            return copy
        kind = HookedWrapper if is_wrapper(value) else value.__class__
        # Not by its own __new__, which may take arguments, and in a torch.fx.GraphModule makes a class without forward.
        new: nn.Module = object.__new__(kind)
        self.memo[id(value)] = new
        # Not by Module.__setattr__, which would sort values into tables; those are copied themselves.
        new.__dict__.update({name: self.of(item) for name, item in plain_attributes(value).items()})
        return new

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

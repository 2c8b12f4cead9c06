"""A deep snapshot of a module and all that is reachable from it, to show that nothing of the caller's has changed.

Objects are compared by identity, tensors also by version and bytes, containers by their items, functions by what
they close over, and torch's, numpy's and Python's global states by value.
"""

from __future__ import annotations

import array
import collections
import functools
import random
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as torch_module

_ATOMIC = (type(None), bool, int, float, complex, str, bytes, types.ModuleType, torch.dtype, torch.device)
_GLOBAL_HOOKS = [name for name in vars(torch_module) if name.startswith("_global_") and name.endswith("hooks")]


class Snapshot:
    """What a module, and other objects of the caller's, are at the time."""

    def __init__(self, module: nn.Module, *others: Any) -> None:
        self.roots = [module, *others]
        self.alive: list[Any] = []
        self.before = self._taken()

    def _taken(self) -> dict[str, Any]:
        found: dict[str, Any] = {"the global states": _global_states()}
        seen: dict[int, str] = {}
        todo = [(f"root {index}", root) for index, root in enumerate(self.roots)]
        while todo:
            where, value = todo.pop()
            if type(value) in _ATOMIC or id(value) in seen:
                continue
            seen[id(value)] = where
            self.alive.append(value)  # so that no other object gets its id
            parts = list(_parts(value))
            found[where] = (id(value), type(value), _own(value), [(name, _identity(part)) for name, part in parts])
            todo += [(f"{where}{name}", part) for name, part in parts]
        return found

    def differences(self) -> list[str]:
        """Where something is not as it was."""
        now = self._taken()
        return sorted(
            where
            for where in {*self.before, *now}
            if where not in now or where not in self.before or self.before[where] != now[where]
        )

    def require_unchanged(self) -> None:
        """Fail with the places that changed."""
        assert self.differences() == []


def _global_states() -> tuple[Any, ...]:
    hooks = [list(getattr(torch_module, name).items()) for name in _GLOBAL_HOOKS]
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        str(np.random.get_state()),  # noqa: NPY002 - the caller's
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        nn.Module.__setattr__,
        nn.LSTM.forward,
        hooks,
    )


def _identity(value: Any) -> Any:
    return (type(value), value) if type(value) in _ATOMIC else id(value)


def _own(value: Any) -> Any:
    """What an object is beside its parts."""
    if isinstance(value, torch.Tensor):
        inference = value.is_inference()
        version = None if inference else value._version
        content = value.detach().cpu().numpy().tobytes()
        return version, value.requires_grad, id(value.grad_fn), value.dtype, tuple(value.shape), content
    if isinstance(value, (np.ndarray, array.array)):
        return value.tobytes()
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, random.Random):
        return value.getstate()
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds, with how it is reached."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", item) for key, item in dict.items(value))
    elif isinstance(value, (list, tuple, collections.deque)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((f"{{{id(item)}}}", item) for item in value)
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, types.MethodType):
        yield from ((".__self__", value.__self__), (".__func__", value.__func__))
    elif isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    yield from _attributes(value)


def _of_function(value: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        yield f"<{name}>", cell.cell_contents
    yield ".__defaults__", value.__defaults__
    if not value.__module__.startswith(("torch", "functools")):
        names = [name for name in value.__code__.co_names if name in value.__globals__]
        yield from ((f"<global {name}>", value.__globals__[name]) for name in names)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, type):
        if not value.__module__.startswith(("torch", "builtins", "abc")):
            yield from ((f".{name}", item) for name, item in vars(value).items() if not name.startswith("__"))
        return
    if type(value).__module__.startswith(("torch.utils", "logging", "_thread", "_io", "numpy")):
        return
    if isinstance(getattr(value, "__dict__", None), dict) and value.__dict__ is not value:
        yield from ((f".{name}", item) for name, item in vars(value).items())
    for base in type(value).__mro__:
        slots = [item for item in vars(base).values() if isinstance(item, types.MemberDescriptorType)]
        if base.__module__.startswith("tests."):
            yield from ((f".{slot.__name__}", slot.__get__(value)) for slot in slots)
    if isinstance(value, nn.Module):
        yield ".__class__", type(value)

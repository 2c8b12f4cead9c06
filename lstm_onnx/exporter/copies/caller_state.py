"""Restores global state of torch, numpy and Python that a run of the user's code changes."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.parameter import is_lazy

_GLOBAL_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks")
_BACKWARD_HOOKS = ("_global_backward_pre_hooks", "_global_backward_hooks")

ONE_AT_A_TIME = threading.RLock()
"""Held by each export and each verification, since what they change belongs to the whole process: torch's default
dtype, number of threads and tracer, the packing functions that are replaced, Python's warning filters and random
states."""
_LARGE = 1_000_000
"""With this many parameters or more, several threads make a module's calls faster."""


@contextlib.contextmanager
def one_thread_if_small(module: nn.Module) -> Iterator[None]:
    """A context in which PyTorch computes a small module on one thread.

    Its threads wait for each other at every operator.  If there are more of them than free CPUs (in a container on a
    large machine, or beside other work), the many short calls of an export and a verification take a hundred times as
    long.
    """
    before = torch.get_num_threads()
    if sum(parameter.numel() for parameter in module.parameters() if not is_lazy(parameter)) < _LARGE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def caller_state_kept() -> Iterator[None]:
    """A context without inference mode, which restores random states and the default dtype at its end.

    Only one thread at a time can be in it.
    """
    with ONE_AT_A_TIME:
        # Inference tensors cannot be traced; gradients stay off.
        grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
        python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - which users' code still draws from
        torch_state = torch.get_rng_state()
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        try:
            with torch.inference_mode(False), torch.set_grad_enabled(grad):
                yield
        finally:
            torch.set_default_dtype(dtype)
            random.setstate(python)
            np.random.set_state(numbers)  # noqa: NPY002
            torch.set_rng_state(torch_state)
            torch.cuda.set_rng_state_all(devices)


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """A context in which the attribute `name` of a class, module or function has another value."""
    own = vars(owner)[name] if name in vars(owner) else getattr(owner, name)  # vars gives a classmethod itself
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, own)


def global_hooks() -> dict[str, list[tuple[int, Any]]]:
    """The global hooks, by the name of the module attribute that holds a module's own hooks of that kind."""
    return {
        name.removeprefix("_global"): list(getattr(torch_module, name, {}).items())
        for name in _GLOBAL_HOOKS
        if getattr(torch_module, name, {})
    }


@contextlib.contextmanager
def without_global_hooks() -> Iterator[None]:
    """A context without global hooks in this thread: the copied modules have copies of them as their own hooks."""
    tables = [getattr(torch_module, name, {}) for name in (*_GLOBAL_HOOKS, *_BACKWARD_HOOKS)]
    own = [dict(table) for table in tables]
    thread = threading.get_ident()

    def in_other_threads(hook: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            return None if threading.get_ident() == thread else hook(*args, **kwargs)

        return called

    for table, hooks in zip(tables, own, strict=True):
        table.update({key: in_other_threads(hook) for key, hook in hooks.items()})
    try:
        yield
    finally:
        for table, hooks in zip(tables, own, strict=True):
            table.update({key: hook for key, hook in hooks.items() if key in table})


def add_hooks(module: nn.Module, hooks: dict[str, list[tuple[int, Any]]]) -> None:
    """Add global hooks to this module, before its own."""
    for name, items in hooks.items():
        own = module.__dict__[name]
        module.__dict__[name] = type(own)([*items, *own.items()])
    for suffix in ("_forward_hooks_with_kwargs", "_forward_hooks_always_called"):
        module.__dict__[suffix].update(getattr(torch_module, f"_global{suffix}", {}))

"""A copy of a module: its own module objects, attributes and tensors.

Everything that an export changes in a module (eval mode, the classes of its LSTMs, states that its forward stores in
attributes) is changed in such a copy.  The caller's module stays as it is, even if an export fails or another thread
runs it.
"""

from __future__ import annotations

import enum
import itertools
import os
import weakref
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ...errors import ExportError
from ..user_code import is_library
from .caller_state import add_hooks, global_hooks
from .code_names import HOOKS, CodeNames, code_names, user_classes
from .contents import Environment, Shared, Variable
from .copier import Copier
from .object_parts import mutable_parts

_UNUSED_HOOKS = (
    *("_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks", "_state_dict_pre_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)
"""Hooks that are not called without gradients."""


@dataclass(frozen=True)
class Clone:
    """A copy of a module.

    Attributes:
        module: the copy.
        mutable: what else code may write into: copied containers, objects and closure cells, and what the copy shares
            with the original.
        shared: tensors that share memory with another one in the original, and share none here.
    """

    module: nn.Module
    mutable: tuple[Any, ...]
    shared: tuple[torch.Tensor, ...]


def clone_module(module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """The module of `clone`."""
    return clone(module, dtype).module


def clone(module: nn.Module, dtype: torch.dtype | None = None) -> Clone:
    """A copy of `module` in eval mode.

    Parameters, buffers and tensors in attributes are all copied, since a forward may write into any of
    them, and so are containers, the user's own objects, and functions that close over any of these or
    over the module: hooks, lambdas, a forward set on the instance.  What is tied in the original is tied in
    the copy.  Objects of libraries are shared (see `Copier`).

    Args:
        module: not changed.
        dtype: floating-point tensors are converted to it; None keeps their dtypes.

    Raises:
        ExportError: a parameter has no values, since it is lazy or on the meta device.
    """
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if is_lazy(tensor):
            raise ExportError(
                f"{name} has no shape yet, since its module is lazy; call the module once before the export"
            )
        if tensor.is_meta:
            raise ExportError(f"{name} is on the meta device, where weights have no values; load the weights first")
    hooks = global_hooks()
    names = code_names(module, [hook for items in hooks.values() for _, hook in items])
    addressed = (*module.modules(), *module.parameters(), *module.buffers())
    _refuse_keys(names, set(map(id, addressed)))
    copier = Copier(dtype, _packages(module), names, addressed)
    with torch.inference_mode(False):
        copy: nn.Module = copier.of(module)
        hooks = {name: [(key, copier.of(hook)) for key, hook in items] for name, items in hooks.items()}
        copier.finish()
    for part in copy.modules():
        add_hooks(part, hooks)
        parameters: dict[str, Any] = part._parameters
        for name, tensor in parameters.items():
            if tensor is not None and not isinstance(tensor, nn.Parameter):
                # Code that computes a weight may store a plain tensor here; torch.export accepts only parameters.
                parameters[name] = nn.Parameter(tensor, requires_grad=False)
        for table in (parameters, part._buffers):
            sparse = {name: item for name, item in table.items() if item is not None and item.layout != torch.strided}
            for name in sparse:
                del table[name]
            part.__dict__.update(sparse)  # torch.export accepts no sparse buffers
        for name in _UNUSED_HOOKS:
            if part.__dict__.get(name):
                part.__dict__[name] = type(part.__dict__[name])()
    copy.eval()  # not `copy = copy.eval()`: a user's own eval() may return nothing
    shared = _shared(copy, names, copier.shared)
    inside = [value for part in shared if isinstance(part, Variable) for value in part.content().values()]
    held = mutable_parts([*names.held, *inside], _packages(module))
    return Clone(copy, (*copier.mutable, *shared, *held), copier.memory.copies())


def _shared(copy: nn.Module, names: CodeNames, objects: Sequence[Any]) -> list[Any]:
    """What a copy shares with its original, and its own classes, as far as code may write into them."""
    classes = [kind for part in copy.modules() for kind in user_classes(type(part))]
    members = [item for kind in names.shared if isinstance(kind, enum.EnumMeta) for item in vars(kind).values()]
    members = [item for item in members if isinstance(item, enum.Enum)]
    owners = {id(owner): owner for owner in (*classes, *names.shared, *members, *objects)}
    written = frozenset(names.stored)
    found: list[Any] = list(names.functions)
    for owner in owners.values():
        if isinstance(owner, ContextVar):
            found.append(Variable(owner))
        elif owner is os.environ:
            found.append(Environment(owner))
        elif written and hasattr(owner, "__dict__"):
            found.append(Shared(owner, written))
    return found


def _refuse_keys(names: CodeNames, ids: set[int]) -> None:
    """Refuse code that looks up a part of a module in a class's dict or set, which is not copied with the module."""
    kinds = {id(table[name]): table[name] for table, used in names.tables.values() for name in used}
    for kind in kinds.values():
        if not isinstance(kind, type) or is_library(kind.__module__) or issubclass(kind, nn.Module):
            continue
        for name in sorted(names.attributes & vars(kind).keys()):
            held = vars(kind)[name]
            if isinstance(held, (dict, set, weakref.WeakKeyDictionary)) and any(
                id(key) in ids or (type(key) is int and key in ids) for key in list(held)
            ):
                raise ExportError(
                    f"{kind.__name__}.{name} has the module or a part of it as a key, and the exported copy has no "
                    "entry there; keep what belongs to a module in its attributes"
                )


def _packages(module: nn.Module) -> frozenset[str]:
    """The top-level packages of the user's code: of the modules' own classes, and of their hooks."""
    names = {type(part).__module__ for part in module.modules()}
    for part in module.modules():
        for table in HOOKS:
            names |= {
                getattr(hook, "__module__", None) or type(hook).__module__
                for hook in vars(part).get(table, {}).values()
            }
    return frozenset(name.partition(".")[0] for name in names if not is_library(name))

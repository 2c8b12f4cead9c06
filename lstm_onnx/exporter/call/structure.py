"""The nesting of a forward's arguments: which tensors go where, in which containers, beside which constants.

A call is taken apart into named tensors and rebuilt from other tensors: to trace it, to run it at other sizes, and,
with a file's metadata, to verify it without an example.  Containers are those of pytree, subclasses of dict, list and
tuple, dataclasses, and plain objects that hold tensors in attributes.
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import ConfigError, ExportError
from ..copies.object_parts import slots_of

POSITIONAL, STAR, KEYWORD = "positional", "*", "keyword"
_DEEPEST = 50


@dataclass(frozen=True)
class TensorNode:
    """The place of a tensor, by its name."""

    name: str


@dataclass(frozen=True)
class ConstantNode:
    """A value that is not a tensor and holds none, such as None or a flag."""

    value: Any


@dataclass(frozen=True)
class ContainerNode:
    """A container with tensors or constants in it.

    Attributes:
        kind: the type whose structure it has: list, tuple, dict or object; "namedtuple"; or "pytree" for any other
            class that is registered with pytree.
        cls: its class.
        keys: the keys, indices or attribute names of its items.
        items: its items.
        attributes: those of a subclass of a built-in type, besides its items.
        spec: pytree's own description of it, for the kind "pytree".
    """

    kind: str
    cls: type
    keys: tuple[Any, ...]
    items: tuple[Node, ...]
    attributes: ContainerNode | None = None
    spec: Any = None


Path = tuple[tuple[int | None, Any], ...]
"""The position and key in each container on the way to a tensor; an attribute beside the items has no position."""
Node = TensorNode | ConstantNode | ContainerNode


@dataclass(frozen=True)
class Argument:
    """One argument of a call: its name, how it is passed (POSITIONAL, STAR for ``*args``, KEYWORD), and its value."""

    name: str
    passed: str
    value: Node


Call = tuple[Argument, ...]
"""The arguments of a forward, in its order."""


def arguments_of(bound: inspect.BoundArguments) -> list[tuple[str, str, Any]]:
    """The name, way of passing and value of each argument, in the order of ``bound.args`` and ``bound.kwargs``."""
    found: list[tuple[str, str, Any]] = []
    by_position = True
    for name, parameter in bound.signature.parameters.items():
        if name not in bound.arguments:
            by_position = by_position and parameter.kind is parameter.VAR_POSITIONAL
            continue
        value = bound.arguments[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            found += [(key, KEYWORD, item) for key, item in value.items()]
        elif parameter.kind is parameter.VAR_POSITIONAL:
            found.append((name, STAR, value))
        else:
            positional = by_position and parameter.kind is not parameter.KEYWORD_ONLY
            found.append((name, POSITIONAL if positional else KEYWORD, value))
    return found


def take_apart(value: Any, name: str, add: Callable[[str, Tensor, Path], None], path: Path = ()) -> Node:
    """The structure of an argument.

    Args:
        value: the argument; numpy arrays become tensors.
        name: its name; keys inside it are appended.
        add: called with each tensor's name, the tensor, and its path.
        path: of `value`.

    Raises:
        ExportError: something holds tensors that cannot be replaced by others.
        ConfigError: containers hold themselves, or are nested too deep.
    """
    if len(path) > _DEEPEST:
        raise ConfigError(f"{name.split('.')[0]} holds containers nested more than {_DEEPEST} deep")
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, Tensor):
        add(name, value, path)
        return TensorNode(name)
    kind, items, spec = _items(value)
    if kind is None:
        if _holds_tensors(value):
            raise ExportError(
                f"{name} is a {type(value).__name__}, which holds tensors in an unknown way, so they would become "
                "constants in the file; pass them in a tuple, list, dict, NamedTuple or dataclass"
            )
        return ConstantNode(value)
    nodes = [
        take_apart(item, f"{name}.{key}", add, (*path, (position, key)))
        for position, (key, item) in enumerate(items.items())
    ]
    attributes = None
    own = getattr(value, "__dict__", None)
    if kind in ("list", "tuple", "dict", "namedtuple") and own is not None:
        if own is value:  # class AttrDict(dict): self.__dict__ = self
            attributes = ContainerNode("self", dict, (), ())
        elif own:
            extra = [take_apart(item, f"{name}.{key}", add, (*path, (None, key))) for key, item in own.items()]
            attributes = ContainerNode("dict", dict, tuple(own), tuple(extra))
    return ContainerNode(kind, type(value), tuple(items), tuple(nodes), attributes, spec)


def _items(value: Any) -> tuple[str | None, dict[Any, Any], Any]:
    """The kind of a container, its items by key, and pytree's description of it; None for a constant."""
    cls: Any = type(value)
    if cls in (list, tuple):
        return cls.__name__, dict(enumerate(value)), None
    if cls is dict:
        return "dict", value, None
    if isinstance(value, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        return "namedtuple", dict(zip(cls._fields, value, strict=True)), None
    if cls in pytree.SUPPORTED_NODES and not isinstance(value, torch.Size):
        return "pytree", *registered_items(value)
    if dataclasses.is_dataclass(value) or cls is types.SimpleNamespace:
        return "object", _attributes(value), None
    if _holds_tensors(value):
        for base in (collections.OrderedDict, dict, list, tuple):
            if isinstance(value, base) and has_new_of(cls, base):
                is_dict = issubclass(base, dict)
                return ("dict", dict(value), None) if is_dict else (base.__name__, dict(enumerate(value)), None)
        if has_new_of(cls, object) and hasattr(value, "__dict__") and not callable(value):
            return "object", _attributes(value), None
    return None, {}, None


def has_new_of(cls: Any, base: Any) -> bool:
    """Whether instances of a class can be made like those of a built-in class: it has the same ``__new__``."""
    return bool(cls.__new__ is base.__new__)


def registered_items(value: Any) -> tuple[dict[Any, Any], Any]:
    """The items of a container of a class that is registered as a pytree, by key, and pytree's description of it.

    If its class was registered without a function for keys, they are the names of the attributes that hold the items,
    or else their positions.
    """
    if pytree.SUPPORTED_NODES[type(value)].flatten_with_keys_fn is not None:
        pairs, spec = pytree.tree_flatten_with_path(value, is_leaf=lambda item: item is not value)
        return {key_of(path[0]): item for path, item in pairs}, spec
    items, spec = pytree.tree_flatten(value, is_leaf=lambda item: item is not value)
    names = [name for name, item in _attributes(value).items() if any(item is one for one in items)]
    if len(names) == len(items) and all(getattr(value, name) is item for name, item in zip(names, items, strict=True)):
        return dict(zip(names, items, strict=True)), spec
    return dict(enumerate(items)), spec


def key_of(entry: Any) -> Any:
    """The key, index or attribute name of a pytree path's entry."""
    return next((getattr(entry, kind) for kind in ("key", "idx", "name") if hasattr(entry, kind)), entry)


def _attributes(value: Any) -> dict[str, Any]:
    """An object's attributes: the fields of a dataclass first, then all others."""
    names = [item.name for item in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    names += [*getattr(value, "__dict__", {}), *(slot.__name__ for slot in slots_of(type(value)))]
    return {name: getattr(value, name) for name in dict.fromkeys(names) if hasattr(value, name)}


def _holds_tensors(value: Any, depth: int = 4) -> bool:
    if isinstance(value, (Tensor, np.ndarray)):
        return True
    if depth == 0 or isinstance(value, (nn.Module, type, types.ModuleType, types.FunctionType)):
        return False
    inner = list(_attributes(value).values())
    if isinstance(value, Mapping):
        inner += list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner += list(value)
    return any(_holds_tensors(item, depth - 1) for item in inner)


def put_together(call: Call, tensors: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """``(args, kwargs)`` with these tensors, or other objects, in the tensors' places, in new containers."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in call:
        value = _built(argument.value, tensors)
        if argument.passed == KEYWORD:
            kwargs[argument.name] = value
        elif argument.passed == STAR:
            args += value
        else:
            args.append(value)
    return tuple(args), kwargs


def _built(node: Node, tensors: Mapping[str, Any]) -> Any:
    if isinstance(node, TensorNode):
        return tensors[node.name]
    if isinstance(node, ConstantNode):
        return node.value
    items = [_built(item, tensors) for item in node.items]
    cls: Any = node.cls
    if node.kind == "pytree":
        return pytree.tree_unflatten(items, node.spec)
    if node.kind == "namedtuple" or node.kind == "tuple":
        made = tuple.__new__(cls, items)
    elif node.kind == "list":
        made = list.__new__(cls)
        list.extend(made, items)
    elif node.kind == "dict":
        base = collections.OrderedDict if issubclass(cls, collections.OrderedDict) else dict
        made = base.__new__(cls)
        base.update(made, zip(node.keys, items, strict=True))
    else:
        # Without __init__, which would process values that it has already processed.
        made = types.SimpleNamespace() if cls is types.SimpleNamespace else object.__new__(cls)
        for key, item in zip(node.keys, items, strict=True):
            object.__setattr__(made, key, item)
    if node.attributes is not None:
        made.__dict__ = made if node.attributes.kind == "self" else _built(node.attributes, tensors)
    return made


def constants(call: Call) -> Iterator[tuple[str, Any]]:
    """The values in a call that are not tensors, in order, each with its name."""
    for argument in call:
        yield from _constants(argument.value, argument.name)


def _constants(node: Node, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, ConstantNode):
        yield name, node.value
    elif isinstance(node, ContainerNode):
        for key, item in zip(node.keys, node.items, strict=True):
            yield from _constants(item, f"{name}.{key}")
        if node.attributes is not None:
            yield from _constants(node.attributes, name)


def as_dynamic_shapes(call: Call, values: Mapping[str, Any]) -> dict[str, Any]:
    """A value for each tensor, by argument and nested like the arguments.

    Containers become dicts, lists and tuples, which can be printed and pasted; anything without tensors becomes None,
    and an argument without tensors is left out.
    """
    found = {argument.name: _nested(argument.value, values) for argument in call}
    return {name: value for name, value in found.items() if value is not None}


def _nested(node: Node, values: Mapping[str, Any]) -> Any:
    if isinstance(node, TensorNode):
        return values[node.name]
    if isinstance(node, ConstantNode):
        return None
    items = [_nested(item, values) for item in node.items]
    if all(item is None for item in items):
        return None
    if node.kind in ("dict", "object") or issubclass(node.cls, dict):
        return dict(zip(node.keys, items, strict=True))
    return items if node.kind == "list" else tuple(items)

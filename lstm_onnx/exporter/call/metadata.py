"""Writes the nesting of a forward's arguments as JSON for a file's metadata, and reads it back.

A file names classes, but nothing is imported because of that.  A class is looked up in the module's own code (the
annotations, globals and closures of its methods), and used only if it has the recorded fields.  If it is
not found, a class with the same fields takes its place.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import inspect
import keyword
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ...errors import ConfigError
from ..copies.rebuilt_code import closure_values
from .structure import (
    KEYWORD,
    POSITIONAL,
    STAR,
    Argument,
    Call,
    ConstantNode,
    ContainerNode,
    Node,
    TensorNode,
    has_new_of,
    take_apart,
)

_PLAIN = (type(None), bool, int, str)
_DEEPEST = 60


def call_to_json(call: Call) -> list[Any]:
    """A call as JSON: ``[name, passed, value]`` for each argument.

    Classes are named without their modules: the module name of a script, or of a file loaded by its path, may change.
    """
    return [[argument.name, argument.passed, _to_json(argument.value)] for argument in call]


def _to_json(node: Node) -> dict[str, Any]:
    if isinstance(node, TensorNode):
        return {"tensor": node.name}
    if isinstance(node, ConstantNode):
        return _constant_to_json(node.value)
    items = [_to_json(item) for item in node.items]
    if node.attributes is None:
        if node.cls in (list, tuple):
            return {node.kind: items}
        if node.cls in (dict, collections.OrderedDict):
            keys = map(_constant_to_json, node.keys)
            return {node.cls.__name__: [list(pair) for pair in zip(keys, items, strict=True)]}
        named = all(isinstance(key, str) for key in node.keys) and (
            node.kind != "pytree" or _is_made_of_its_items(node)
        )
        if named and (node.kind in ("namedtuple", "object") or dataclasses.is_dataclass(node.cls)):
            kind = "dataclass" if dataclasses.is_dataclass(node.cls) else node.kind
            return {kind: node.cls.__qualname__, "items": list(map(list, zip(node.keys, items, strict=True)))}
    return {"unknown": node.cls.__qualname__}


def _constant_to_json(value: Any) -> dict[str, Any]:
    if isinstance(value, enum.Enum):
        return {"enum": type(value).__qualname__, "member": value.name}
    if type(value) in _PLAIN:
        return {"value": value}
    if type(value) is float:
        return {"value": value} if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, torch.Size):
        return {"Size": list(value)}
    return {"unknown": type(value).__qualname__}


def call_from_json(entries: Any, module: nn.Module) -> tuple[Call, tuple[str, ...]]:
    """A call as `call_to_json` wrote it.

    Args:
        entries: the JSON.
        module: the module that is called; classes are looked for in its code.

    Returns:
        The call, and the names of classes that were not found and are replaced by others with the same fields.

    Raises:
        ConfigError: it is not as this version writes it, or holds something that JSON cannot express; the message says
            to pass example_inputs.
    """
    reader = _Reader(module)
    try:
        return tuple(reader.argument(*entry) for entry in entries), tuple(reader.replaced)
    except ConfigError:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RuntimeError, RecursionError) as error:
        raise ConfigError(f"the metadata lstm_onnx.call is damaged ({error})", hint="export the model again") from error


class _Reader:
    """Reads a call; see `call_from_json`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.replaced: dict[str, None] = {}
        self._classes: dict[str, list[type]] | None = None

    def argument(self, name: str, passed: str, value: Mapping[str, Any]) -> Argument:
        if passed not in (POSITIONAL, STAR, KEYWORD) or not isinstance(name, str):
            raise ValueError(f"argument {name!r}")
        node = self.node(value, name)
        if passed == STAR and not (isinstance(node, ContainerNode) and node.cls is tuple):
            raise ValueError(f"*{name} is not a tuple")
        return Argument(name, passed, node)

    def node(self, item: Mapping[str, Any], name: str, depth: int = 0) -> Node:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deep")
        kind, content = _kind_of(item)
        if kind == "tensor":
            return TensorNode(_text(content))
        if kind in ("list", "tuple"):
            nodes = tuple(self.node(each, f"{name}.{index}", depth + 1) for index, each in enumerate(content))
            return ContainerNode(kind, list if kind == "list" else tuple, tuple(range(len(nodes))), nodes)
        if kind in ("dict", "OrderedDict"):
            keys = tuple(self.constant(key, name) for key, _ in content)
            nodes = tuple(
                self.node(each, f"{name}.{key}", depth + 1) for key, (_, each) in zip(keys, content, strict=True)
            )
            return ContainerNode("dict", dict if kind == "dict" else collections.OrderedDict, keys, nodes)
        if kind in ("namedtuple", "dataclass", "object"):
            nodes = tuple(self.node(each, f"{name}.{key}", depth + 1) for key, each in item["items"])
            return self.instance(kind, _text(content), tuple(_text(key) for key, _ in item["items"]), nodes)
        return ConstantNode(self.constant(item, name))

    def constant(self, item: Mapping[str, Any], name: str) -> Any:
        kind, content = _kind_of(item)
        if kind == "value":
            if type(content) not in (*_PLAIN, float):
                raise ValueError(f"a constant {content!r}")
            return content
        if kind == "float":
            return float(_text(content))
        if kind == "dtype":
            dtype = getattr(torch, _text(content), None)
            if not isinstance(dtype, torch.dtype):
                raise ValueError(f"a dtype {content}")
            return dtype
        if kind == "device":
            return torch.device(_text(content))
        if kind == "Size":
            return torch.Size(content)
        if kind == "enum":
            for cls in self.classes_of(content):
                if issubclass(cls, enum.Enum) and item["member"] in cls.__members__:
                    return cls[item["member"]]
            raise ConfigError(
                f"{name} was {content}.{item['member']} in the export, and the module's code names no such class",
                hint="pass example_inputs",
            )
        if kind == "unknown":
            raise ConfigError(
                f"{name} was a {content} in the export, which the metadata cannot hold", hint="pass example_inputs"
            )
        raise ValueError(f"an unknown kind {kind!r}")

    def instance(self, kind: str, cls_name: str, keys: tuple[str, ...], items: tuple[Node, ...]) -> Node:
        if not all(key.isidentifier() and not keyword.iskeyword(key) for key in keys):
            raise ValueError(f"fields {', '.join(keys)}")
        cls = next((cls for cls in self.classes_of(cls_name) if _FITS[kind](cls, keys)), None)
        if cls is None and cls_name != types.SimpleNamespace.__qualname__:
            self.replaced[cls_name] = None
        if kind == "namedtuple":
            found = cls or collections.namedtuple(cls_name.rpartition(".")[2], keys)
            return ContainerNode("namedtuple", found, keys, items)
        return _registered(cls, keys, items) or ContainerNode("object", cls or types.SimpleNamespace, keys, items)

    def classes_of(self, name: str) -> list[type]:
        """The classes of this name in the module's code."""
        if self._classes is None:
            self._classes = reachable_classes(self.module)
        return self._classes.get(name, [])


def _kind_of(item: Mapping[str, Any]) -> tuple[str, Any]:
    return next((kind, content) for kind, content in item.items() if kind not in ("items", "member"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _is_dataclass(cls: type, keys: tuple[str, ...]) -> bool:
    """Whether it is a dataclass with these fields; a registered one may have more, since None was left out."""
    if not dataclasses.is_dataclass(cls):
        return False
    names = [item.name for item in dataclasses.fields(cls)]
    return set(keys) <= set(names) if cls in pytree.SUPPORTED_NODES else set(names) <= set(keys)


_FITS: Mapping[str, Callable[[type, tuple[str, ...]], bool]] = {
    "namedtuple": lambda cls, keys: issubclass(cls, tuple) and getattr(cls, "_fields", None) == keys,
    "dataclass": _is_dataclass,
    "object": lambda cls, _: has_new_of(cls, object) and not issubclass(cls, (nn.Module, enum.Enum)),
}
"""By kind of instance: whether a class with these field names may be its class."""


def _registered(cls: type | None, keys: tuple[str, ...], items: tuple[Node, ...]) -> ContainerNode | None:
    """An instance of a class that is registered with pytree, such as transformers' ModelOutput."""
    if cls is None or cls not in pytree.SUPPORTED_NODES:
        return None
    found = take_apart(cls(**{key: torch.zeros(1) for key in keys}), "", lambda *_: None)
    if not isinstance(found, ContainerNode) or found.keys != keys:
        raise ConfigError(f"a {cls.__qualname__} cannot be made from {', '.join(keys)}", hint="pass example_inputs")
    return dataclasses.replace(found, items=items)


def _is_made_of_its_items(node: ContainerNode) -> bool:
    """Whether a container of a registered class holds nothing besides its items.

    ``unflatten`` may restore something else, such as a flag for training, which is not among the items.
    """
    if not dataclasses.is_dataclass(node.cls):
        return False
    try:
        found = _registered(node.cls, node.keys, node.items)
    except Exception:  # noqa: BLE001 - the class may raise anything
        return False
    return found is not None and bool(found.spec == node.spec)


def reachable_classes(module: nn.Module) -> dict[str, list[type]]:
    """The classes that the code of a module and its submodules can reach by name, by their qualified names.

    Nothing is imported, and none of their code runs.  Those in the annotations of methods come first.
    """
    found: dict[type, None] = {}
    functions = list(dict.fromkeys(_functions(module)))
    for function in functions:
        for annotation in _annotations(function):
            _add(annotation, found)
    for function in functions:
        for value in (*closure_values(function), *function.__globals__.values()):
            if isinstance(value, type):
                _add(value, found)
    for part in {type(part) for part in module.modules()}:
        _add_nested(part, found)
    for function in functions:
        for cls in _in_imported_modules(function):
            _add(cls, found)
    by_name: dict[str, list[type]] = {}
    for cls in found:
        by_name.setdefault(cls.__qualname__, []).append(cls)
    return by_name


def _in_imported_modules(function: types.FunctionType) -> Iterator[type]:
    """Classes in modules that a function names, as in `states.RNNStates`; only those that hold plain data."""
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, types.ModuleType):
            yield from (inner for inner in list(vars(value).values()) if isinstance(inner, type) and _is_data(inner))


def _functions(module: nn.Module) -> Iterator[types.FunctionType]:
    """The functions of the classes of the module and its submodules, except torch's own."""
    for part in module.modules():
        own = [value for value in vars(part).values() if callable(value) and not isinstance(value, nn.Module)]
        classes = [cls for cls in type(part).__mro__ if not cls.__module__.startswith("torch.") and cls is not object]
        for value in (*own, *(value for cls in classes for value in vars(cls).values())):
            value = inspect.unwrap(value.fget if isinstance(value, property) and value.fget else value)
            value = getattr(value, "__func__", value)
            if isinstance(value, types.FunctionType):
                yield value


def _annotations(owner: Any) -> Iterator[Any]:
    """An object's annotations, resolved where their names are known."""
    try:
        yield from typing.get_type_hints(owner).values()
    except Exception:  # noqa: BLE001 - of an annotation anything can be raised, such as a NameError of a local class
        yield from (value for value in getattr(owner, "__annotations__", {}).values() if not isinstance(value, str))


def _add(annotation: Any, found: dict[type, None]) -> None:
    """Add a class, and the classes in its type arguments and fields."""
    todo = [annotation]
    while todo:
        value = todo.pop()
        if isinstance(value, type) and not typing.get_args(value):
            if value in found:
                continue
            found[value] = None
            _add_nested(value, found)
            if _is_data(value):
                todo += _annotations(value)
        todo += typing.get_args(value)


def _add_nested(cls: type, found: dict[type, None]) -> None:
    for value in list(vars(cls).values()):
        if isinstance(value, type) and value.__qualname__.startswith(f"{cls.__qualname__}."):
            _add(value, found)


def _is_data(cls: type) -> bool:
    """Whether it is a dataclass, a NamedTuple or an Enum."""
    named = issubclass(cls, tuple) and hasattr(cls, "_fields")
    return named or dataclasses.is_dataclass(cls) or hasattr(cls, "__members__")

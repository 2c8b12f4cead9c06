"""Names the tensors and arrays in a forward's result by the keys and attributes that lead to them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import ItemsView, Iterator, Mapping, Set, ValuesView
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from ...errors import ExportError
from ..call.structure import key_of, registered_items
from ..copies.object_parts import attributes_of, slots_of
from ..traced_values.each_number import EachNumber, EachTensor, TracedArray

_NUMBERS = (int, float, complex, torch.SymInt, torch.SymFloat, torch.SymBool, EachNumber)


def _is_packed(value: Any) -> bool:
    return isinstance(value, PackedSequence)


def _with_fields(value: Any, within: tuple[int, ...] = ()) -> Any:
    """A result in which unknown containers are lists and dicts, and objects are dicts of their public attributes.

    Named tuples and registered pytree classes become dicts, too.  An object inside itself is left out.

    Raises:
        ExportError: the result holds tensors without an order, or an iterator that computes them later.
    """
    kind = type(value)
    if isinstance(value, EachTensor):
        raise ExportError("forward returns the rows of a tensor one by one; return the tensor itself")
    if isinstance(value, (Tensor, TracedArray, type, str, *_NUMBERS)) or _is_packed(value):
        return value
    if id(value) in within:
        return None
    converted = functools.partial(_with_fields, within=(*within, id(value)))
    if kind in (list, tuple, dict):
        return pytree.tree_map(converted, value, is_leaf=lambda item: item is not value)
    if kind in pytree.SUPPORTED_NODES:
        return {key: converted(item) for key, item in registered_items(value)[0].items()}
    if dataclasses.is_dataclass(value):
        return {item.name: converted(getattr(value, item.name, None)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: converted(item) for key, item in value.items()}
    if pytree.is_namedtuple_class(kind):  # or a subclass of one: its items are not attributes
        return {name: converted(item) for name, item in zip(kind._fields, value, strict=True)}
    if isinstance(value, (list, tuple, ValuesView, ItemsView)):
        return [converted(item) for item in value]
    if isinstance(value, np.ndarray) and value.dtype == object:
        return converted(value.tolist())
    if isinstance(value, nn.Module) or callable(value):
        return value
    own = _attributes(value)
    return {name: converted(item) for name, item in own.items() if not name.startswith("_")} if own else value


def _attributes(value: Any) -> dict[str, Any]:
    """An object's `__dict__` and slots.

    Raises:
        ExportError: it has tensors elsewhere.
    """
    unordered = isinstance(value, Set) and any(isinstance(item, Tensor) for item in value)
    if unordered or isinstance(value, Iterator):
        why = "a set of tensors, which has no order" if unordered else "an iterator, which computes its items later"
        raise ExportError(f"forward returns {why}; return a tuple, a list or a dict")
    own = dict(attributes_of(value))
    for slot in slots_of(type(value)):
        with contextlib.suppress(AttributeError):  # an empty one
            own[slot.__name__] = slot.__get__(value)
    return own


def named_tensors(result: Any) -> list[tuple[str, Tensor]]:
    """The tensors of a forward's result, each with its name: ``output``, ``output.0``, ``logits``.

    Raises:
        ExportError: the result holds a packed sequence, tensors without an order, or an iterator.
    """
    found = []
    for path, leaf in pytree.tree_flatten_with_path(_with_fields(result), is_leaf=_is_packed)[0]:
        if _is_packed(leaf):
            raise ExportError(
                "forward returns a packed sequence, which ONNX cannot express; return the result of "
                "pad_packed_sequence: a padded tensor and the lengths"
            )
        tensor = _as_tensor(leaf)
        if tensor is None:
            continue
        parts = [str(key_of(entry)) for entry in path]
        if not parts or parts[0].isdecimal():
            parts.insert(0, "output")
        found.append((".".join(parts), tensor))
    return found


def _as_tensor(leaf: Any) -> Tensor | None:
    """A tensor, or an array of numbers as a tensor; None for anything else."""
    if isinstance(leaf, TracedArray):
        return leaf.tensor
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biuf":
        return torch.from_numpy(leaf.astype(leaf.dtype.newbyteorder("=")))
    return leaf if isinstance(leaf, Tensor) else None

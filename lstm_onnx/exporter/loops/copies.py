"""Operators that only copy an argument."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..aten import aten, aten_operators
from .program import Leaf, Node

_COPIES = aten_operators("clone contiguous detach detach_ alias lift_fresh_copy")
CONVERSIONS = aten_operators("to.dtype to.dtype_layout to.device to.other type_as _to_copy")
_DROPOUTS = aten_operators("dropout feature_dropout alpha_dropout feature_alpha_dropout")


def value_of(node: Any) -> Any:
    """What the tracer knows of a node's result."""
    return node.meta.get("val") if isinstance(node, torch.fx.Node) else None


def _same_form(one: Any, two: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(two, Tensor) or one.dtype != two.dtype:
        return False
    return tuple(map(str, one.shape)) == tuple(map(str, two.shape))


def unchanged(item: torch.fx.Node, args: Any, kwargs: Any, value: Any) -> Any:
    """The argument that an operator only copies; None for others."""
    target: Any = item.target
    if target in _COPIES and not any(isinstance(arg, Node) for arg in args[1:]):
        return args[0]
    if target in _DROPOUTS and not kwargs and len(args) > 2 and args[2] is False:
        return args[0]
    if target is aten.copy.default and _same_form(value_of(item.args[1]), value):
        return args[1]
    if target in CONVERSIONS and isinstance(args[0], (Node, Leaf)) and _same_form(value_of(item.args[0]), value):
        return args[0]
    return None

"""What a branch of an ``if`` on a value may call: functions without side effects that are valid if it is not taken."""

from __future__ import annotations

import builtins
import math
import re
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import guard_or_false
from torch.utils import _pytree as pytree

from ...errors import ExportError
from ..copies.rebuilt_code import closure_values, rebuilt_function
from ..user_code import is_user_code, user_line
from .branch_code import guarded_code, with_helper

_BUILTINS = (
    *("abs", "bool", "dict", "enumerate", "float", "getattr", "hasattr", "int", "isinstance", "len", "list", "max"),
    *("min", "range", "reversed", "round", "str", "sum", "super", "tuple", "type", "zip"),
)
_FUNCTIONS = {getattr(builtins, name) for name in _BUILTINS}
_METHODS: dict[type, frozenset[str]] = {
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
}
"""Methods of containers that do not change the container."""
_PLACES = ("torch.functional", "torch.nn.functional", "torch.nn.utils.rnn", "torch._jit_internal")
"""Where torch's functions are written in Python."""
_OURS = f"{__package__}."
"""The module of the Python functions that replace built-in ones in a trace."""
_ORDER = "_lstm_onnx_order"
"""The attribute of a tensor, the indices of a sort: how often it had been written in place by then."""
_INDEXING = frozenset(
    {"__getitem__", "__setitem__", "embedding", "gather", "index_select", "take", "nonzero", "argwhere", "where"}
    | {"masked_select", "unique", "repeat_interleave", "scatter", "index_copy", "index_fill", "index_put", "one_hot"}
    | {"index_add", "scatter_add", "scatter_reduce", "bincount", "unique_consecutive", "tolist", "item", "numpy"}
)
_RANDOM = re.compile(
    "rand|normal_?$|bernoulli|multinomial|poisson$|exponential_|uniform_|cauchy|geometric|log_normal|rrelu$"
)
_DIVISIONS = frozenset(
    {"floor_divide", "remainder", "fmod", "div", "divide", "__mod__", "__rmod__", "__floordiv__", "__rfloordiv__"}
)


def branch_error(what: str, mend: str = "write it with torch.where") -> ExportError:
    """The error that refuses a branch because of what it does."""
    return ExportError(
        f"at {user_line()}: the code has an if on the numbers in a tensor, and a graph has to compute both of its "
        f"branches and choose; but one {what}; {mend}"
    )


def require_valid_anywhere(name: str, args: Any, kwargs: dict[str, Any]) -> None:
    """Refuse an operation that may fail in a branch that is not taken, such as an index or a division.

    Raises:
        ExportError: it may fail.
    """
    leaves = pytree.tree_leaves((args, kwargs))
    if _RANDOM.match(name) or ("dropout" in name and True in (*args[2:], kwargs.get("training"))):
        raise branch_error("draws random numbers", "pass them as an argument of forward")
    if name == "item" and all(isinstance(size, int) and size == 1 for size in args[0].shape):
        return
    if name in _INDEXING:
        index = pytree.tree_leaves(args[1]) if name in ("__getitem__", "__setitem__") else leaves
        tensors = [item for item in index if isinstance(item, Tensor)]
        mask = name == "__setitem__" and all(item.dtype is torch.bool for item in tensors)
        chosen = name == "where" and len(args) + len(kwargs) == 3
        if tensors and not mask and not chosen and not _is_reordered(name, args, kwargs):
            raise branch_error("indexes by numbers or by a mask, which may fail where the branch is not taken")
    floating = any(isinstance(item, Tensor) and item.is_floating_point() for item in leaves)
    if name in _DIVISIONS and not floating and isinstance(args[-1], Tensor):
        raise branch_error("divides integers, and a division by 0 fails even where the branch is not taken")


def note_order(indices: Tensor) -> None:
    """Remember that a tensor has the indices of a sort: they are valid for an axis of its size."""
    if not indices.is_inference():
        setattr(indices, _ORDER, indices._version)


def _is_reordered(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a whole axis is indexed by the indices of a sort, as ``x.index_select(0, lengths.argsort())``."""
    names = {"__getitem__": ("input", "index"), "index_select": ("input", "dim", "index")}.get(name, ())
    named = {**dict(zip(names, args, strict=False)), **kwargs}
    index = named.get("index")
    if not names or not isinstance(index, Tensor) or index.dim() != 1:
        return False
    if index.is_inference() or getattr(index, _ORDER, None) != index._version:
        return False
    # A guard: the size of another input's axis may have to be the same.
    return bool(guard_or_false(named["input"].shape[named.get("dim", 0)] == index.shape[0]))


def callable_in_branch(function: Any, helper: Any) -> Any:
    """A function that a branch calls, or one that computes the same with what it calls checked.

    Args:
        function: the function that is called.
        helper: what the checked code calls.

    Raises:
        ExportError: it may have side effects.
    """
    if isinstance(function, nn.Module):
        return _layer(function, helper)
    if _is_pure(function) or (isinstance(function, type) and pytree.is_namedtuple_class(function)):
        return function
    owner = getattr(function, "__self__", None)
    plain = getattr(function, "__func__", function)
    if isinstance(plain, types.FunctionType) and not isinstance(owner, Tensor):
        if isinstance(owner, nn.Module) and vars(plain).get("is_recurrent"):
            _enter_recurrent(owner)
            return function
        new = _checked(plain, helper)
        if new is not None:
            return new if owner is None else types.MethodType(new, owner)
    raise _call_error(function)


def _call_error(function: Any) -> ExportError:
    name = getattr(function, "__qualname__", type(function).__name__)
    return branch_error(f"calls {name}, which may do more than compute tensors")


def _layer(layer: nn.Module, helper: Any) -> Any:
    """A layer to call in a branch: one of torch's, or a user's layer whose code is checked."""
    hooks = layer._forward_hooks or layer._forward_pre_hooks
    ours = vars(getattr(vars(layer).get("forward"), "__func__", None) or object).get("is_recurrent", False)
    if hooks or type(layer).__call__ is not nn.Module.__call__ or ("forward" in vars(layer) and not ours):
        raise _call_error(type(layer))
    recurrent = vars(layer).get("_lstm_onnx_recurrent")
    if recurrent is not None and not recurrent.own_forward:
        _enter_recurrent(layer)
        return layer
    if type(layer) is nn.Sequential:
        return _Sequence([_layer(part, helper) for part in layer])
    if type(layer).__module__.startswith("torch.nn.modules."):
        for part in layer.modules():
            own = type(part).__module__.startswith("torch.nn.modules.")
            if not own or part._forward_hooks or part._forward_pre_hooks or part.training:
                raise _call_error(type(part))
            if getattr(part, "inplace", False):
                raise branch_error(f"calls {type(part).__name__}(inplace=True), which writes into its input")
        return layer
    forward = type(layer).forward
    new = _checked(forward, helper) if isinstance(forward, types.FunctionType) else None
    if new is None:
        raise _call_error(type(layer))
    return types.MethodType(new, layer)


def _enter_recurrent(layer: nn.Module) -> None:
    """Allow a call of a recurrent layer in a branch, or of the one that a subclass's own forward calls."""
    recurrent = vars(layer)["_lstm_onnx_recurrent"]
    if "parametrizations" in layer._modules and not recurrent.weights:
        what = f"calls {recurrent.path}, whose weights are computed at each call"
        raise branch_error(what, "pass example inputs with which the branch is taken")
    recurrent.branched = True


class _Sequence:
    def __init__(self, layers: list[Any]) -> None:
        self._layers = layers

    def __call__(self, value: Any) -> Any:
        for layer in self._layers:
            value = layer(value)
        return value


def _checked(function: types.FunctionType, helper: Any) -> types.FunctionType | None:
    """A function of the user's with its own calls checked; None where it may have side effects."""
    code = function.__code__
    if any(item is helper for item in code.co_consts):
        return function
    new = guarded_code(code) if is_user_code(code.co_filename) else None
    if new is None:
        return None
    tables = function.__globals__, function.__kwdefaults__ or {}
    named = [item for table in tables for item in table.values()]
    helper.others += [[*named, *(function.__defaults__ or ()), *closure_values(function)]]
    found = rebuilt_function(function)
    found.__code__ = with_helper(new, helper)
    return found


def _is_pure(function: Any) -> bool:
    name = getattr(function, "__name__", "")
    if name.startswith("set_") or (name.endswith("_") and not name.startswith("__")):
        return False
    place = getattr(function, "__module__", None) or ""
    if place == math.__name__ or place.startswith(_OURS) or _is_builtin(function):
        return True
    owner = getattr(function, "__self__", None)
    if isinstance(owner, Tensor):
        return hasattr(Tensor, name) and name not in ("backward", "retain_grad", "register_hook")
    if isinstance(owner, nn.RNNBase) and name == "flatten_parameters":
        return True
    if name in _METHODS.get(type(owner), ()):
        return True
    if isinstance(function, types.BuiltinFunctionType):
        return place == "torch" or place.startswith("torch._C.")
    return isinstance(function, types.FunctionType) and place in _PLACES


def _is_builtin(function: Callable[..., Any]) -> bool:
    return any(function is item for item in _FUNCTIONS)

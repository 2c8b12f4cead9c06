"""An ``if`` on a value: a trace runs both of its branches, and chooses what they give by the value.

``if x.isnan().any(): x = torch.nan_to_num(x)`` asks a traced tensor for its truth, which only a run knows.  Where the
branches do nothing but compute tensors, both can be computed, and each variable is ``torch.where(condition, one,
other)`` afterwards: exactly what PyTorch computes on either way.  So the trace starts anew with such an ``if`` written
this way (see `rewritten_branches`); where the truth is known, it still runs one branch alone.

What a branch writes in place is written into a copy, which is chosen, and then written back.  What may have other
effects than the values of variables is refused: calls of anything but torch's functions and layers, attributes, and
indices, sizes or whole-number divisions that are only valid where the branch is taken.
"""

from __future__ import annotations

import builtins
import contextlib
import math
import sys
import types
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols, statically_known_true
from torch.utils import _pytree as pytree

from ...errors import ExportError
from ..copies.caller_state import replaced
from ..copies.rebuilt_code import closure_values
from ..user_code import user_line
from .branch_code import HELPER, rewritten_branches

_MISSING = object()
_sym_ite: Any = torch.sym_ite
_FUNCTIONS = {getattr(builtins, name) for name in ("abs", "bool", "float", "int", "len", "round", "tuple")}
_PLACES = ("torch.functional", "torch.nn.functional", "torch._jit_internal")
"""Where torch's functions are written in Python."""
_NUMBERS = (bool, int, float, str, type(None), torch.SymInt)
_INDEXING = frozenset(
    {"__getitem__", "__setitem__", "embedding", "gather", "index_select", "take", "nonzero", "argwhere", "where"}
    | {"masked_select", "unique", "repeat_interleave", "scatter", "index_copy", "index_fill", "index_put", "one_hot"}
    | {"index_add", "scatter_add", "scatter_reduce", "bincount", "unique_consecutive", "tolist", "item", "numpy"}
)
_DIVISIONS = frozenset(
    {"floor_divide", "remainder", "fmod", "div", "divide", "__mod__", "__rmod__", "__floordiv__", "__rfloordiv__"}
)


class Branches:
    """The functions of the user's code whose ``if`` on values are rewritten in a trace."""

    def __init__(self) -> None:
        self._rewritten: list[tuple[types.FunctionType, CodeType]] = []

    def add(self, frame: FrameType) -> bool:
        """Whether the code of a frame, which asks for a value's truth, can be rewritten and was not yet."""
        code = frame.f_code
        if any(isinstance(item, Helper) for item in code.co_consts):
            return False
        functions = [function for function in _functions(frame) if function.__code__ is code]
        new = rewritten_branches(code) if functions else None
        if new is not None:
            self._rewritten += [(function, new) for function in functions]
        return new is not None

    @contextlib.contextmanager
    def replaced(self, helper: Helper) -> Iterator[None]:
        """Within it, the functions have their rewritten code, which calls `helper`."""
        with contextlib.ExitStack() as stack:
            for function, new in self._rewritten:
                constants = tuple(helper if item == HELPER else item for item in new.co_consts)
                stack.enter_context(replaced(function, "__code__", new.replace(co_consts=constants)))
            yield
            helper.require_unwritten()


def _functions(frame: FrameType) -> list[types.FunctionType]:
    """Functions one of which may run in a frame: of the class or the object of its first argument, and of its file."""
    first = frame.f_locals.get(next(iter(frame.f_code.co_varnames), ""))
    own = getattr(first, "__dict__", {})
    tables = [frame.f_globals, own, *(vars(kind) for kind in type(first).__mro__)]
    if isinstance(first, type):
        tables += [vars(kind) for kind in first.__mro__]
    found: list[types.FunctionType] = []
    todo = [item for table in tables for item in table.values()]
    seen: set[int] = set()
    while todo:
        item = todo.pop()
        if isinstance(item, (staticmethod, classmethod)):
            item = item.__func__
        elif isinstance(item, property):
            item = item.fget
        if not isinstance(item, types.FunctionType) or id(item) in seen:
            continue
        seen.add(id(item))
        found.append(item)
        todo += closure_values(item)  # what a decorator wraps
    return found


class Helper:
    """What rewritten code calls.

    Attributes:
        depth: how many branches are being computed that may not be taken.
    """

    depth = 0

    def __init__(self, known: Callable[[Tensor], bool]) -> None:
        self._known = known
        self._chosen: list[tuple[Tensor, int, str]] = []

    def unknown(self, value: Any) -> bool:
        """Whether a value is one traced number, a tensor or what ``item()`` gives, whose truth is not known."""
        if isinstance(value, (torch.SymBool, torch.SymInt, torch.SymFloat)):
            return bool(free_unbacked_symbols(value))
        one = isinstance(value, FakeTensor) and all(isinstance(size, int) and size == 1 for size in value.shape)
        return one and not self._known(value)

    def item(self, value: Any) -> Any:
        """``value.item()``, as a tensor where it is unknown, computed with as Python computes."""
        if not self.unknown(value):
            return value.item()
        if value.dtype is torch.bool:
            return value
        return value.to(torch.float64 if value.is_floating_point() else torch.int64)

    def truth(self, value: Any) -> Any:
        """``bool(value)``, as a tensor where it is unknown."""
        if not self.unknown(value):
            return bool(value)
        if isinstance(value, Tensor):
            return value.reshape(()) != 0
        asked = value if isinstance(value, torch.SymBool) else value != 0
        return torch.scalar_tensor(_sym_ite(asked, 1, 0), dtype=torch.int64) != 0

    def negated(self, value: Any) -> Any:
        """``not value``."""
        return ~self.truth(value) if self.unknown(value) else not value

    def both(self, one: Any, _: None, other: Any) -> Any:
        """``one and other``, as a condition."""
        self.depth -= 1
        return self.truth(one) & self.truth(other)

    def either(self, one: Any, _: None, other: Any) -> Any:
        """``one or other``, as a condition."""
        self.depth -= 1
        return self.truth(one) | self.truth(other)

    def calling(self, function: Any) -> Any:
        """A function that a branch calls, if it has no other effect than its result.

        Raises:
            ExportError: it may have.
        """
        if _is_pure(function):
            return function
        raise _refused("calls more than torch's functions and layers")

    def begin(self, condition: Any, written: tuple[str, ...], shown: bool, mask: Any) -> Choice:
        """The choice between two branches, in the first of which the caller is from now on.

        Args:
            condition: the value.
            written: the variables whose tensors one of them writes in place.
            shown: whether a branch computes anything after it wrote.
            mask: the condition is whether it has any True, and the first branch only changes what it selects, and the
                second one nothing; None for others.
        """
        self.depth += 1
        first = isinstance(mask, Tensor) and mask.dtype is torch.bool
        return Choice(self, None if first else self.truth(condition), written, dict(sys._getframe(1).f_locals), shown)

    def entered(self) -> None:
        """The caller computes parts of an expression that PyTorch may not compute."""
        self.depth += 1

    def chosen(self, _: None, condition: Any, one: Any, other: Any) -> Any:
        """The value of a conditional expression."""
        self.depth -= 1
        return self.merged(self.truth(condition), one, other)

    def merged(self, condition: Tensor | None, one: Any, other: Any) -> Any:
        """One of two values, which may be tuples or lists of tensors; the first one where there is no condition.

        Raises:
            ExportError: they differ in more than the numbers of their tensors.
        """
        if one is other:
            return one
        leaves, structure = pytree.tree_flatten(one)
        others, own = pytree.tree_flatten(other)
        if structure != own:
            raise _refused("gives something else than if it is not taken")
        return pytree.tree_unflatten(list(map(self._merged_leaf, [condition] * len(leaves), leaves, others)), structure)

    def _merged_leaf(self, condition: Tensor | None, one: Any, other: Any) -> Any:
        if one is other:
            return one
        if not isinstance(one, Tensor) or not isinstance(other, Tensor):
            if type(one) is type(other) and isinstance(one, (bool, int, float, str)) and one == other:
                return one
            raise _refused("gives another number or object of Python than if it is not taken; make it a tensor")
        alike = one.dtype == other.dtype and one.dim() == other.dim()
        if not alike or not all(statically_known_true(a == b) for a, b in zip(one.shape, other.shape, strict=True)):
            raise _refused("gives a tensor of another shape or dtype than if it is not taken")
        result = one if condition is None else torch.where(condition, one, other)
        line = user_line()
        self._chosen += [(tensor, tensor._version, line) for tensor in (result, one, other)]
        return result

    def require_unwritten(self) -> None:
        """Refuse what is written in place into a tensor that was chosen, which in PyTorch is one of the two.

        Raises:
            ExportError: there is such a tensor.
        """
        for tensor, version, line in self._chosen:
            if tensor._version != version:
                raise ExportError(
                    f"at {line}: an if on a value chooses between tensors of which one is written in place later, and "
                    "who shares its memory depends on the value; write into a copy: x = x.clone() after the if"
                )


class Choice:
    """Two branches, of which a condition takes one.

    Args:
        helper: of the trace.
        condition: a tensor; None if the first branch gives what the second one does, where that is taken.
        written: the variables whose tensors a branch writes in place.
        before: all variables.
        shown: whether a branch computes anything after it wrote.
    """

    def __init__(
        self,
        helper: Helper,
        condition: Tensor | None,
        written: tuple[str, ...],
        before: dict[str, Any],
        shown: bool,
    ) -> None:
        self._helper, self._condition, self._written, self._before = helper, condition, written, before
        self._then: dict[str, Any] = {}
        self._else: dict[str, Any] = {}
        for name in written:
            self._require_tensor(name)
            if shown:
                self._require_alone(name)
        self._copies = [self._copied(), self._copied()]

    def _copied(self) -> dict[str, Any]:
        found = {name: self._before.get(name, _MISSING) for name in self._written}
        return {name: value.clone() if isinstance(value, Tensor) else value for name, value in found.items()}

    def _require_tensor(self, name: str) -> None:
        value = self._before.get(name)
        if not isinstance(value, (Tensor, *_NUMBERS)):
            raise _refused(f"writes into {name}, which is no tensor")

    def _require_alone(self, name: str) -> None:
        """Refuse to write into a copy of what may be read by another name."""
        value = self._before.get(name)
        if not isinstance(value, Tensor):
            return
        memory = value.untyped_storage()._cdata
        tables = [self._before, *(vars(item) for item in self._before.values() if isinstance(item, nn.Module))]
        for other, found in [item for table in tables for item in table.items()]:
            for leaf in pytree.tree_leaves(found):
                if isinstance(leaf, Tensor) and leaf is not value and leaf.untyped_storage()._cdata == memory:
                    raise _refused(f"writes into {name}, whose memory {other} shares")

    def at_first(self, name: str) -> Any:
        """A variable that is written in place, as the first branch begins with it."""
        return self._copies[0][name]

    def then(self) -> None:
        """The first branch is computed."""
        self._then = dict(sys._getframe(1).f_locals)

    def again(self, name: str) -> Any:
        """A variable as the second branch begins with it."""
        if name in self._copies[1]:
            return self._copies[1][name]
        return self._before.get(name, self._then.get(name, _MISSING))

    def end(self) -> None:
        """The second branch is computed."""
        self._else = dict(sys._getframe(1).f_locals)
        self._helper.depth -= 1

    def value(self, name: str) -> Any:
        """A variable after both branches."""
        one, other = self._then.get(name, _MISSING), self._else.get(name, _MISSING)
        if one is _MISSING or other is _MISSING:
            return other if one is _MISSING else one
        own = self._before.get(name)
        if name in self._written and isinstance(own, Tensor):
            # The tensor itself, which others may share, and then the variable.
            contents: list[Tensor] = [each[name] for each in self._copies]
            if any(a is not b and a != b for each in contents for a, b in zip(each.shape, own.shape, strict=True)):
                raise _refused(f"changes the shape of {name}")
            own.copy_(
                contents[0] if self._condition is None else torch.where(self._condition, contents[0], contents[1])
            )
            one, other = (own if each is copy else each for each, copy in zip((one, other), contents, strict=True))
        return self._helper.merged(self._condition, one, other)


def require_valid_anywhere(name: str, args: Any, kwargs: dict[str, Any]) -> None:
    """Refuse an operation that may fail in a branch that is not taken: its index or divisor may be wrong there.

    Raises:
        ExportError: it may.
    """
    leaves = pytree.tree_leaves((args, kwargs))
    if name in _INDEXING:
        index = pytree.tree_leaves(args[1]) if name in ("__getitem__", "__setitem__") else leaves
        tensors = [item for item in index if isinstance(item, Tensor)]
        mask = name == "__setitem__" and all(item.dtype is torch.bool for item in tensors)
        if tensors and not mask and not (name == "where" and len(args) + len(kwargs) == 3):
            raise _refused("looks numbers up, or takes some by a mask, which may fail where it is not taken")
    floating = any(isinstance(item, Tensor) and item.is_floating_point() for item in leaves)
    if name in _DIVISIONS and not floating and isinstance(args[-1], Tensor):
        raise _refused("divides whole numbers, which fails by 0 even where it is not taken")


def _refused(what: str) -> ExportError:
    return ExportError(
        f"at {user_line()}: the code has an if on the numbers in a tensor, and a graph has to compute both of its "
        f"branches and choose; but one {what}; write it with torch.where"
    )


def _is_pure(function: Any) -> bool:
    if isinstance(function, nn.Module):
        return all(map(_is_pure_layer, function.modules()))
    name = getattr(function, "__name__", "")
    if name.startswith("set_") or (name.endswith("_") and not name.startswith("__")):
        return False
    if any(function is item for item in _FUNCTIONS) or getattr(function, "__module__", None) == math.__name__:
        return True
    owner, place = getattr(function, "__self__", None), getattr(function, "__module__", None)
    if isinstance(owner, Tensor):
        return hasattr(Tensor, name) and name not in ("backward", "retain_grad", "register_hook")
    if isinstance(function, types.BuiltinFunctionType):
        return place == "torch" or (place or "").startswith("torch._C.")
    return isinstance(function, types.FunctionType) and place in _PLACES


def _is_pure_layer(layer: nn.Module) -> bool:
    own = type(layer).__module__.startswith("torch.nn.modules.") and not getattr(layer, "inplace", False)
    hooks = bool(layer._forward_hooks or layer._forward_pre_hooks)
    return own and not hooks and not layer.training and not isinstance(layer, (nn.RNNBase, nn.RNNCellBase))

"""An ``if`` on a value: a trace computes both branches and chooses between their results by the value.

``if x.isnan().any(): x = torch.nan_to_num(x)`` asks a traced tensor for its truth, which only a run knows.  If the
branches have no side effects, both can be computed, and each variable is ``torch.where(condition, one, other)``
afterwards: exactly what PyTorch computes in either case.  So the trace starts again with such an ``if`` rewritten
this way (see `branch_code`); where the truth is known, it still runs only one branch.

A branch writes in place into a copy; the chosen copy is then written back.  An attribute is treated like a variable.
A branch may call torch's functions and layers, including recurrent ones, and functions of the user's without side
effects (`branch_effects`).  Anything that may have side effects is refused, and so are indices, sizes and
integer divisions that may only be valid where the branch is taken.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from ..copies.caller_state import replaced
from ..copies.rebuilt_code import closure_values
from ..user_code import is_user_code
from .branch_choice import Choice
from .branch_code import rewritten_branches, with_helper
from .branch_effects import branch_error, callable_in_branch
from .branch_values import BranchValues
from .remainders import RemainderTruth, remainder_truth
from .unequal_sizes import negation_of, truth_of
from .value_checks import require_no_identity


class Branches:
    """The functions of the user's code in which an ``if`` on a value is rewritten."""

    def __init__(self) -> None:
        self._rewritten: list[tuple[types.FunctionType, CodeType]] = []

    def add(self, frame: FrameType) -> bool:
        """Add the code of a frame, which asks for a value's truth; whether it can be rewritten and was not yet."""
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
        """A context in which the functions have their rewritten code, which calls `helper`."""
        with contextlib.ExitStack() as stack:
            for function, new in self._rewritten:
                stack.enter_context(replaced(function, "__code__", with_helper(new, helper)))
            yield
            helper.require_unwritten()


def _functions(frame: FrameType) -> list[types.FunctionType]:
    """Candidates for the function that runs in a frame: of its file, and of the classes of first arguments.

    The first arguments are its own and those of the user's functions that called it: a static method has no object.
    """
    tables: list[Any] = [frame.f_globals]
    caller: FrameType | None = frame
    while caller is not None and caller.f_code.co_name != "_traced_by":
        if is_user_code(caller.f_code.co_filename):
            first = caller.f_locals.get(next(iter(caller.f_code.co_varnames), ""))
            tables += [getattr(first, "__dict__", {}), *(vars(kind) for kind in type(first).__mro__)]
            if isinstance(first, type):
                tables += [vars(kind) for kind in first.__mro__]
        caller = caller.f_back
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


class Helper(BranchValues):
    """What rewritten code calls.

    Attributes:
        depth: how many branches that may not be taken are being computed.
        used: whether there were any.
        remainders: whether both branches of an ``if`` on a size's remainder are computed.
    """

    depth = 0
    used = False
    remainders = False

    def __init__(self, known: Callable[[Tensor], bool], stateful: Any) -> None:
        super().__init__(stateful)
        self._known = known
        self._open: list[Choice] = []

    def unknown(self, value: Any) -> bool:
        """Whether a value is a single traced number, a tensor or a result of ``item()``, whose truth is not known."""
        if isinstance(value, RemainderTruth):
            return True
        if isinstance(value, (torch.SymBool, torch.SymInt, torch.SymFloat)):
            return bool(free_unbacked_symbols(value)) or (self.remainders and remainder_truth(value) is not None)
        one = isinstance(value, FakeTensor) and all(isinstance(size, int) and size == 1 for size in value.shape)
        return one and not self._known(value)

    def item(self, value: Any) -> Any:
        """``value.item()``, as a tensor with the precision of a Python number where it is unknown."""
        if not self.unknown(value):
            return value.item()
        require_no_identity(sys._getframe(1))
        if value.dtype is torch.bool:
            return value
        return value.to(torch.float64 if value.is_floating_point() else torch.int64)

    def truth(self, value: Any) -> Any:
        """``bool(value)``, as a tensor where it is unknown."""
        if not self.unknown(value):
            return bool(value)
        if isinstance(value, Tensor):
            return value if value.dtype is torch.bool and not value.dim() else value.reshape(()) != 0
        if self.remainders and (found := remainder_truth(value)) is not None:
            return found
        return truth_of(value if isinstance(value, torch.SymBool) else value != 0)

    def negated(self, value: Any) -> Any:
        """``not value``."""
        return negation_of(self.truth(value)) if self.unknown(value) else not value

    def both(self, one: Any, _: None, other: Any) -> Any:
        """``one and other``, as a condition."""
        self._left()
        return self.truth(one) & self.truth(other)

    def either(self, one: Any, _: None, other: Any) -> Any:
        """``one or other``, as a condition."""
        self._left()
        return self.truth(one) | self.truth(other)

    def calling(self, function: Any) -> Any:
        """A function that a branch calls, or one that computes the same with what it calls checked.

        Raises:
            ExportError: it may have side effects.
        """
        return callable_in_branch(function, self)

    def in_place(self, method: Any) -> Any:
        """A method of a tensor that writes into the copy that a branch has of it.

        Raises:
            ExportError: it is a method of another kind of object.
        """
        if not isinstance(getattr(method, "__self__", None), Tensor):
            raise branch_error("writes into something other than a tensor")
        return method

    def holds(self, value: Any) -> bool:
        """Whether a value is a list or a dict, which holds other objects."""
        return isinstance(value, (list, dict))

    @contextlib.contextmanager
    def writing(self, leaves: Iterable[Any]) -> Iterator[None]:
        """A context in which an operation may write only into tensors that a branch has made or copied.

        Raises:
            ExportError: it wrote into another tensor, as ``F.elu(x, 1.0, True)`` does.
        """
        before = [(item, item._version) for item in leaves if isinstance(item, Tensor) and not item.is_inference()]
        yield
        for item, version in before:
            if item._version != version:
                self.require_own(item, "a tensor")

    def require_own(self, value: Any, place: str) -> None:
        """Refuse to write in place into something that existed before the branch.

        Raises:
            ExportError: it did.
        """
        if self._open:
            self._open[-1].require_own(value, place)

    def begin(
        self, condition: Any, written: tuple[str, ...], attributes: tuple[str, ...], shown: tuple[str, ...], mask: Any
    ) -> Choice:
        """Begin the first of two branches, and return the choice between them.

        Args:
            condition: the value.
            written: the places that one of them writes in place.
            attributes: the attributes that one of them sets or writes in place.
            shown: the variables that a branch may read after it wrote.
            mask: given if the condition is whether it has any True, the first branch changes only what it selects, and
                the second one changes nothing; None otherwise.
        """
        self.depth += 1
        self.used = True
        first = isinstance(mask, Tensor) and mask.dtype is torch.bool
        truth = None if first else self.truth(condition)
        choice = Choice(self, self._leave, truth, written, attributes, dict(sys._getframe(1).f_locals), shown)
        self._open.append(choice)
        return choice

    def _leave(self, choice: Choice) -> None:
        """End the innermost choice: both of its branches are computed."""
        last = self._open.pop()
        assert last is choice  # noqa: S101 - branches end in the order in which they are nested, the inner ones first
        self.depth -= 1

    def entered(self) -> None:
        """Begin a part of an expression that PyTorch may not compute."""
        self.depth += 1
        self._open.append(Choice(self, self._leave, None, (), (), dict(sys._getframe(1).f_locals), ()))

    def _left(self) -> None:
        self._open.pop()
        self.depth -= 1

    def chosen(self, _: None, condition: Any, one: Any, other: Any) -> Any:
        """The value of a conditional expression."""
        self._left()
        return self.merged(self.truth(condition), one, other)

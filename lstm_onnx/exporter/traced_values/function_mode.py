"""What a trace does differently from PyTorch when the user's code calls one of torch's functions."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ...errors import ExportError
from ..user_code import is_user_code, user_line
from .branch_effects import note_order, require_valid_anywhere
from .constants import READS, Constants
from .cut_sequences import concatenated, note_cut
from .each_number import EachNumber, EachTensor, RetraceError, TracedArray, is_open_vector, only_each
from .number_index import at_number, rolled, with_number_ends
from .parts import Parts, parts_of, with_clipped_slices
from .pooling import max_pool1d, pooled_over_all, pooled_to_parts, windows_of_all
from .python_builtins import Builtins
from .ranges import SymbolicRange
from .repeated_lists import expand_lists, joined
from .sparse import call_sparse, concerns_sparse
from .torch_functions import INTEGERS, TORCH_FUNCTIONS
from .value_branches import Helper
from .value_checks import find_check, is_assert_caught, require_no_identity

_SEQUENCES = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_RECURRENT_FUNCTIONS = frozenset(_SEQUENCES) | {f"{name}_cell" for name in _SEQUENCES}


class TracingMode(TorchFunctionMode):
    """Refuses what a graph cannot express, reads constants, and lets checks of numbers pass.

    Args:
        module: the traced module.
        constants: the numbers of tensors that depend on no input.
        builtins: which of Python's functions are replaced.

    Attributes:
        branches: computes both branches of an ``if`` on a value.
        passed_checks: the user's lines with checks that are not in the graph.
        texts: the user's lines that turn numbers that the graph computes into text.
        squeezed: the sizes of axes that the user's code squeezes and that are not fixed, each with the line.
        split: the parts of axes that are not fixed, if the number of parts depends on the size, each with the line.
        sorts: the user's lines with sorts that are not stable.
        each: whether Python code took the numbers of a tensor one by one.
    """

    def __init__(self, module: nn.Module, constants: Constants, builtins: Builtins) -> None:
        super().__init__()
        self.recurrent = [part for part in module.modules() if isinstance(part, (nn.RNNBase, nn.RNNCellBase))]
        self.constants, self.builtins = constants, builtins
        self.branches = Helper(lambda number: constants.read(Tensor.item, (number,), {}) is not None, module)
        self.branches.remainders = builtins.remainders
        self.passed_checks: dict[str, None] = {}
        self.texts: dict[str, None] = {}
        self.squeezed: list[tuple[Any, str]] = []
        self.split: list[tuple[Parts, str]] = []
        self.sorts: dict[str, None] = {}
        self.each = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass everything else on."""
        try:
            return self._dispatched(func, args, kwargs)
        except (ExportError, GuardOnDataDependentSymNode, DataDependentOutputException) as error:
            self.builtins.raised.append(error)
            raise

    def _dispatched(self, func: Any, args: Any, kwargs: Any) -> Any:
        self.builtins.replace_extremes()
        _require_no_autocast()
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _RECURRENT_FUNCTIONS:
            # Recurrent submodules are opaque operators in a trace, and call none of these.
            raise ExportError(
                f"at {user_line()}: {name} is called, but not by a submodule of the module; assign the nn.LSTM "
                "(GRU, RNN, cell) to an attribute of an nn.Module, or put it in an nn.ModuleList, and call it"
            )
        if concerns_sparse(name, args, kwargs):
            return call_sparse(self.constants, func, args, kwargs)
        if name in READS and (found := self.constants.read(func, args, kwargs)) is not None:
            return found[0]
        if self.branches.depth:
            require_valid_anywhere(name, args, kwargs)
            with self.branches.writing(pytree.tree_leaves((args, kwargs))):
                return self._called(func, name, args, kwargs)
        return self._called(func, name, args, kwargs)

    def _called(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        found = None
        if args or name in _WITHOUT_POSITIONAL:
            special = _SPECIAL.get(func if func in (_READ_DATA, _WRITE_DATA) else name)
            if special is not None:
                found = special(self, func, args, kwargs)
            elif name in TORCH_FUNCTIONS:
                found = TORCH_FUNCTIONS[name](self.constants, func, args, kwargs)
        if found is not None:
            return found[0]
        expand_lists(*args, *kwargs.values())
        return self.constants.call(func, args, kwargs)

    def passes(self, frame: Any) -> bool | None:
        """The truth value with which a check of numbers passes; None where it is not a check."""
        check = find_check(frame)
        if check is None:
            while frame is not None and not is_user_code(frame.f_code.co_filename):
                frame = frame.f_back
            if frame is not None and self.builtins.branches.add(frame):
                raise RetraceError(branches=True)
            return None
        self.note_check(check.line)
        return check.passed

    def rewrite(self, frame: FrameType) -> None:
        """Start the trace again with the ``if`` of a frame on a remainder rewritten, unless it already is."""
        if self.builtins.remainders and self.builtins.branches.add(frame):
            self.builtins.raised.append(error := RetraceError(branches=True))
            self.builtins.asked_remainders = True
            raise error

    def is_open(self, number: Tensor) -> bool:
        """Whether the numbers of a tensor are not known while tracing."""
        return self.constants.read(Tensor.item, (number,), {}) is None

    def require_builtins(self) -> None:
        """Start the trace again with Python's functions replaced, unless they already are."""
        if not self.builtins.everywhere:
            raise RetraceError

    def note_check(self, line: str) -> None:
        """Remember the line of a check that counts as passed."""
        self.passed_checks[line] = None


def _require_no_autocast() -> None:
    """Refuse autocast on the CPU or on CUDA; on a machine without CUDA, that of CUDA is off anyway."""
    if torch.is_autocast_enabled("cpu"):
        dtype = str(torch.get_autocast_dtype("cpu")).removeprefix("torch.")
        raise ExportError(
            f"at {user_line()}: torch.autocast is on and computes in {dtype} what a file computes in float32; export "
            'with it off, such as by an argument of the module; for a smaller file use precision="float16" or "int8"'
        )


def _truth(mode: TracingMode, _func: Any, _args: Any, _kwargs: Any) -> tuple[bool] | None:
    passed = mode.passes(sys._getframe(2))
    return None if passed is None else (passed,)


def _assert(mode: TracingMode, _func: Any, args: Any, _kwargs: Any) -> tuple[None] | None:
    if not args or not isinstance(args[0], Tensor) or is_assert_caught(sys._getframe(2)):
        return None
    mode.note_check(user_line())
    return (None,)


def _item(_mode: TracingMode, _func: Any, _args: Any, _kwargs: Any) -> None:
    require_no_identity(sys._getframe(2))


def _text(mode: TracingMode, _func: Any, _args: Any, _kwargs: Any) -> None:
    mode.texts[user_line()] = None


def _length(mode: TracingMode, _func: Any, args: Any, _kwargs: Any) -> tuple[int] | None:
    if not args[0].dim() or isinstance(args[0].shape[0], int):
        return None
    mode.require_builtins()
    # Python's len is replaced by now, so the caller is list() or the like, which asks how much memory to reserve.
    return (1,) if is_open_vector(args[0]) else None


def _iterate(mode: TracingMode, _func: Any, args: Any, _kwargs: Any) -> tuple[Any] | None:
    if not is_open_vector(args[0]) or not _iterates(sys._getframe(2)):
        return None
    mode.require_builtins()
    mode.each = True
    return ((EachTensor(args[0], mode.note_check),),)


def _iterates(frame: FrameType | None) -> bool:
    """Whether Python iterates over a tensor, which then calls unbind."""
    while frame is not None and frame.f_code.co_name in ("__torch_function__", "_dispatched"):
        frame = frame.f_back
    return frame is not None and frame.f_code is _ITERATION


def _array(mode: TracingMode, _func: Any, args: Any, _kwargs: Any) -> tuple[TracedArray] | None:
    if is_open_vector(args[0]):
        mode.require_builtins()
        mode.each = True
    elif not isinstance(args[0], FakeTensor):
        return None
    return (TracedArray(args[0], mode.note_check),)


def _to_int(_mode: TracingMode, _func: Any, args: Any, _kwargs: Any) -> None:
    tensor = args[0]
    if isinstance(tensor, FakeTensor) and tensor.dim() == 0 and tensor.dtype in INTEGERS:
        raise RetraceError(sys._getframe(2))


def _write_data(mode: TracingMode, _func: Any, args: Any, _kwargs: Any) -> tuple[None]:
    """Ignore what is assigned to a recurrent module's parameter, as eager runs record its weights."""
    if not any(args[0] is parameter for part in mode.recurrent for parameter in part.parameters()):
        raise ExportError(
            f"at {user_line()}: a graph cannot express an assignment to the data of a tensor; compute a new tensor "
            f"and use that, or assign before the export"
        )
    return (None,)


def _joined(_mode: TracingMode, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    tensor = joined(func, args, kwargs)
    tensor = concatenated(func, args, kwargs) if tensor is None else tensor
    return None if tensor is None else (tensor,)


def _made(mode: TracingMode, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    """A tensor made from a list or an array of traced numbers."""
    if (repeated := _joined(mode, func, args, kwargs)) is not None:
        return repeated
    name = func.__name__
    values = args[0] if not name.startswith("new") else args[1] if len(args) > 1 else None
    each = only_each(values)
    found = values if each is None else each
    if isinstance(found, SymbolicRange):
        found = TracedArray(found.tensor)
    if not isinstance(found, (EachNumber, TracedArray)):
        return None
    tensor = found.tensor
    dtype = kwargs.get("dtype")
    if name == "new":
        dtype = args[0].dtype
    elif dtype is None and type(each) is EachNumber and tensor.is_floating_point():
        dtype = torch.get_default_dtype()
    if name == "as_tensor" and each is None and dtype in (None, tensor.dtype):
        return (tensor.detach(),)  # of the array's own memory
    return (tensor.clone() if dtype is None else tensor.to(dtype, copy=True),)


def _indexed(mode: TracingMode, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any] | None:
    if isinstance(args[1], EachNumber):
        if len(args) > 2 or not is_open_vector(args[0]):
            operator.index(args[1])  # refused
        mode.each = True
        return (EachTensor(mode.constants.call(func, (args[0], args[1].tensor), kwargs), mode.note_check),)
    found = list(map(_as_index, args))
    found[1] = with_number_ends(lambda end: mode.constants.call(Tensor.item, (end,), {}), found[1])
    if type(found[1]) is tuple:
        parts = tuple(_in_int64(mode, item) for item in found[1])
        found[1] = found[1] if all(map(operator.is_, parts, found[1])) else parts
    placed = at_number(mode.is_open, tuple(found))
    if placed is not None:
        result = mode.constants.call(func, placed[0], kwargs)
        return (result if result is None else result.select(placed[1], 0),)
    clipped = with_clipped_slices(*found) if len(found) == 2 else None
    if clipped is not None:
        found[1] = clipped
    result = mode.constants.call(func, tuple(found), kwargs)
    if len(found) == 2:
        note_cut(result, *found)
    return (result,)


def _as_index(item: Any) -> Any:
    """An index with tensors in place of traced arrays and ranges."""
    if isinstance(item, (TracedArray, SymbolicRange)):
        return item.tensor
    if isinstance(item, list) and (each := only_each(item)) is not None:
        return each.tensor
    if type(item) in (tuple, list):
        parts = [_as_index(part) for part in item]
        return item if all(map(operator.is_, parts, item)) else type(item)(parts)
    return item


def _in_int64(mode: TracingMode, item: Any) -> Any:
    """A part of an index in int64: ONNX's operators take several indices only of one type."""
    if isinstance(item, Tensor) and item.dtype is torch.int32:
        return mode.constants.call(Tensor.long, (item,), {})
    return item


def _in_parts(mode: TracingMode, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any] | None:
    """Parts of an axis that is not fixed, for which torch.onnx has no translation."""
    how = [*args[1:2], *(value for name, value in kwargs.items() if name != "dim")]
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    parts = parts_of(func.__name__.removeprefix("unsafe_"), args[0], how[0], dim) if len(how) == 1 else None
    if parts is None:
        return None
    if parts.largest is not None:
        mode.split.append((parts, user_line()))
    return (parts.tensors,)


def _sort(mode: TracingMode, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any]:
    if not kwargs.get("stable") and any(isinstance(size, torch.SymInt) for size in args[0].shape):
        mode.sorts[user_line()] = None
    found = mode.constants.call(func, args, kwargs)
    note_order(found if isinstance(found, Tensor) else found[1])
    return (found,)


def _squeeze(mode: TracingMode, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    sizes = list(args[0].shape)
    for dim in dims if isinstance(dims, (tuple, list)) else (dims,):
        if isinstance(dim, int) and -len(sizes) <= dim < len(sizes) and isinstance(sizes[dim], torch.SymInt):
            mode.squeezed.append((sizes[dim], user_line()))
    if func.__name__ != "squeeze" or not isinstance(dims, int) or not -len(sizes) <= dims < len(sizes):
        return None
    if isinstance(sizes[dims], int) or sizes[dims] != 1:
        return None
    # The trace holds for sizes at which the axis is 1, which the translation of squeeze does not handle.
    del sizes[dims]
    return (args[0].reshape(sizes),)


def _pool(mode: TracingMode, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    if kwargs.get("return_indices"):
        return None
    if func.__name__.startswith("avg") and len(args) > 4:  # without dilation; then how padding counts
        args = (*args[:4], 1, args[4], *args[6:])
    named = {name: value for name, value in kwargs.items() if name != "return_indices"}
    pooled = pooled_over_all(func.__name__, *args, **named)
    if pooled is not None:
        return (pooled,)
    divisor = named.get("divisor_override", args[6] if len(args) > 6 else None)
    if func.__name__.startswith("avg") and divisor is not None:
        raise ExportError(
            f"at {user_line()}: divisor_override has no translation to ONNX; multiply the mean by kernel / divisor"
        )
    return (mode.constants.call(max_pool1d, args, named),) if func.__name__ == "max_pool1d" else None


def _adaptive_pool(_mode: TracingMode, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    name = func.__name__.removesuffix("_with_indices")
    indices = name != func.__name__ or ("max" in name and func is getattr(torch, name, None))
    pooled = pooled_to_parts(name, args[0], args[1] if len(args) > 1 else kwargs["output_size"])
    if pooled is not None and indices:
        raise ExportError(
            f"at {user_line()}: return_indices has no translation to ONNX for parts of a dynamic axis; leave it out"
        )
    return None if pooled is None else (pooled,)


def _unfold(_mode: TracingMode, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    windows = windows_of_all(*args, **kwargs) if func is nn.functional.unfold else None
    return None if windows is None else (windows,)


_ITERATION = Tensor.__iter__.__code__
_READ_DATA, _WRITE_DATA = Tensor.data.__get__, Tensor.data.__set__  # type: ignore[attr-defined]
_SPECIAL: Mapping[Any, Callable[[TracingMode, Any, Any, dict[str, Any]], tuple[Any] | None]] = {
    **dict.fromkeys(("__bool__", "is_nonzero", "allclose", "equal"), _truth),
    **dict.fromkeys(("_assert", "_assert_async"), _assert),
    **dict.fromkeys(("item", "tolist"), _item),
    **dict.fromkeys(("__repr__", "__format__"), _text),
    "__len__": _length,
    "unbind": _iterate,
    "numpy": _array,
    "__int__": _to_int,
    # torch's own method copies memory, and a traced tensor has none.
    "__deepcopy__": lambda _mode, _func, args, _kwargs: (args[0].clone(),),
    # The same numbers, within the graph.
    _READ_DATA: lambda mode, _func, args, _kwargs: (mode.constants.call(Tensor.detach, (args[0],), {}),),
    _WRITE_DATA: _write_data,
    **dict.fromkeys(("tensor", "as_tensor", "new", "new_tensor"), _made),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _joined),
    **dict.fromkeys(("__getitem__", "__setitem__"), _indexed),
    **dict.fromkeys(("chunk", "split", "tensor_split", "unsafe_chunk", "unsafe_split"), _in_parts),
    **dict.fromkeys(("sort", "argsort"), _sort),
    **dict.fromkeys(("squeeze", "squeeze_"), _squeeze),
    **{f"{kind}_pool{count}d": _pool for kind in ("max", "avg") for count in (1, 2, 3)},
    **{
        f"adaptive_{kind}_pool{count}d{suffix}": _adaptive_pool
        for kind, suffix in (("avg", ""), ("max", ""), ("max", "_with_indices"))
        for count in (1, 2, 3)
    },
    "roll": lambda mode, _func, args, kwargs: rolled(mode.is_open, *args, **kwargs),
    "unfold": _unfold,
}
"""By names of torch's functions: what returns their result in a tuple, or None to call torch's function as usual.

Those that need only the constants are in `TORCH_FUNCTIONS`.
"""
_WITHOUT_POSITIONAL = frozenset(("cat", "concat", "concatenate", "stack", "scaled_dot_product_attention", "where"))
"""Those that may be called with keyword arguments alone."""

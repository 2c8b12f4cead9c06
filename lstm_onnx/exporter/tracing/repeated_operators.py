"""Speeds up a trace at fixed sizes: torch infers the result of an operator only once for tensors of the same form.

A Python loop calls the same operators in each step.  For each call torch's tracer infers the form of the result from
scratch, which takes most of a trace's time.  Here torch handles the first call of each kind; later ones get a new
tensor of the form that the first one gave, and the same node as from torch.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from ..copies.caller_state import replaced

_MOST_KNOWN = 20_000
"""The most calls whose results' forms are kept; then the table is cleared."""


@dataclass(frozen=True)
class _Form:
    """Everything about an operator's result except its values."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class _OtherCall(Exception):  # noqa: N818 - no error: torch's own code does it
    """A call that torch must handle."""


@contextlib.contextmanager
def operators_remembered() -> Iterator[None]:
    """A context in which ``make_fx(..., tracing_mode="fake", pre_dispatch=True)`` infers each form once.

    If the tracer of this version of torch works differently, it has no effect.
    """
    try:
        from torch._subclasses.fake_tensor import in_kernel_invocation_manager
        from torch.fx.experimental import proxy_tensor

        own = proxy_tensor.proxy_call
        entry = proxy_tensor._ProxyTensor
        mode = proxy_tensor.PythonKeyTracer
    except (ImportError, AttributeError):
        yield
        return
    calls = _Calls(own, entry, mode, in_kernel_invocation_manager)
    with replaced(proxy_tensor, "proxy_call", calls.call):
        yield


_KNOWN: dict[Any, _Form | tuple[type, tuple[_Form, ...]]] = {}
"""The form of a call's result, or its results' in a list or tuple, by the operator and the forms of its arguments."""
_PLAIN: dict[Any, str] = {}
"""Each operator's name in a graph; "" where torch's own code does more for it."""


class _Calls:
    """The calls of one trace."""

    def __init__(self, own: Callable[..., Any], entry: Any, tracer: type, kernel: Callable[[Any], Any]) -> None:
        self.own, self.entry, self.tracer, self.kernel = own, entry, tracer, kernel
        self.parameters: dict[tuple[int, int], tuple[Any, nn.Parameter, torch.fx.Node]] = {}

    def call(self, mode: Any, func: Any, pre_dispatch: bool, args: Any, kwargs: Any) -> Any:
        """The result of an operator, and its node in the graph."""
        name = _PLAIN.get(func)
        if name is None:
            name = _PLAIN[func] = func.overloadpacket.__name__ if _is_plain(func) else ""
        tracer = mode.tracer
        if not name or not pre_dispatch or func in mode.decomposition_table or type(tracer) is not self.tracer:
            return self.own(mode, func, pre_dispatch, args, kwargs)
        modes: list[Any] = []
        try:
            key = self.key_of_call(func, args, kwargs, tracer, modes)
            known = _KNOWN.get(key)
        except (_OtherCall, TypeError):  # a size that depends on the numbers in a tensor cannot be part of a key
            return self.own(mode, func, pre_dispatch, args, kwargs)
        if known is not None and modes:
            return self.repeated(tracer, func, name, args, kwargs, known, modes[0])
        result = self.own(mode, func, pre_dispatch, args, kwargs)
        if modes:
            _remember(key, args, kwargs, result)
        return result

    def key_of_call(self, func: Any, args: Any, kwargs: Any, tracer: Any, modes: list[Any]) -> Any:
        """All that the form of a result may depend on; the mode of each fake tensor is added to `modes`."""
        if torch._C._is_any_autocast_enabled() or torch.is_grad_enabled():
            raise _OtherCall
        given = tuple([self.key(value, tracer, modes) for value in args])
        named = tuple([(word, self.key(value, tracer, modes)) for word, value in kwargs.items()])
        return func, given, named, torch.get_default_dtype()

    def key(self, value: Any, tracer: Any, modes: list[Any]) -> Any:
        """As `key_of_call`, for one argument."""
        kind = type(value)
        if kind is FakeTensor:
            entry = tracer.tensor_tracker.get(value)
            if entry is None or entry.constant is not None or value.layout is not torch.strided:
                raise _OtherCall
            modes.append(value.fake_mode)
        elif kind is nn.Parameter or kind is Tensor:
            if value.layout is not torch.strided or tracer.tensor_tracker.get(value) is not None:
                raise _OtherCall
        elif kind in (list, tuple):
            return (kind, *[self.key(item, tracer, modes) for item in value])
        elif kind in _ATOMS:
            return kind, value
        else:
            raise _OtherCall
        if value.is_conj() or value.is_neg():
            raise _OtherCall
        return kind is FakeTensor, value.shape, value.stride(), value.dtype, value.device

    def repeated(self, tracer: Any, func: Any, name: str, args: Any, kwargs: Any, known: Any, mode: Any) -> Any:
        """The node and a new tensor of a known form; for several results a node for each, as in torch's own code."""

        def argument(value: Any) -> Any:
            if type(value) is FakeTensor:
                return tracer.tensor_tracker[value].proxy.node
            if isinstance(value, Tensor):
                return self.given(tracer, value)
            return [argument(item) for item in value] if type(value) in (list, tuple) else value

        given = tuple([argument(value) for value in args])
        named = {word: argument(value) for word, value in kwargs.items()}
        node = tracer.create_node("call_function", func, given, named, name)
        if isinstance(known, _Form):
            return self.tracked(tracer, node, known, mode)
        kind, forms = known
        result = kind(
            [
                self.tracked(tracer, tracer.create_node("call_function", operator.getitem, (node, at), {}), form, mode)
                for at, form in enumerate(forms)
            ]
        )
        node.meta["val"] = result
        return result

    def given(self, tracer: Any, tensor: Tensor) -> Any:
        """The node of one of the module's tensors; for a parameter, that of its first use."""
        if not isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
            return tracer.create_arg(tensor)
        found = self.parameters.get((id(tracer), id(tensor)))
        if found is None:
            found = self.parameters[id(tracer), id(tensor)] = tracer, tensor, tracer.create_arg(tensor)
        return found[2]

    def tracked(self, tracer: Any, node: Any, form: _Form, mode: Any) -> FakeTensor:
        with self.kernel(mode):
            empty = torch.empty_strided(form.shape, form.stride, dtype=form.dtype, device="meta")
        made = FakeTensor(mode, empty, form.device)
        tracer.tensor_tracker[made] = self.entry(tracer.proxy(node), None)
        node.meta["val"] = made
        return made


_ATOMS = frozenset(
    {int, float, bool, complex, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format}
)


def _is_plain(func: Any) -> bool:
    """Whether an operator writes nothing, is not random, and gives a form that follows from its arguments' forms."""
    tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded}
    return (
        isinstance(func, torch._ops.OpOverload)
        and func.namespace == "aten"
        and not func._schema.is_mutable
        and not tags & set(func.tags)
        and func not in (torch.ops.aten.lift_fresh.default, torch.ops.aten.is_nonzero.default)
        # For zeros_like and the like, torch returns a tensor without a node in place of the tracer's.
        and not func.overloadpacket.__name__.endswith("_like")
    )


def _remember(key: Any, args: Any, kwargs: Any, result: Any) -> None:
    """Remember the form of a result that consists of new tensors."""
    several = type(result) in (list, tuple)
    found = list(result) if several else [result]
    given = {id(item) for value in (*args, *kwargs.values()) for item in _leaves(value)}
    if len({id(item) for item in found}) < len(found) or any(id(item) in given for item in found):
        return
    if not found or not all(map(_is_ordinary, found)):
        return
    forms = [_Form(tuple(item.shape), item.stride(), item.dtype, item.device) for item in found]
    if len(_KNOWN) >= _MOST_KNOWN:
        _KNOWN.clear()
    _KNOWN[key] = (type(result), tuple(forms)) if several else forms[0]


def _leaves(value: Any) -> Any:
    return value if type(value) in (list, tuple) else (value,)


def _is_ordinary(item: Any) -> bool:
    return (
        type(item) is FakeTensor
        and item.layout is torch.strided
        and item.constant is None
        and item.real_tensor is None
        and not (item.requires_grad or item.is_conj() or item.is_neg())
        and all(type(size) is int for size in (*item.shape, *item.stride()))
    )

"""Measures how far the rounding of every operator moves a module's outputs.

An output may be far smaller than 1, and one feature far smaller than another, such as a share beside a pressure in
pascals.  The criterion's floor, one rounding of 1, and PyTorch's error in the largest feature say nothing about these.
If the last layers scale what the first compute, they scale the roundings, too.  So the module runs in float64 with
every operator's result off by up to one rounding of the terms it adds up, or of 1 for a function with values around 1,
which one library may give as 0 and another as 6e-17.  With the dtype in which a file computes, exact results stay as
they are: no rounding decides what is compared or rounded there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from .exact_results import as_compared, is_exact, may_be_exact
from .undefined_results import first_topk

_SUMS = {"mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "convolution", "sum", "mean", "cumsum"}
"""aten operators that add up terms; the same operator applied to absolute values bounds their rounding."""
_ONE_BY_ONE = {"linalg_vector_norm", "norm", "_cdist_forward", "prod"}
"""aten operators whose terms PyTorch adds up one by one in their own dtype: 20,000 equal ones are off by 1e-4."""
_TWO_TERMS = {"add", "add_", "sub", "sub_", "rsub"}
_WITHIN_1 = {
    *("sigmoid", "tanh", "hardsigmoid", "hardtanh", "softsign", "_softmax", "_log_softmax", "log_sigmoid_forward"),
    *("erf", "gelu", "silu", "elu", "mish", "softplus", "sin", "cos", "atan", "exp", "expm1", "log", "log1p"),
    *("native_layer_norm", "native_group_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"),
}
"""aten operators whose results, even if smaller than 1, are off by a rounding of 1."""


class OperatorRoundings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode in which each operator's floating-point results are off by up to `unit` times their size.

    Args:
        unit: the relative size of one rounding.
        seed: of the random errors.
        native: the dtype in which a file computes; what is exact in it is not changed.
    """

    def __init__(self, unit: float, seed: int, native: torch.dtype | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._native = native
        self._unit = unit
        self._rng = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, and change results that are not views of its arguments."""
        keywords = kwargs or {}
        name = func.overloadpacket.__name__
        written = [item.alias_info is not None and item.alias_info.is_write for item in func._schema.returns]
        viewed = [item.alias_info is not None and not item.alias_info.is_write for item in func._schema.returns]
        if not any(isinstance(arg, Tensor) for arg in tree_leaves((args, keywords))):
            return func(*args, **keywords)  # a constant
        native = self._native
        args = args if native is None else as_compared(name, args, native)
        terms = self._terms(func, name, args, keywords)
        exact = False if native is None else may_be_exact(name, args, keywords, native, terms)
        results: Any = (first_topk if name == "topk" else func)(*args, **keywords)
        if name in _ONE_BY_ONE and _rounds(results):
            results = func(*tree_map(_double, args), **keywords).to(results.dtype)
        every = results if isinstance(results, (tuple, list)) else (results,)
        rounded = [
            result if view or not _rounds(result) else self._rounded(result, name, terms, exact, in_place=write)
            for result, view, write in zip(every, _padded(viewed, every), _padded(written, every), strict=True)
        ]
        return type(results)(rounded) if isinstance(results, (tuple, list)) else rounded[0]

    def _terms(self, func: Any, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor | None:
        """The sum of the terms' absolute values; None for an operator that adds nothing up."""
        if name in _TWO_TERMS:
            return torch.as_tensor(_magnitude(args[0]) + _magnitude(args[1]))
        if name not in _SUMS:
            return None
        found: Tensor = func(*tree_map(_size, args), **keywords)
        return found

    def _rounded(
        self, result: Tensor, name: str, terms: Tensor | None, exact: Tensor | bool, *, in_place: bool
    ) -> Tensor:
        size = result.abs() if terms is None or terms.shape != result.shape else torch.maximum(result.abs(), terms)
        if name.removesuffix("_") in _WITHIN_1:
            size = size.clamp(min=1.0)
        off = torch.rand(result.shape, generator=self._rng, dtype=torch.float64).mul_(2).sub_(1).to(result)
        change = torch.nan_to_num(self._unit * size * off, nan=0.0, posinf=0.0, neginf=0.0)
        if self._native is not None and exact is not False:
            change = change.masked_fill(is_exact(result, self._native) & exact, 0.0)
        return result.add_(change) if in_place else result + change


def _padded(flags: list[bool], results: Any) -> list[bool]:
    """A flag for each result; an operator that returns a list has one flag for all."""
    return flags if len(flags) == len(results) else [any(flags)] * len(results)


def _rounds(result: Any) -> bool:
    return isinstance(result, Tensor) and result.is_floating_point()


def _double(arg: Any) -> Any:
    return arg.double() if _rounds(arg) else arg


def _magnitude(arg: Any) -> Any:
    """The absolute value of a term; booleans stay as they are."""
    return arg if isinstance(arg, Tensor) and arg.dtype == torch.bool else abs(arg)


def _size(arg: Any) -> Any:
    """The absolute value of a number or a tensor."""
    if isinstance(arg, Tensor):
        return arg.abs() if arg.is_floating_point() else arg
    return abs(arg) if type(arg) is float else arg

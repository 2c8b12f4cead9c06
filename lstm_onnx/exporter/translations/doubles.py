"""Python's floats and operators' attributes in float64 modules, with the precision of float64.

Where torch.onnx does not know the type of a Python float, it makes it a float32 and casts that to float64; and ONNX's
operators have float32 attributes.  An eps of 1e-5 would be off by 2e-8 relative to itself, and the file's outputs by a
million times float64's rounding.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.utils import _pytree as pytree

from ..copies.caller_state import replaced
from .size_arithmetic import DOUBLE, FLOAT, as_float

_Optional = Tensor | None


def with_doubles(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program with operators that have float32 attributes in ONNX written out, if anything in it is float64."""
    if not _has_doubles(program):
        return program
    known: Mapping[Any, Callable[..., Any]] = {**get_decompositions(_DECOMPOSED), **_WRITTEN_OUT}
    table: Any = {operator: _of_doubles(written_out) for operator, written_out in known.items()}
    decomposed: torch.export.ExportedProgram = program.run_decompositions(table)
    _say_dtypes(decomposed)
    return decomposed


def _say_dtypes(program: torch.export.ExportedProgram) -> None:
    """Give what makes float64 tensors by torch's default dtype that dtype; torch.onnx takes the default for float32."""
    for node in program.graph.nodes:
        made, schema = node.meta.get("val"), getattr(node.target, "_schema", None)
        if schema is None or not isinstance(made, Tensor) or made.dtype != torch.float64:
            continue
        names = [item.name for item in schema.arguments]
        of_another = any(isinstance(item.meta.get("val"), Tensor) for item in node.all_input_nodes)
        if "dtype" in names[len(node.args) :] and not of_another and node.kwargs.get("dtype") is None:
            node.kwargs = {**node.kwargs, "dtype": torch.float64}


def _of_doubles(written_out: Callable[..., Any]) -> Callable[..., Any]:
    """For float64 tensors only; others stay as they are, such as the rest of a float32 module."""

    def decomposed(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        doubles = any(isinstance(item, Tensor) and item.dtype == torch.float64 for item in given)
        return written_out(*args, **kwargs) if doubles else NotImplemented

    return decomposed


@contextlib.contextmanager
def exact_constants(program: torch.export.ExportedProgram) -> Iterator[None]:
    """Translate Python's floats as doubles that are cast to float32; `keep_doubles` removes a cast back to double."""
    if not _has_doubles(program):
        yield
        return
    from torch.onnx._internal.exporter import _building

    make: Any = getattr(_building, "_get_or_create_constant")  # noqa: B009 - unknown to mypy

    def exact(made: dict[Any, Any], number: Any, dtype: ir.DataType, opset: Any) -> Any:
        if dtype != FLOAT or not np.any(np.float32(number) != np.float64(number)):
            return make(made, number, dtype, opset)
        key = (tuple(np.atleast_1d(number)), np.ndim(number), DOUBLE, FLOAT)
        if key not in made:
            made[key] = as_float(make(made, number, DOUBLE, opset))
        return made[key]

    with replaced(_building, "_get_or_create_constant", exact):
        yield


def _has_doubles(program: torch.export.ExportedProgram) -> bool:
    values = pytree.tree_leaves([node.meta.get("val") for node in program.graph.nodes])
    return any(isinstance(value, Tensor) and value.dtype == torch.float64 for value in values)


def _scaled(y: Tensor, weight: _Optional, bias: _Optional, shape: Sequence[int]) -> Tensor:
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _normalized(x: Tensor, axes: list[int], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    # Not square(): ONNX Runtime turns a norm with a power into an operator with a float32 eps.
    return centred / torch.sqrt((centred * centred).mean(axes, keepdim=True) + eps)


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: _Optional = None, bias: _Optional = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    return _scaled(_normalized(x, list(range(-len(shape), 0)), eps), weight, bias, tuple(shape))


def _group_norm(
    x: Tensor, groups: int, weight: _Optional = None, bias: _Optional = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    y = _normalized(x.reshape(x.shape[0], groups, -1), [2], eps).reshape(x.shape)
    return _scaled(y, weight, bias, (-1,) + (1,) * (x.dim() - 2))


def _batch_norm(
    x: Tensor, weight: _Optional, bias: _Optional, mean: Tensor, variance: Tensor, _momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (-1,) + (1,) * (x.dim() - 2)
    y = (x - mean.reshape(shape)) / torch.sqrt(variance.reshape(shape) + eps)
    return _scaled(y, weight, bias, shape), x.new_empty(0), x.new_empty(0)


def _instance_norm(
    x: Tensor, weight: _Optional, bias: _Optional, _mean: Any, _var: Any, own: bool, _momentum: Any, eps: float, *_: Any
) -> Any:
    return _group_norm(x, x.shape[1], weight, bias, eps) if own else NotImplemented


def _attention(*args: Any, **kwargs: Any) -> Tensor:
    result: Tensor = torch.ops.aten._scaled_dot_product_attention_math(*args, **kwargs)[0]
    return result


_aten = torch.ops.aten
_DECOMPOSED = [
    *(_aten.leaky_relu, _aten.elu, _aten.celu, _aten.selu, _aten.hardsigmoid, _aten.hardswish, _aten.hardtanh),
    *(_aten.softplus, _aten.sinc, _aten.linalg_vector_norm),
    *(_aten.addmm, _aten.addmv, _aten.addbmm, _aten.baddbmm, _aten.addcmul, _aten.addcdiv),
]
"""Operators that torch itself decomposes."""
_WRITTEN_OUT: Mapping[Any, Callable[..., Any]] = {
    _aten.layer_norm.default: _layer_norm,
    _aten.group_norm.default: _group_norm,
    _aten._native_batch_norm_legit_no_training.default: _batch_norm,
    _aten.instance_norm.default: _instance_norm,
    _aten.scaled_dot_product_attention.default: _attention,
    _aten.log2.default: lambda x: torch.log(x) / math.log(2),
    _aten.log10.default: lambda x: torch.log(x) / math.log(10),
}

"""Sparse tensors in a trace, such as the adjacency matrix of a graph, as sums of gathered rows: ONNX has none.

A sparse tensor that depends on no input is computed outside of the trace, so its values are known.  Its product with
a dense tensor uses only the stored entries, as in PyTorch: a zero that is not stored times infinity gives no NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from ...errors import ExportError
from ..user_code import user_line
from .constants import Constants

_PRODUCTS = frozenset({"mm", "_sparse_mm", "spmm", "mv", "matmul", "__matmul__"})
_MAKES = frozenset({"sparse_coo_tensor", "sparse_csr_tensor", "to_sparse", "to_sparse_coo", "to_sparse_csr"})


def concerns_sparse(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a function takes or returns sparse tensors."""
    return name in _MAKES or any(map(is_sparse, args)) or any(map(is_sparse, kwargs.values()))


def is_sparse(item: Any) -> bool:
    """Whether it is a sparse tensor, of any layout."""
    return isinstance(item, Tensor) and item.layout is not torch.strided


def call_sparse(constants: Constants, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """The result of a function that takes or returns sparse tensors.

    Raises:
        ExportError: it is not a product of a sparse and a dense tensor, or the sparse one depends on an input.
    """
    found = constants.read(func, args, kwargs)
    if found is not None:
        with _disable_current_modes():
            return pytree.tree_map(_own_memory, found[0])
    name = getattr(func, "__name__", "")
    if name in _PRODUCTS and len(args) == 2 and not kwargs:
        one, other = args
        if is_sparse(one) and not is_sparse(other) and (entries := _entries(constants, one)) is not None:
            return _product(one.shape[0], *entries, other)
        if is_sparse(other) and not is_sparse(one) and (entries := _entries(constants, other)) is not None:
            return _product(other.shape[1], entries[0].flip(0), entries[1], one.transpose(0, -1)).transpose(0, -1)
    raise ExportError(
        f"at {user_line()}: {name}: ONNX has no sparse tensors; only the product of a sparse matrix that depends on no "
        "input with a dense one can be exported; use dense tensors, such as tensor.to_dense()"
    )


def _own_memory(item: Any) -> Any:
    """A copy of the indices or values of a sparse tensor, which torch cannot trace as views of it."""
    return item.detach().clone() if isinstance(item, Tensor) and not is_sparse(item) else item


def _entries(constants: Constants, matrix: Tensor) -> tuple[Tensor, Tensor] | None:
    """The indices (2, entries) and the values (entries,) of a sparse matrix; None where they are not known."""

    def read(matrix: Tensor) -> tuple[Tensor, Tensor]:
        plain = matrix.to_sparse(layout=torch.sparse_coo).coalesce()
        return plain.indices().clone(), plain.values().clone()

    found = constants.read(read, (matrix,), {})
    return None if found is None else found[0]


def _product(rows: int, indices: Tensor, values: Tensor, dense: Tensor) -> Tensor:
    """The product of a sparse matrix with `rows` rows and a dense matrix or vector."""
    picked = dense.index_select(0, indices[1])
    weighted = picked * (values[:, None] if dense.dim() > 1 else values)
    return dense.new_zeros((rows, *dense.shape[1:])).index_add(0, indices[0], weighted)

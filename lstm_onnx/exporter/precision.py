"""Modules and example inputs in the dtype that a precision is computed in; see `ExportOptions.dtype`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import ExportError

if TYPE_CHECKING:
    from torch import nn

    from ..spec import ExportOptions
    from .call.arguments import Arguments


def module_in_dtype(module: nn.Module, dtype: str) -> nn.Module:
    """`module` itself if all its floating-point tensors have the dtype, else a copy of it in `dtype`."""
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    tensors = itertools.chain(module.parameters(), module.buffers())
    if all(tensor.dtype == kind for tensor in tensors if tensor.is_floating_point()):
        return module
    from .copies.clone import clone_module

    copy = clone_module(module, kind)
    parts = dict(copy.named_modules())
    for name, part in module.named_modules():
        if name in parts:
            parts[name].training = part.training  # which an export tells its user
    return copy


@contextlib.contextmanager
def copy_explained(source: nn.Module, module: nn.Module, options: ExportOptions) -> Iterator[None]:
    """Within it, where the forward of `module` fails, the error says that it is a copy of `source` in another dtype.

    Raises:
        ExportError: that error.
    """
    from .functional.functional_module import ForwardFailedError

    try:
        yield
    except ForwardFailedError as error:
        if module is source:
            raise
        raise ExportError(
            f'precision = "{options.precision}" is computed in {options.dtype}, where {error.message}',
            hint="where the code names a dtype, as x.half() does, write x.to(weight.dtype), of the layer that takes it",
        ) from error


def arguments_in_dtype(arguments: Arguments, dtype: str) -> Arguments:
    """Example inputs with their floating-point tensors in `dtype`."""
    return replace(arguments, tensors=example_in_dtype(arguments.tensors, dtype))


def example_in_dtype(example: Any, dtype: str) -> Any:
    """The same for tensors in containers, as `export` takes them."""
    import torch
    from torch.utils import _pytree

    kind: torch.dtype = getattr(torch, dtype)
    return _pytree.tree_map(
        lambda item: item.to(kind) if isinstance(item, torch.Tensor) and item.is_floating_point() else item, example
    )

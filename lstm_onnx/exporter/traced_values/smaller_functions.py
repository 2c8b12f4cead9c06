"""torch's functions of several operators, written with those: torch itself fixes a size or reads a value in them.

``torch.take_along_dim`` and ``torch.gradient`` compare all sizes as numbers, ``torch.cov`` reads whether it divides by
0, ``gaussian_nll_loss`` whether a variance is negative; ``torch.bucketize`` has a translation only for boundaries that
depend on no input, ``repeat_interleave`` none with the size of its result, ``torch.fft.fftshift`` none for a dynamic
axis.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .constants import Constants


def _take_along(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor | None:
    if dim is None or input.dim() != indices.dim():
        return None
    others = [axis for axis in range(input.dim()) if axis != dim % input.dim()]
    return _repeated(input, indices, others).gather(dim, _repeated(indices, input, others))


def _repeated(x: Tensor, other: Tensor, axes: Sequence[int]) -> Tensor:
    """`x` with those of these axes that are 1 as long as in `other`."""
    ones = [axis for axis in axes if type(x.shape[axis]) is int and x.shape[axis] == 1]
    return x.expand([other.shape[axis] if axis in ones else -1 for axis in range(x.dim())]) if ones else x


def _gradients(
    input: Tensor,
    spacing: Any = 1,
    dim: int | Sequence[int] | None = None,
    edge_order: int = 1,
) -> list[Tensor] | None:
    """Half of the differences to both neighbours; at the ends by the next one number or two."""
    axes = range(input.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    distances = [spacing] * len(axes) if isinstance(spacing, (int, float)) else spacing
    if not isinstance(distances, (list, tuple)) or not all(isinstance(item, (int, float)) for item in distances):
        return None
    if len(distances) != len(axes) or not input.dim() or input.is_complex():
        return None
    return [_gradient(input, axis, float(h), edge_order) for axis, h in zip(axes, distances, strict=True)]


def _gradient(x: Tensor, dim: int, distance: float, edge_order: int) -> Tensor:
    size = x.shape[dim]

    def at(place: Any, count: Any = 1) -> Tensor:
        return x.narrow(dim, place, count)

    if edge_order == 1:
        first, last = at(1) - at(0), at(size - 1) - at(size - 2)
    else:
        first = -1.5 * at(0) + 2 * at(1) - 0.5 * at(2)
        last = 1.5 * at(size - 1) - 2 * at(size - 2) + 0.5 * at(size - 3)
    middle = (at(2, size - 2) - at(0, size - 2)) / 2
    return torch.cat([first, middle, last], dim) / distance


def _covariance(
    input: Tensor,
    *,
    correction: Any = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor | None:
    if input.dim() > 2 or input.is_complex() or not input.is_floating_point():
        return None
    x = input if input.dim() == 2 else input.reshape(1, -1)
    given = [weights.to(x.dtype) for weights in (fweights, aweights) if weights is not None]
    weights = given[0] * given[-1] if len(given) == 2 else given[0] if given else torch.ones_like(x[0])
    total = weights.sum()
    lost = correction if aweights is None else correction * (weights * given[-1]).sum() / total
    x = x - ((x * weights).sum(1) / total).unsqueeze(1)
    found: Tensor = x @ (x * weights).T / (total - lost).clamp(min=0)
    return found.reshape(()) if type(x.shape[0]) is int and x.shape[0] == 1 else found


def _correlation(input: Tensor) -> Tensor | None:
    found = _covariance(input)
    if found is None or not found.dim():
        return None if found is None else found / found
    spread = found.diagonal().sqrt()
    return (found / spread.unsqueeze(1) / spread).clip(-1, 1)


def _bucketize(
    input: Any,
    boundaries: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
) -> Tensor | None:
    if not isinstance(input, Tensor):
        return None
    return torch.searchsorted(boundaries, input, out_int32=out_int32, right=right)


def _repeated_each(
    input: Tensor,
    repeats: Any = None,
    dim: int | None = None,
    *,
    output_size: Any = None,
) -> Tensor | None:
    if output_size is None or not isinstance(repeats, Tensor):
        return None
    return torch.repeat_interleave(input, repeats, dim)


def _gaussian_loss(
    input: Tensor,
    target: Tensor,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor | None:
    if not isinstance(var, Tensor) or reduction not in ("none", "mean", "sum"):
        return None
    if var.dim() == input.dim() - 1:
        var = var.unsqueeze(-1)
    var = var.clamp(min=eps)
    loss: Tensor = 0.5 * (var.log() + (input - target) ** 2 / var)
    loss = loss + 0.5 * math.log(2 * math.pi) if full else loss
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()


def _shifted(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    return _rolled(input, dim, 1)


def _shifted_back(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    return _rolled(input, dim, -1)


def _rolled(x: Tensor, dim: int | Sequence[int] | None, sign: int) -> Tensor:
    """`x` rolled by half of its size along each of these axes."""
    for axis in range(x.dim()) if dim is None else [dim] if isinstance(dim, int) else dim:
        size: Any = x.shape[axis]
        x = x.index_select(axis, (torch.arange(size, device=x.device) - sign * (size // 2)) % size)
    return x


def _instead(compute: Callable[..., Any]) -> Callable[..., Any]:
    """What calls `compute` for a function of torch, unless it takes other arguments or gives None."""
    signature = inspect.signature(compute)

    def replaced(constants: Constants, _func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any] | None:
        named = {"input" if name == "self" else name: value for name, value in kwargs.items()}
        try:
            signature.bind(*args, **named)
        except TypeError:  # such as with `out`
            return None
        found = constants.call(compute, args, named)
        return None if found is None else (found,)

    return replaced


SMALLER_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "take_along_dim": _instead(_take_along),
    "gradient": _instead(_gradients),
    "cov": _instead(_covariance),
    "corrcoef": _instead(_correlation),
    "bucketize": _instead(_bucketize),
    "repeat_interleave": _instead(_repeated_each),
    "gaussian_nll_loss": _instead(_gaussian_loss),
    "fft_fftshift": _instead(_shifted),
    "fft_ifftshift": _instead(_shifted_back),
}
"""By names of torch's functions, as in `torch_functions`."""

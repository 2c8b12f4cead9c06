"""Weights that a checkpoint holds as what they are computed from: weight_norm, spectral_norm, pruning, DropConnect.

torch's older functions append to a parameter's name (``weight_hh_l0_g``), its parametrizations have names of their
own (``parametrizations.weight_hh_l0.original0``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from ...errors import WeightsError
from ..weights import Array, shortened
from .checkpoint_names import plain_name

_RECURRENT = re.compile(r"(weight|bias)_(ih|hh|hr)_l\d+(_reverse)?")
_Parts = Mapping[str, str]
"""The tensors of one parameter: their names by what follows the parameter's (``_g``, ``.original0``)."""


def with_computed(arrays: Mapping[str, Array], module_names: Collection[str] | None, *, where: str) -> dict[str, Array]:
    """The tensors of a checkpoint, with the parameters that are computed from others in these others' place.

    Args:
        arrays: by their names.
        module_names: the names in the state dict of the module that they are for; None for an nn.LSTM.
        where: the file, for messages.

    Raises:
        WeightsError: a parameter is computed by code that is not known from the names.
    """
    found = dict(arrays)
    own = module_names or ()
    for name, parts in _parametrized([name for name in arrays if name not in own]):
        if module_names is None and not _RECURRENT.fullmatch(name):
            continue
        if module_names is not None and name not in module_names:
            _rename_weight_norm(found, name, parts, module_names)
            continue
        value = _computed(arrays, parts)
        if value is None:
            raise WeightsError(
                f"{where}: {name} is computed by a parametrization ({shortened(list(parts.values()), ', ', 4)}) whose "
                "code is not in the file; load the file into the module that registers it, call torch.nn.utils."
                "parametrize.remove_parametrizations there, and save its state_dict()"
            )
        for part in parts.values():
            del found[part]
        found[name] = value
    return found


def _parametrized(names: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each parameter that there are other tensors for, and these."""
    groups: dict[str, dict[str, str]] = {}
    for name in names:
        plain = plain_name(name)
        if plain != name:
            head = f"{plain.rpartition('.')[0]}." if "." in plain else ""
            full = f"{head}parametrizations.{plain.rpartition('.')[2]}"
            part = name.removeprefix(full) if name.startswith(f"{full}.") else name.removeprefix(plain)
            groups.setdefault(plain, {})[part] = name
    yield from groups.items()


def _rename_weight_norm(found: dict[str, Array], name: str, parts: _Parts, module_names: Collection[str]) -> None:
    """The names of torch's older weight_norm as those of its parametrization, as load_state_dict does."""
    head, dot, last = name.rpartition(".")
    for old, new in (("_g", "original0"), ("_v", "original1")):
        target = f"{head}{dot}parametrizations.{last}.{new}"
        if old in parts and target in module_names and parts[old] not in module_names:
            found[target] = found.pop(parts[old])


def _computed(arrays: Mapping[str, Array], parts: _Parts) -> Array | None:
    """The parameter as the module uses it in eval mode; None where that is not known."""

    def has(*kinds: str) -> bool:
        return set(parts) == set(kinds)

    def get(kind: str) -> Array:
        return arrays[parts[kind]]

    if has("_raw"):
        return get("_raw")
    if has("_orig", "_mask"):
        return get("_orig") * get("_mask").astype(get("_orig").dtype)
    for magnitude, direction in (("_g", "_v"), (".original0", ".original1")):
        if has(magnitude, direction):
            return _weight_norm(get(magnitude), get(direction))
    for matrix, left, right in (("_orig", "_u", "_v"), (".original", ".0._u", ".0._v")):
        if has(matrix, left, right):
            return _spectral_norm(get(matrix), get(left), get(right))
    return None


def _weight_norm(magnitude: Array, direction: Array) -> Array | None:
    """``g * v / |v|``, where the shape of g tells along which axes the norm is taken."""
    if magnitude.size == 1:
        axes = tuple(range(direction.ndim))
        magnitude = magnitude.reshape((1,) * direction.ndim)
    else:
        if magnitude.ndim != direction.ndim or sum(size > 1 for size in magnitude.shape) > 1:
            return None  # another parametrization with two tensors
        axes = tuple(axis for axis, size in enumerate(magnitude.shape) if size == 1 != direction.shape[axis])
    kept = [size for axis, size in enumerate(direction.shape) if axis not in axes]
    if [size for axis, size in enumerate(magnitude.shape) if axis not in axes] != kept:
        return None
    wide = direction.astype(np.float64)
    with np.errstate(all="ignore"):
        value = magnitude.astype(np.float64) * wide / np.sqrt((wide**2).sum(axis=axes, keepdims=True))
    return np.asarray(value, direction.dtype)


def _spectral_norm(matrix: Array, left: Array, right: Array) -> Array | None:
    """``W / (u W v)``, as in eval mode, which keeps u and v."""
    wide = matrix.astype(np.float64)
    if matrix.ndim != 2 or (matrix.shape[0] == matrix.shape[1]):
        return None  # of a square matrix the shapes do not tell on which side u stands
    if (len(left), len(right)) != matrix.shape:
        left, right = right, left
    if (len(left), len(right)) != matrix.shape:
        return None
    with np.errstate(all="ignore"):
        value = wide / (left.astype(np.float64) @ wide @ right.astype(np.float64))
    return np.asarray(value, matrix.dtype)

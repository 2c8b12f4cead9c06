"""What a model takes: each input's name, axes, dtype and range, and random arrays that fit.

`InputSpec` describes one input of a module that is more than an LSTM.  It is read from a model's
.toml and travels in an exported file's metadata as JSON; `draw` makes the arrays that an export is
traced with and a parity check runs on.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from .errors import ConfigError, one_of
from .symbolic_dims import is_expression, names_in, size_of

INPUT_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
"""What an input may be of, by numpy's names."""
_LARGEST_SIZE = 2**31 - 1
_MOST_AXES = 64
"""numpy's and torch's limit."""
_DRAWN_BYTES = 8
"""An entry's bytes while it is drawn, in float64 or int64."""
_DEFAULT_INTEGERS = (0, 1)
"""Integers without a range: the two that nearly every vocabulary and every flag has."""


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    `name` is what the input is called; that of an entry in a dict argument has the argument's name
    before it, as in "batch.tokens".  `shape` holds sizes and axis names, such as ``("batch", 80)``,
    and sums and products of axis names, such as ``"4*time - 16"``, for an axis whose size follows from others.
    `low` and `high`, both or neither, bound what `draw` gives.  For integers both are inclusive, and
    `high` may be the name of an axis, of this input or of another: lengths are from 1 to "time".
    `whole` is for floats with a range that are whole numbers, such as those that a module turns into an index.

    Raises:
        ConfigError: a value is of the wrong type or impossible; the message names it and says what
            is allowed.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    low: int | float | None = None
    high: int | float | str | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        """Refuse what no array can be."""
        if not is_name(self.name):
            raise ConfigError.of_argument("name", self.name, "a string of printable characters without spaces")
        right_rank = isinstance(self.shape, tuple) and len(self.shape) <= _MOST_AXES
        if not right_rank or not all(_is_dimension(dim) for dim in self.shape):
            shown = list(self.shape) if isinstance(self.shape, tuple) else self.shape
            allowed = f'up to {_MOST_AXES} sizes of 1 or more and axis names, such as ["batch", 4]'
            raise ConfigError.of_argument("shape", shown, allowed)
        # numpy's own dtypes equal their names, and JSON does not take them.
        if not isinstance(self.dtype, str) or self.dtype not in INPUT_DTYPES:
            raise ConfigError.of_argument("dtype", self.dtype, one_of(INPUT_DTYPES))
        if (self.low is not None or self.high is not None) and not self._range_fits():
            raise ConfigError.of_argument("range", [self.low, self.high], _allowed_range(np.dtype(self.dtype)))
        if self.whole is not False and not self._can_be_whole():
            allowed = "true or false, and true only for floats with a range of integers"
            raise ConfigError.of_argument("whole", self.whole, allowed)

    def _can_be_whole(self) -> bool:
        ends = (self.low, self.high)
        return self.whole is True and np.dtype(self.dtype).kind == "f" and all(type(end) is int for end in ends)

    def _range_fits(self) -> bool:
        dtype, low, high = np.dtype(self.dtype), self.low, self.high
        if dtype.kind == "b":
            return False
        if dtype.kind in "iu" and isinstance(high, str):
            return _is_axis(high) and _fits(low, dtype)
        # Only numbers fit, so that what is compared last is two of them.
        return _fits(low, dtype) and _fits(high, dtype) and low <= high  # type: ignore[operator]

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON; `low` and `high` only where there is a range, `whole` only where it is true."""
        fields: dict[str, Any] = {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}
        if self.low is not None:
            fields |= {"low": self.low, "high": self.high}
        return {**fields, "whole": True} if self.whole else fields

    @classmethod
    def from_dict(cls, fields: object) -> InputSpec:
        """Read back what `to_dict` wrote.

        Raises:
            ConfigError: a field is missing, unknown or impossible.
        """
        if not isinstance(fields, Mapping):
            raise ConfigError(
                f"an input's description is a {type(fields).__name__}", hint="it must map names to values"
            )
        known = {item.name for item in dataclasses.fields(cls)}
        if unknown := [str(name) for name in fields if name not in known]:
            raise ConfigError(f"an input's description has the unknown field {unknown[0]!r}")
        if missing := [name for name in ("name", "shape", "dtype") if name not in fields]:
            raise ConfigError(f"an input's description lacks {', '.join(missing)}")
        shape = fields["shape"]
        return cls(**{**fields, "shape": tuple(shape) if isinstance(shape, list) else shape})


def is_name(value: object) -> bool:
    """Whether `value` can name an input or an output: printable characters, and no spaces."""
    return isinstance(value, str) and value != "" and value.isprintable() and " " not in value


def axes(specs: Sequence[InputSpec]) -> tuple[str, ...]:
    """Every axis name that `draw` wants a size for, in order of appearance."""
    return tuple(dict.fromkeys(axis for spec in specs for axis in _axes_of(spec)))


def sizes_of(
    specs: Sequence[InputSpec],
    batch: int,
    time: int,
    *,
    others: int | None = None,
    known: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, int]:
    """A size for every named axis.

    ``batch`` and ``time`` go by their names and by those in `known` (``{"rows": "batch"}``), or where none of these
    occurs by the axes' order; every other axis is longer than time (or than `others`), each by its own amount, so that
    none is confused with another; but where both are 1 all are.
    """
    names = list(axes(specs))
    roles = {"batch": batch, "time": time}
    roles |= {name: roles[role] for name, role in known.items()}
    if not roles.keys() & set(names):
        roles = dict(zip(names, (batch, time), strict=False))
    further = [name for name in names if name not in roles]
    shorter = time if others is None else others
    extra = {name: 1 if batch == time == 1 else shorter + 2 + index for index, name in enumerate(further)}
    return {name: roles[name] if name in roles else extra[name] for name in names}


def named_sizes(specs: Sequence[InputSpec], arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The sizes of the named axes, from arrays of some of the inputs."""
    return {
        dim: arrays[spec.name].shape[axis]
        for spec in specs
        if spec.name in arrays
        for axis, dim in enumerate(spec.shape)
        if isinstance(dim, str)
    }


def unbounded_inputs(specs: Sequence[InputSpec]) -> list[str]:
    """The floating-point inputs without a range."""
    return [spec.name for spec in specs if np.dtype(spec.dtype).kind == "f" and spec.low is None]


def most_entries(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> int:
    """The entries of the largest input at these sizes of the axes."""
    return max((math.prod(_shape(spec, _bound(spec, sizes))) for spec in specs), default=0)


def draw(specs: Sequence[InputSpec], sizes: Mapping[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random arrays that fit `specs`, the same for the same state of `rng`.

    Floats are standard normal, or uniform in their range (rounded to the dtype).  Integers, and floats
    that are whole numbers, are uniform in their range, both ends included; integers without one are 0
    or 1.  Bools are fair coins, but no row of a mask is all of one kind.  Where an axis bounds the
    integers, one entry at least is the axis' size, so that a whole sequence occurs, and of two entries
    or more one at least is below it where the range allows.

    Args:
        specs: the inputs, each with its own name.
        sizes: a size of 1 or more for each of ``axes(specs)``.
        rng: advances with each call.

    Returns:
        Each input's name to an array of its dtype, of its shape with the sizes in it.

    Raises:
        ConfigError: an axis has no size or an impossible one, two inputs share a name, a range is
            empty at these sizes, or an array does not fit into memory.
    """
    arrays: dict[str, np.ndarray] = {}
    for spec in specs:
        if spec.name in arrays:
            raise ConfigError(f"two inputs are named {spec.name}", hint="each needs a name of its own")
        bound = _bound(spec, sizes)
        shape = _shape(spec, bound)
        too_large = ConfigError(f"the input {spec.name} of shape {shape} does not fit into memory")
        if math.prod(shape) > sys.maxsize // _DRAWN_BYTES:  # numpy counts no further
            raise too_large
        try:
            arrays[spec.name] = _drawn(spec, shape, bound, rng)
        except MemoryError as error:
            raise too_large from error
    return arrays


def _bound(spec: InputSpec, sizes: Mapping[str, int]) -> dict[str, int]:
    return {axis: _size(spec, axis, sizes) for axis in _axes_of(spec)}


def _shape(spec: InputSpec, bound: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(_derived(spec, dim, bound) if isinstance(dim, str) else dim for dim in spec.shape)


def longest_first(specs: Sequence[InputSpec], arrays: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Drawn arrays with the sequences from the longest to the shortest, as pack_padded_sequence wants them by default.

    Lengths are sorted.  Masks become those of padding at the end, where there are any: first as ones within the
    sequences, then as ones past their ends.
    """
    lengths = [spec.name for spec in specs if isinstance(spec.high, str)]
    masks = [spec.name for spec in specs if _may_be_mask(spec)]
    ordered = {
        name: -np.sort(-array.astype(np.int64)).astype(array.dtype) if name in lengths else array
        for name, array in arrays.items()
    }
    if lengths:
        yield ordered
    if masks:
        for within in (1, 0):
            yield ordered | {name: _padding_mask(arrays[name], within) for name in masks}


def _may_be_mask(spec: InputSpec) -> bool:
    """Whether it may say which steps of each sequence are padding: bools, zeros or ones of two dynamic axes."""
    kind, open_axes = np.dtype(spec.dtype).kind, [isinstance(dim, str) for dim in spec.shape]
    return open_axes == [True, True] and (kind == "b" or (kind in "iu" and (spec.low, spec.high) == (0, 1)))


def _padding_mask(mask: np.ndarray, within: int) -> np.ndarray:
    """`mask` with each row's steps `within` before the others, and the longest rows, one of full length, first."""
    counts = -np.sort(-np.maximum((mask == within).sum(axis=-1), 1))
    counts[:1] = mask.shape[-1]
    inside = np.arange(mask.shape[-1]) < counts[:, None]
    return np.where(inside, within, 1 - within).astype(mask.dtype)


def _drawn(spec: InputSpec, shape: tuple[int, ...], bound: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    dtype, low, high = np.dtype(spec.dtype), spec.low, spec.high
    if isinstance(high, str):
        return _drawn_up_to(spec, shape, bound[high], rng)
    if dtype.kind == "b":
        return _drawn_mask(_without_fixed_ones(spec.shape, shape), rng).reshape(shape)
    if dtype.kind == "f":
        if low is None or high is None:
            return np.asarray(rng.standard_normal(shape), dtype)
        if spec.whole:
            return np.asarray(rng.integers(int(low), int(high), shape, endpoint=True), dtype)
        start, end, share = float(low), float(high), rng.random(shape)
        # Weighted ends instead of start + width * share: the width of float64's whole range is infinite.
        return np.asarray(np.clip(start * (1 - share) + end * share, start, end), dtype)
    first, last = _DEFAULT_INTEGERS if low is None or high is None else (int(low), int(high))
    return np.asarray(rng.integers(first, last, shape, dtype=dtype.type, endpoint=True), dtype)


def _without_fixed_ones(dims: Sequence[int | str], shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` without its last axes that are always 1: whether each environment's episode goes on, to broadcast."""
    kept = len(dims)
    while kept and dims[kept - 1] == 1:
        kept -= 1
    return shape[:kept]


def _drawn_mask(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Fair coins; of two axes or more, along the last both sides in each row, or False where there is one entry.

    A bool of two axes is nearly always a mask, of what is valid or of what is not, and most modules
    have no answer for a row in which nothing is valid.
    """
    mask = np.asarray(rng.integers(0, 2, shape), np.bool_)
    if mask.ndim > 1 and mask.size:
        width = mask.shape[-1]
        rows = mask.reshape(-1, width)  # a view: the array is new and in one piece
        for row in rows:
            if width == 1:
                row[0] = False
            elif row.all() or not row.any():
                row[rng.integers(width)] ^= True
    return mask


def _drawn_up_to(spec: InputSpec, shape: tuple[int, ...], size: int, rng: np.random.Generator) -> np.ndarray:
    """Integers from `low` to an axis' size, whole and shorter sequences among them."""
    dtype, low = np.dtype(spec.dtype), spec.low
    if not isinstance(low, int) or not low <= size:
        raise ConfigError(f"the input {spec.name} is from {low} to {spec.high}, and {spec.high} is {size} here")
    if not _fits(size, dtype):
        raise ConfigError(f"the input {spec.name} is {dtype}, which cannot hold {spec.high} = {size}")
    array = np.asarray(rng.integers(low, size, shape, dtype=dtype.type, endpoint=True), dtype)
    flat = array.reshape(-1)  # a view: the array is new and in one piece
    if not (flat == size).any():
        flat[rng.integers(flat.size)] = size
    elif flat.size > 1 and low < size and (flat == size).all():
        flat[rng.integers(flat.size)] = rng.integers(low, size)
    return array


def _axes_of(spec: InputSpec) -> Iterator[str]:
    for dim in spec.shape:
        if isinstance(dim, str):
            yield from (dim,) if dim.isidentifier() else sorted(names_in(dim))
    if isinstance(spec.high, str):
        yield spec.high


def _derived(spec: InputSpec, dim: str, sizes: Mapping[str, int]) -> int:
    size = size_of(dim, sizes)
    if size is None or not 1 <= size <= _LARGEST_SIZE:
        at = ", ".join(f"{name} = {sizes[name]}" for name in sorted(names_in(dim)))
        raise ConfigError(f"the input {spec.name} has no entries along {dim} at {at}", hint="it must be 1 or more")
    return size


def _size(spec: InputSpec, axis: str, sizes: Mapping[str, int]) -> int:
    if axis not in sizes:
        known = ", ".join(sizes) or "none"
        raise ConfigError(
            f"the input {spec.name} needs a size for the axis {axis}", hint=f"sizes are given for: {known}"
        )
    size = sizes[axis]
    if not 1 <= size <= _LARGEST_SIZE:
        raise ConfigError.of_argument(f"the axis {axis}", size, "an integer of 1 or more")
    return operator.index(size)


def _is_axis(dim: object) -> bool:
    return isinstance(dim, str) and dim.isidentifier()


def _is_dimension(dim: object) -> bool:
    return _is_axis(dim) or is_expression(dim) or (type(dim) is int and 1 <= dim <= _LARGEST_SIZE)


def _fits(value: object, dtype: np.dtype[Any]) -> bool:
    """Whether `value` is a number that `dtype` can hold; a bool is none, nor is NaN or infinity."""
    if dtype.kind == "f":
        # Python compares an int of any size with a float without rounding either; NaN is never <=.
        return type(value) in (int, float) and abs(value) <= float(np.finfo(dtype).max)  # type: ignore[arg-type]
    limits = np.iinfo(dtype)
    return type(value) is int and int(limits.min) <= value <= int(limits.max)


def _allowed_range(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "b":
        return "left out, as a bool has none"
    if dtype.kind == "f":
        return f"[low, high], two numbers that {dtype} can hold, low <= high"
    limits = np.iinfo(dtype)
    return (
        f"[low, high], two integers from {limits.min} to {limits.max}, low <= high, "
        'where high may be the name of an axis, as in [1, "time"]'
    )

"""Inputs whose integers count along an axis, as lengths do along time: each is from a least one to that axis' size.

PyTorch refuses any other; a graph gives NaN, or whatever is behind the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..metadata import Metadata
from .tensor_info import ValueInfo


@dataclass(frozen=True)
class Count:
    """That an input's integers are from `low` to the size of `axis`, both included."""

    low: int
    axis: str


def counts_of(metadata: Metadata, inputs: Mapping[str, ValueInfo]) -> dict[str, Count]:
    """The inputs of a model that count along an axis, by what its metadata says of them."""
    if metadata.spec is not None:
        return {"lengths": Count(1, "time")} if "lengths" in inputs else {}
    return {
        spec.name: Count(int(spec.low or 0), spec.high)
        for spec in metadata.inputs
        if isinstance(spec.high, str) and spec.name in inputs
    }


def require_counts(counts: Mapping[str, Count], arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> None:
    """Refuse integers outside their axis.

    Args:
        counts: by input.
        arrays: what is given; what is not among `counts`, or holds no integers, is not looked at.
        sizes: of the named axes; where one is not known, only the least is looked at.

    Raises:
        InputError: one is below its least or above its axis' size; the message names the input and the index.
    """
    for name, count in counts.items():
        array = arrays.get(name)
        if array is None or array.dtype.kind not in "iu" or array.size == 0:
            continue
        size = sizes.get(count.axis)
        outside = array < count.low if size is None else (array < count.low) | (array > size)
        if not np.any(outside):
            continue
        index = np.unravel_index(int(np.argmax(outside)), array.shape)
        place = f"[{', '.join(str(int(i)) for i in index)}]" if index else ""
        allowed = f"{count.low} or more" if size is None else f"from {count.low} to {count.axis}, {size}"
        raise InputError(f"{name}{place} is {array[index]}; it must be {allowed}")

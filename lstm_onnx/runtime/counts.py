"""Inputs whose integers count along an axis, as lengths do along time: each is at most that axis' size.

PyTorch refuses larger ones; a graph gives NaN, or reads past the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..metadata import Metadata, Streaming
from .tensor_info import ValueInfo


@dataclass(frozen=True)
class Count:
    """The range of an input's integers: from `low` to the size of `axis`, both included."""

    low: int
    axis: str


def counts_of(metadata: Metadata, inputs: Mapping[str, ValueInfo]) -> dict[str, Count]:
    """The inputs of a model that count along an axis, according to its metadata."""
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
        arrays: by input; those that are not in `counts` or hold no integers are ignored.
        sizes: of the named axes; where one is not known, only the lower bound is checked.

    Raises:
        InputError: one is out of range; the message names the input and the index.
    """
    for name, count in counts.items():
        array = arrays.get(name)
        if array is None or array.dtype.kind not in "iu" or array.size == 0:
            continue
        size = sizes.get(count.axis)
        outside = array < count.low if size is None else (array < count.low) | (array > size)
        if not np.any(outside):
            continue
        index = tuple(map(int, np.unravel_index(int(np.argmax(outside)), array.shape)))
        place = f"[{', '.join(map(str, index))}]" if index else ""
        allowed = f"{count.low} or more" if size is None else f"from {count.low} to {count.axis}, {size}"
        raise InputError(f"{name}{place} is {array[index]}", hint=f"it must be {allowed}", name=name, index=index)


def require_whole_chunks(streaming: Streaming | None, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse chunks that are not multiples of what the file takes (InputError); None is a file that takes any."""
    if streaming is None or streaming.chunk == 1:
        return
    for name, axis in streaming.time.items():
        steps = arrays[name].shape[axis]
        if steps % streaming.chunk:
            raise InputError(
                f"{name} has {steps} steps, and the file takes multiples of {streaming.chunk}",
                hint="collect so many, or make the file for chunks of any length (without chunk)",
                name=name,
            )

"""Validates inputs whose integers count along an axis, as lengths do along time: each is at most that axis's size.

PyTorch refuses larger ones; a graph would give NaN, or read past the end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..metadata import ENDED, Metadata, Streaming
from .tensor_info import ValueInfo


@dataclass(frozen=True)
class Count:
    """The range of an input's integers: from `low` to the size of `axis`, both inclusive."""

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
        sizes: of the named axes; if one is not known, only the lower bound is checked.

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
        allowed = f"{count.low} or more" if size is None else f"from {count.low} to {count.axis}, {size}"
        raise _out_of_range(name, array, outside, f"it must be {allowed}")


def require_table_rows(table_rows: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse rows that a table does not have: PyTorch does so, but a graph reads -1 as the last row.

    Args:
        table_rows: the number of rows, by the input that is looked up.
        arrays: by input; those that are not in `table_rows` or hold no integers are ignored.

    Raises:
        InputError: one is out of range; the message names the input and the index.
    """
    for name, rows in table_rows.items():
        array = arrays.get(name)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or array.size == 0:
            continue
        if array.size == 1:  # a step of one sequence, for which a reduction would take longest
            if 0 <= array.item() < rows:
                continue
        elif array.min() >= 0 and array.max() < rows:
            continue
        hint = f"it must be from 0 to {rows - 1}: the model looks it up in a table of {rows} rows"
        raise _out_of_range(name, array, (array < 0) | (array >= rows), hint)


def _out_of_range(name: str, array: np.ndarray, outside: np.ndarray, hint: str) -> InputError:
    index = tuple(map(int, np.unravel_index(int(np.argmax(outside)), array.shape)))
    place = f"[{', '.join(map(str, index))}]" if index else ""
    return InputError(f"{name}{place} is {array[index]}", hint=hint, name=name, index=index)


def require_whole_sequence(
    streaming: Streaming, arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int], states: Collection[str]
) -> None:
    """Refuse a sequence with fewer steps than the model takes, if it ends with this call, outside of a stream.

    Args:
        streaming: of the file.
        arrays: the inputs with the position in a sequence: `streaming.last` and `streaming.steps`, if passed.
        sizes: the steps of each input that is divided into chunks.
        states: the states that were passed, from which the sequence continues.

    Raises:
        InputError: it has too few steps, or not a multiple of what the model takes.
    """
    if streaming.least == streaming.multiple == 1:
        return
    ends = not states if streaming.last is None else streaming.last not in arrays or bool(arrays[streaming.last].all())
    if not ends:
        return
    counted = arrays.get(streaming.steps or "")
    before = 0 if counted is None else int(counted.reshape(-1)[0])
    for name, size in sizes.items():
        steps = before + size
        if steps < streaming.least or steps % streaming.multiple:
            takes = f"{streaming.least} or more" if steps < streaming.least else f"multiples of {streaming.multiple}"
            raise InputError(
                f"{name} ends a sequence of {steps} steps, but the model takes {takes}",
                hint="model.stream() takes a sequence in shorter chunks",
                name=name,
            )


def require_one_place(streaming: Streaming, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse states of sequences that cannot be stepped together: a file counts the steps of the first (InputError).

    Nor can those that have ended.
    """
    counted = arrays.get(streaming.steps or "")
    if counted is None or counted.dtype.kind != "i":  # `verify` reports metadata that are wrong about it
        return
    counts = sorted(set(counted.reshape(-1).tolist()))
    if ENDED in counts:
        raise InputError(
            f"{streaming.steps} is that of a sequence that has ended, and nothing can follow on its states",
            hint=f"keep the states before flush; run needs {streaming.last} = 0 before the end",
            name=streaming.steps,
        )
    if len({streaming.place(steps) for steps in counts}) > 1:
        raise InputError(
            f"{streaming.steps} says that the sequences are after {', '.join(map(str, counts[:5]))} steps; such "
            "sequences cannot be stepped together",
            hint="open a stream for each",
            name=streaming.steps,
        )


def require_whole_chunks(streaming: Streaming, sizes: Mapping[str, int]) -> None:
    """Refuse chunks that are not multiples of what the file takes (InputError); `sizes` are the steps of each input."""
    for name, steps in sizes.items():
        if steps % streaming.chunk:
            raise InputError(
                f"{name} has {steps} steps, but the file takes multiples of {streaming.chunk}",
                hint="collect that many, or make the file without chunk, for chunks of any length",
                name=name,
            )

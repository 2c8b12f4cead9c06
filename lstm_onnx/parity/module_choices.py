"""What a whole module is compared at beside the ordinary sizes: every small size, chosen values, every row of a table.

A module's rows and steps may know of each other in any way, so that each size is a run of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from ..input_spec import InputSpec, axes
from .embeddings import Rows
from .sizes import DENSE, LONG, Axes

_MOST_WORK = 6e9
"""Multiplications of a sweep over one axis, in each of three runs (PyTorch twice, and the file)."""
_CALL = 5e7
"""What a call costs at least, in the same unit."""
_MOST_LOOKUPS = 2e10
"""The same for the rows of a table."""
_MOST_NUMBERS = 2**19
"""Of a sweep's outputs, so that a golden file stays small."""
_DENSE_BATCH = 33
_LONGEST = 513
_WIDE = 64
"""Features of an output from which only some are compared, in a sweep over the rows of a table."""
_LARGE, _HUGE, _LARGEST_HALF = 10.0, 1000.0, 100.0
"""What drawn numbers are multiplied by; float16 ends at 65504."""

Arrays = dict[str, np.ndarray]


def axis_sizes(
    axis: str, base: Mapping[str, int], limits: Axes, weights: int, numbers: float, *, batch: bool
) -> list[dict[str, int]]:
    """The sizes of all axes in each call of a sweep over one.

    Args:
        axis: the one.
        base: the sizes of the others.
        limits: what is known of the axes.
        weights: how many parameters the module has.
        numbers: how many an output of the base sizes has.
        batch: whether it is the batch, of which a few are as telling as many.
    """
    cells = float(np.prod([size for name, size in base.items() if name != axis], initial=1.0))

    def cost(size: int) -> float:
        work = (_CALL + weights * cells * size) / _MOST_WORK
        return max(work, numbers * size / max(base[axis], 1) / _MOST_NUMBERS)

    first, largest = ((64,), 129) if batch else ((LONG,), _LONGEST)
    sizes = limits.to_try(
        axis, cost, 0.5 if batch else 1.0, first=first, largest=largest, dense=_DENSE_BATCH if batch else DENSE
    )
    return [{**base, axis: size} for size in sizes]


def value_changes(
    specs: Sequence[InputSpec], states: Sequence[str], inputs: Mapping[str, np.ndarray], gain: float, dtype: str
) -> Iterator[tuple[str, Arrays]]:
    """What inputs and states are made of drawn ones, with a name for each.

    Args:
        specs: of the inputs; those with a range stay within it.
        states: the names of inputs and states that are the latter.
        inputs: what was drawn, states included.
        gain: by what an input of a quiet model has to be larger.
        dtype: the model's.
    """
    ranged = {spec.name: spec for spec in specs if spec.low is not None}
    open_axes = set(axes(specs))
    numbers = [name for name, array in inputs.items() if array.dtype.kind == "f" and name not in ranged]
    plain = [name for name in numbers if name not in states]
    held = [name for name in numbers if name in states]
    most = _LARGEST_HALF if dtype == "float16" else _HUGE
    large, huge = min(_LARGE, most), max(most, 30 * gain)

    def made(names: Sequence[str], size: float, sign: int = 0) -> Arrays:
        return {name: _scaled(inputs[name], size, sign) for name in names}

    def ends(high: bool) -> Arrays:
        found = {}
        for name, spec in ranged.items():
            end = spec.high if high else spec.low
            if name in inputs and not isinstance(end, str) and open_axes:
                found[name] = np.full_like(inputs[name], end)
        return found

    if numbers:
        yield "all zeros", made(numbers, 0.0)
        yield "all positive", made(numbers, 1.0, 1)
        yield "all negative", made(numbers, 1.0, -1)
    if plain:
        yield "large input", made(plain, large)
        yield "huge input", made(plain, huge)
        yield "huge positive input", made(plain, huge, 1)
    if held:
        yield "states zeros", made(held, 0.0)
        yield "large states", made(held, large)
        yield "large positive states", made(held, large, 1)
        yield "large negative states", made(held, large, -1)
        yield "huge states", made(held, most)
    if plain and held:
        yield "input zeros", made(plain, 0.0)
    for label, high in (("least", False), ("largest", True)):
        if found := ends(high):
            yield f"{label} of {', '.join(found)}", found


def _scaled(array: np.ndarray, size: float, sign: int) -> np.ndarray:
    signed = sign * np.abs(array) if sign else array
    # Adding 0 makes 0 of what would be -0.
    return np.asarray(signed * np.float64(size) + 0.0, array.dtype)


def tokens_to_try(rows: Rows, most: int, first: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Integers of an input, each once: all that it can be, or `most` of them, `first` and the ends among those."""
    count = rows.high - rows.low + 1
    if count <= most:
        return rng.permutation(np.arange(rows.low, rows.high + 1))
    chosen = [rows.high, rows.low, *first[: most // 2].tolist()]
    others = rng.choice(count, most, replace=False) + rows.low
    return np.array(list(dict.fromkeys([*chosen, *others.tolist()]))[:most])


def most_tokens(weights: int, numbers: float) -> int:
    """How many rows of a table can be tried, by the parameters behind it and the numbers that each gives."""
    return max(int(min(_MOST_LOOKUPS / max(weights, 1), _MOST_NUMBERS / max(numbers, 1.0))), 64)


def feature_steps(references: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Of wide outputs, each how manieth feature is compared."""
    return {
        name: -(-array.shape[-1] // (_WIDE // 2))
        for name, array in references.items()
        if array.ndim > 1 and array.dtype.kind == "f" and array.shape[-1] > _WIDE
    }


def differing_rows(graph: onnx.ModelProto, folder: str, table: np.ndarray) -> np.ndarray | None:
    """The rows of `table` that are others in a file, largest differences first; None where it is not found there."""
    found: np.ndarray | None = None
    for tensor in graph.graph.initializer:
        if tuple(tensor.dims) != table.shape:
            continue
        array = numpy_helper.to_array(tensor, folder)
        if array.dtype.kind != "f":
            continue
        differences = np.abs(array.astype(np.float64) - table.astype(np.float64)).max(axis=1)
        order = np.argsort(-differences, kind="stable")
        rows = order[: int(np.count_nonzero(~(differences == 0)))]
        if found is None or len(rows) < len(found):
            found = rows
    return found


def chunks_of(tokens: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """`size` at a time; the last is filled up with the first."""
    for start in range(0, len(tokens), size):
        part = tokens[start : start + size]
        yield np.fromiter(itertools.islice(itertools.chain(part, itertools.cycle(tokens)), size), np.int64, size)

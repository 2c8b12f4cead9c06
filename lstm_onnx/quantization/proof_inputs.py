"""Inputs for the proof of an int8 file, drawn for a file of any origin."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..data.random_input import default_sizes
from ..errors import InputError
from ..input_spec import draw
from ..onnxgraph.recurrent import SEQUENCE_LENS, input_of, is_operator
from ..onnxgraph.scopes import Scope
from ..runtime import Model, ValueInfo
from ..symbolic_dims import size_of
from .rewrite import Rewritten

_BATCH, _TIME = 3, 12
"""Sizes of drawn inputs, where the file's limits allow them."""


def proof_inputs(
    model: Model, done: Rewritten, seed: int, sizes: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """Inputs and states: as the metadata describes them, else standard normal.

    Of integers that the metadata does not describe, the lengths of an int8 layer are drawn up to the time, indices of
    an int8 table within it, and all others are 1.  Of a file of other tools, an input of one axis that reaches a layer
    as its lengths, or whose name says that it is lengths, is one: the longest first, which is the time, as
    `pack_padded_sequence` asks for by default.

    Args:
        model: the float32 file, open.
        done: its int8 form.
        seed: of all that is drawn.
        sizes: of named axes, instead of the default ones.

    Raises:
        InputError: an input is of another type.
    """
    rng = np.random.default_rng(seed)
    own = {axis: _TIME if size > 1 else _BATCH for axis, size in default_sizes(model).items()}
    sizes = {axis: model.metadata.nearest_size(axis, size) for axis, size in (own | dict(sizes or {})).items()}
    named = {axis: size for axis, size in sizes.items() if axis == "time" or axis.endswith("_time")}
    time = min((named or sizes).values(), default=1)
    feeds = draw([spec for spec in model.metadata.inputs if spec.name not in model.states], sizes, rng)
    lengths = {layer.lengths for layer in done.layers} | ({"lengths"} if model.spec is not None else set())
    read = _read_as_lengths(done)
    rows = {embedding.indices: embedding.table.integers.shape[1] for embedding in done.embeddings}
    for name, info in model.inputs.items():
        if name in feeds:
            continue
        shape = _shape(info, sizes)
        if info.dtype is None or info.dtype.kind not in "fiub":
            raise InputError(f"no inputs can be drawn for {info}", hint="pass inputs, a dict of arrays by input name")
        if info.dtype.kind == "f":
            values = rng.standard_normal(shape)
            # States are in the range of h; were they zero, a layer that ignores them would go unnoticed.
            feeds[name] = (np.tanh(values) if name in model.states else values).astype(info.dtype)
        elif name in lengths:
            feeds[name] = rng.integers(1, time + 1, shape).astype(info.dtype)
        elif len(shape) == 1 and (name in read or ("len" in name.lower() and name not in rows)):
            counts = np.sort(rng.integers(1, time + 1, shape))[::-1]
            counts[:1] = time
            feeds[name] = counts.astype(info.dtype)
        else:
            feeds[name] = (rng.integers(0, rows[name], shape) if name in rows else np.ones(shape)).astype(info.dtype)
    return feeds


def _read_as_lengths(done: Rewritten) -> set[str]:
    """The inputs that reach a layer as its lengths, by way of a Cast or the like, whatever they are called."""
    scope = Scope.of(done.model.graph)
    own = (input_of(node, SEQUENCE_LENS) for node in done.model.graph.node if is_operator(node))
    values = {*(layer.lengths for layer in done.layers), *own} - {""}
    return {name for value in values for name in scope.origins(value)[0]}


def positive_inputs(model: Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs of floating-point numbers as their absolute values, where they have no range; all others as they are."""
    ranges = {spec.name for spec in model.metadata.inputs if spec.low is not None}
    kept = ranges | set(model.states)
    return {
        name: np.abs(array) if array.dtype.kind == "f" and name not in kept else array for name, array in feeds.items()
    }


def _shape(info: ValueInfo, sizes: Mapping[str, int]) -> list[int]:
    dims = (size_of(dim, sizes) if isinstance(dim, str) else dim for dim in info.shape)
    return [_BATCH if dim is None else dim for dim in dims]

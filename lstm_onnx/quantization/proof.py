"""Proves an int8 file: compares each of its layers with an emulation of its arithmetic in float64.

A copy of the file also outputs the inputs and outputs of each int8 layer.  For these inputs the layer is emulated:
integers exactly, all else in float64.  Its error must be within `ROUNDINGS` times that of the
same emulation in float32.  Errors of the integers are far larger: they are steps of a quantization.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ..data.random_input import default_sizes
from ..errors import InputError, ModelError, RunError
from ..input_spec import draw
from ..onnxgraph.recurrent import SEQUENCE_LENS, input_of, is_operator
from ..onnxgraph.scopes import Scope
from ..runtime import Model, ValueInfo
from ..runtime.run import complete_feeds
from ..symbolic_dims import size_of
from .emulation import Steps, emulate, product_or_nan
from .probe import Probe, layer_values, linear_values
from .recurrent import Layer, direction_arrays
from .rewrite import Rewritten

ROUNDINGS = 32
"""Right layers have at most 7.4, wrong ones 69 and more; parity with PyTorch uses the same number."""
EPSILON = 2.0**-23


@dataclass(frozen=True)
class Proof:
    """How an int8 file was proven.

    Attributes:
        compared: how many of its layers were compared.
        ratio: the largest error, in units of that of a float32 emulation; at most `ROUNDINGS`.
        not_compared: layers that were not compared, since they did not run, or are in a body whose values have a
            different shape in each step; `quantize` keeps no file with such a layer.
        differences: for each output of floating-point numbers, its root mean square difference from the float32
            file's, relative to that output's own root mean square.
        other_shapes: outputs whose shape differs from the float32 file's, since their sizes depend on values.
        on_data: whether this was on inputs that the caller passed; otherwise they were random.
    """

    compared: int
    ratio: float
    not_compared: tuple[str, ...] = ()
    differences: dict[str, float] = field(default_factory=dict)
    other_shapes: tuple[str, ...] = ()
    on_data: bool = False


def prove(done: Rewritten, model: Model, *, inputs: Mapping[str, Any] | None = None, seed: int = 0) -> Proof:
    """Compare the layers of an int8 model with their emulation, and its outputs with those of its float32 file.

    Args:
        done: the model.
        model: the float32 file, open.
        inputs: numpy arrays by input name; by default they are random.
        seed: of the random inputs and states.

    Raises:
        ModelError: a layer does not compute what it must.
        InputError: random inputs cannot be made, or `inputs` do not fit.
    """
    feeds = proof_inputs(model, done, seed) if inputs is None else complete_feeds(model, inputs)
    try:
        expected = model.run(feeds)
    except RunError as error:
        if inputs is not None:
            raise
        raise ModelError(
            f"{model.path}: fails on the random inputs of its verification: {error.message}",
            hint="pass inputs that it accepts: --data, or inputs= in Python",
        ) from error
    where = f"{model.path}: its int8 form"
    probe = Probe(done, where)
    complete = model.validated(feeds)
    values = probe.values(complete)
    errors = _by_name(layer_errors(done, values))
    if _not_compared(errors) and inputs is None:
        # A logarithm or a root of numbers below 0 is NaN, and so is everything after it.
        with contextlib.suppress(RunError, ModelError):
            positive = model.validated(positive_inputs(model, feeds))
            others, wanted = probe.values(positive), model.run(positive)
            found = _by_name(layer_errors(done, others))
            if len(_not_compared(found)) < len(_not_compared(errors)):
                complete, values, errors, expected = positive, others, found, wanted
    if _not_compared(errors):
        errors |= _of_other_branches(done, where, complete)
    worst, compared, skipped = 0.0, 0, []
    for layer in errors.values():
        if layer.error is None:
            skipped.append(layer.name)
            continue
        compared += 1
        if not layer.ratio <= ROUNDINGS:
            raise ModelError(
                f"{model.path}: {layer.name} is wrong in int8: its error is {layer.ratio:.3g} "
                f"roundings, and {ROUNDINGS} are allowed; the file is not kept"
            )
        worst = max(worst, layer.ratio)
    resized = tuple(name for name, array in expected.items() if array.shape != values[name].shape)
    same = {name: array for name, array in expected.items() if name not in resized}
    return Proof(compared, worst, tuple(skipped), _differences(same, values), resized, inputs is not None)


def _by_name(errors: Iterator[LayerError]) -> dict[str, LayerError]:
    return {layer.name: layer for layer in errors}


def _not_compared(errors: Mapping[str, LayerError]) -> list[str]:
    return [name for name, layer in errors.items() if layer.error is None]


def _of_other_branches(done: Rewritten, where: str, feeds: Mapping[str, np.ndarray]) -> dict[str, LayerError]:
    """The errors of layers that run if every If takes its other branch; empty if the model fails then."""
    try:
        values = Probe(done, where, other_branches=True).values(feeds)
    except ModelError:
        return {}
    return {layer.name: layer for layer in layer_errors(done, values) if layer.error is not None}


@dataclass(frozen=True)
class LayerError:
    """How far an int8 layer is from its emulation.

    Attributes:
        name: the node's.
        error: the largest error of all outputs; None if they could not be compared, such as if no number is finite.
        rounding: the error of the emulation in float32, or float32's rounding of numbers of that size.
    """

    name: str
    error: float | None
    rounding: float = 0.0

    @property
    def ratio(self) -> float:
        """The error in roundings; at most `ROUNDINGS` is right."""
        if self.error is None or self.error == 0:
            return 0.0
        return self.error / self.rounding if self.rounding else np.inf


def layer_errors(done: Rewritten, values: Mapping[str, np.ndarray]) -> Iterator[LayerError]:
    """Each int8 layer of a model against its emulation, for the `values` of a `Probe`."""
    for layer in done.layers:
        errors = [
            _layer_error(layer, index, found)
            for found in layer_values(layer, values)  # in the body of a loop, of each step
            for index in range(len(layer.reverse))
        ]
        yield max(errors, key=_told, default=LayerError(layer.name, None))
    for linear in done.linear:
        pair = linear_values(linear, values)
        if pair is None:
            yield LayerError(linear.name, None)
            continue
        rows, actual = pair
        weight = linear.weight
        reference, low = (
            product_or_nan(partial(weight.product, dtype=dtype), rows) for dtype in (np.float64, np.float32)
        )
        yield _error(linear.name, actual, reference, low, _largest(reference))
    for embedding in done.embeddings:
        table = embedding.table.integers.T.astype(np.float32) * embedding.table.scales[:, None]
        same = np.array_equal(values[embedding.rows], table[values[embedding.indices]])
        yield LayerError(embedding.name, 0.0 if same else np.inf)


def _layer_error(layer: Layer, index: int, values: Mapping[str, np.ndarray]) -> LayerError:
    """The largest error of a direction's outputs."""
    output, hn, *cell = direction_arrays(layer, index, values)
    zeros = np.zeros(hn.shape, np.float32)
    steps = Steps(
        x=values[layer.x],
        h0=values[layer.h0][index] if layer.h0 else zeros,
        c0=None if not layer.cell else values[layer.c0][index] if layer.c0 else zeros,
        lengths=values[layer.lengths] if layer.lengths else np.full(len(hn), len(output)),
        output=output,
    )
    reference, low = emulate(layer, index, steps), emulate(layer, index, steps, np.float32)
    # A sum of gates is as large as its terms, and an LSTM carries c on.
    scale = max([1.0, *(_largest(reference[name]) for name in ("cn", "c") if layer.cell)])
    pairs = [("output", output), ("hn", hn), *([("cn", cell[0])] if layer.cell else [])]
    found = [_error(layer.name, actual, reference[name], low[name], scale) for name, actual in pairs]
    return max(found, key=_told)


def _told(error: LayerError) -> tuple[bool, float]:
    """A sort key by how much an error says: a layer that was not compared says nothing."""
    return error.error is not None, error.ratio


def _largest(reference: np.ndarray) -> float:
    """The largest absolute value of its finite numbers."""
    return float(np.abs(reference).max(initial=0.0, where=np.isfinite(reference)))


def _error(name: str, actual: np.ndarray, reference: np.ndarray, low: np.ndarray, scale: float) -> LayerError:
    """The largest error, and that of `low` or float32's rounding of a number of size `scale`."""
    if actual.shape != reference.shape:
        return LayerError(name, np.inf)
    finite = np.isfinite(low)  # a number that overflows float32 is infinite in the file, too
    with np.errstate(invalid="ignore"):
        errors = np.where(finite, np.abs(actual - reference), 0.0)
    same = bool((finite | (np.isnan(low) & np.isnan(actual)) | (actual == low)).all())
    if same and low.size and not finite.any():
        return LayerError(name, None)
    error = float(errors.max(initial=0.0)) if same else np.inf
    if np.isnan(error):
        error = np.inf
    rounding = float(np.abs(low - reference, where=finite, out=np.zeros(low.shape)).max(initial=0.0))
    return LayerError(name, error, max(rounding, EPSILON * scale))


def _differences(expected: Mapping[str, Any], actual: Mapping[str, np.ndarray]) -> dict[str, float]:
    found = {}
    for name, array in expected.items():
        finite = np.isfinite(array)
        if array.dtype.kind == "f" and finite.any():
            wanted = array[finite].astype(np.float64)
            size = float(np.sqrt(np.mean(np.square(wanted))))
            change = float(np.sqrt(np.mean(np.square(wanted - actual[name][finite]))))
            found[name] = change / size if size else change
    return found


_BATCH, _TIME = 3, 12
"""Sizes of random inputs, where the file's limits allow them."""


def proof_inputs(
    model: Model, done: Rewritten, seed: int, sizes: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """Inputs and states: as the metadata describes them, otherwise standard normal.

    Of integers that the metadata does not describe, the lengths of an int8 layer are random up to the time, indices
    into an int8 table are random within it, and all others are 1.  In another tool's file, an input of one axis counts
    as lengths if it reaches a layer as such or its name says so; lengths are sorted, the longest equal to the time, as
    `pack_padded_sequence` requires by default.

    Args:
        model: the float32 file, open.
        done: its int8 form.
        seed: of all random numbers.
        sizes: of named axes, instead of the default ones.

    Raises:
        InputError: an input has another type.
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
            raise InputError(
                f"no random inputs can be made for {info}", hint="pass inputs, a dict of arrays by input name"
            )
        if info.dtype.kind == "f":
            values = rng.standard_normal(shape)
            # States are in the range of h; if they were zero, a layer that ignores them would go unnoticed.
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
    """The inputs that reach a layer as its lengths, possibly through a Cast or the like, whatever their names."""
    scope = Scope.of(done.model.graph)
    own = (input_of(node, SEQUENCE_LENS) for node in done.model.graph.node if is_operator(node))
    values = {*(layer.lengths for layer in done.layers), *own} - {""}
    return {name for value in values for name in scope.origins(value)[0]}


def positive_inputs(model: Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The feeds with the absolute values of floating-point inputs that have no range; all others unchanged."""
    kept = {spec.name for spec in model.metadata.inputs if spec.low is not None} | set(model.states)
    return {
        name: np.abs(array) if array.dtype.kind == "f" and name not in kept else array for name, array in feeds.items()
    }


def _shape(info: ValueInfo, sizes: Mapping[str, int]) -> list[int]:
    dims = (size_of(dim, sizes) if isinstance(dim, str) else dim for dim in info.shape)
    return [_BATCH if dim is None else dim for dim in dims]

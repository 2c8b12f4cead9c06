"""Makes the cases by which a browser or Node verifies a model: inputs, expected outputs, and tolerances.

The cases come from a golden file, with the criterion of parity, or from the file itself: it is run in Python on random
inputs, and the tolerance is a multiple of the change that rounding its inputs makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from ...data.random_input import default_sizes, random_record, run_on_drawn
from ...errors import InputError, RunError
from ...parity.criterion import magnitude
from ...parity.expected import Arrays, Call, Expected
from ...parity.tolerances import COARSEST, EPSILON, ROUNDINGS, K
from ...runtime import Model
from ...runtime.batch_axes import batch_name
from ...runtime.chunks import output_time_axes, run_chunks, time_axis
from ...runtime.tensor_info import axis_sizes
from ...runtime.warm_up import smallest_feeds

_MOST_SWEEP_BYTES = 2**20
"""The most bytes of arrays for the calls that are kept from a golden file's sweep over many sizes."""
_STEPS = 200
_FEWEST_CHUNKS = 25
_GIVEN_CHUNKS = 4
"""How many times a stream gets the inputs that the caller passed, which may be large."""
_OTHER_CHUNK = 7
_BATCH = 3
_EXACT_PERTURBATION = 2.0
"""By how many roundings inputs are changed, to see the effect of rounding on a float model."""
_COARSE_PERTURBATION = 2.0**14
"""The same for an int8 model: activations are rounded to 8 bits, and one in thousands is close to the next value."""
_COARSE_FACTOR = 4.0
"""The tolerance of such a model, relative to the largest change; a wrong one is off by its outputs' own size."""


@dataclass(frozen=True)
class WebCall:
    """One call, or one whole sequence of a stream.

    Attributes:
        label: the label of the call in a sweep.
        feeds: inputs and states by name.
        expected: outputs by name; floats are float64, or as the file returns them.
        allowed: each output's tolerance; for integers, how many elements may differ.
        free: for integer outputs, the elements that may have any value.
    """

    label: str
    feeds: Arrays
    expected: Arrays
    allowed: Mapping[str, float]
    free: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class WebCase:
    """Calls that are compared together.

    Attributes:
        label: the case's name.
        kind: "run" for independent calls, or "stream" for calls that carry the states.
        calls: the calls.
        batch: the number of sequences in a stream's batch.
        chunkings: for a stream with a single call, the ways in which its time axis is cut into chunks.
        time_axes: the time axes of inputs and outputs, for the chunks.
        every: for outputs with many features, every nth one is compared.
    """

    label: str
    kind: str
    calls: tuple[WebCall, ...]
    batch: int = 1
    chunkings: tuple[tuple[int, ...], ...] = ()
    time_axes: Mapping[str, int] = field(default_factory=dict)
    every: Mapping[str, int] = field(default_factory=dict)


def from_golden(cases: Iterable[Expected]) -> list[WebCase]:
    """The cases of a golden file, without pools, and without outputs for which PyTorch's error is too large."""
    return [found for case in cases if case.kind != "pool" and (found := _from_expected(case)).calls]


def _from_expected(case: Expected) -> WebCase:
    calls = []
    size = 0
    for call in case.calls:
        size += sum(array.nbytes for arrays in (call.feeds, call.reference) for array in arrays.values())
        if case.kind == "sweep" and size > _MOST_SWEEP_BYTES:
            break
        found = _judged(case, call)
        if found.expected:
            calls.append(found)
    kind = "stream" if case.kind == "chunks" else "run"
    label = _label(case, calls)
    return WebCase(label, kind, tuple(calls), case.batch, case.chunkings, case.time_axes, case.feature_steps)


def _label(case: Expected, calls: Sequence[WebCall]) -> str:
    if case.kind != "sweep":
        return case.label
    return f"{len(calls)} sizes, {calls[0].label} to {calls[-1].label}" if calls else case.label


def _judged(case: Expected, call: Call) -> WebCall:
    """A call with the criterion's tolerances, which do not depend on a file's outputs."""
    alone = replace(case, calls=(call,), dtypes={}, time_axes={})
    results = {result.output: result for result in alone.judge([call.reference]).tensors}
    names = [name for name, result in results.items() if not result.inconclusive]
    free = {
        name: tuple(map(int, np.flatnonzero(call.native[name] != call.reference[name])))
        for name in names
        if call.reference[name].dtype.kind != "f"
    }
    return WebCall(
        call.label,
        call.feeds,
        {name: call.reference[name] for name in names},
        {name: results[name].allowed for name in names},
        {name: places for name, places in free.items() if places},
    )


def from_file(
    model: Model, feeds: Iterable[tuple[str, Arrays]] = (), *, chunk: Arrays | None = None, coarse: bool = False
) -> list[WebCase]:
    """Cases whose expected outputs are those of `model` in Python.

    Args:
        model: open on the CPU.
        feeds: inputs with their labels, such as those of a golden file; random inputs are made if there are none.
        chunk: the inputs for each chunk of a stream, for a model that refuses random ones.
        coarse: whether activations are rounded to 8 bits, so that a float32 rounding can become one of 8 bits.

    Raises:
        InputError, ModelError: the model refuses all random inputs.
    """
    given = [(label, dict(arrays)) for label, arrays in feeds]
    cases = []
    for label, arrays in given or _drawn(model):
        call = _measured(arrays, model.run, coarse=coarse)
        if call.expected:
            cases.append(WebCase(label, "run", (call,)))
    return [*cases, *_streamed(model, chunk, coarse=coarse)]


def _drawn(model: Model) -> list[tuple[str, Arrays]]:
    """Random inputs: one sequence, a batch, and a batch with states."""
    batch = batch_name(model)
    found: list[tuple[str, Arrays]] = []
    for rows in (1, _BATCH):
        if rows > 1 and batch is None:
            break
        feeds = _record(model, {} if batch is None else {batch: rows}, seed=rows)
        try:
            complete = model.completed(dict(feeds))
            run_on_drawn(model, feeds)
        except InputError:
            if found:
                break
            raise
        found.append((f"batch {rows}" if batch else "random inputs", feeds))
        if rows > 1 and model.states and model.metadata.streaming is None:
            rng = np.random.default_rng(rows)
            floats = {name: complete[name] for name in model.states if complete[name].dtype.kind == "f"}
            states = {n: np.tanh(rng.standard_normal(a.shape)).astype(a.dtype) for n, a in floats.items()}
            found.append((f"batch {rows}, states", {**feeds, **states}))
    return found


def _record(model: Model, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Random inputs; the smallest, filled with ones, if their range is not known (indices)."""
    known = {axis: model.metadata.nearest_size(axis, size) for axis, size in {**default_sizes(model), **sizes}.items()}
    try:
        (record,) = random_record(model, known, seed).rows
    except InputError:
        return smallest_feeds(model, sizes)
    return dict(record)


def _whole(steps: int, unit: int) -> int:
    """The least multiple of `unit` that is at least `steps`."""
    return -(-steps // unit) * unit


def _streamed(model: Model, given: Arrays | None, *, coarse: bool) -> list[WebCase]:
    """Streams of random inputs, or of the given ones if the model refuses random ones."""
    try:
        return _drawn_streams(model, coarse=coarse)
    except RunError:
        if given is None:
            raise
        return _carried(model, [given] * _GIVEN_CHUNKS, coarse=coarse)


def _drawn_streams(model: Model, *, coarse: bool) -> list[WebCase]:
    """A long random sequence in the smallest chunks, and in others; none for a model that cannot be streamed."""
    if not model.states:
        return []
    try:
        stream = model.stream()
    except InputError:
        return []
    streaming = model.metadata.streaming_or_default
    try:
        axis = time_axis(model)
        outputs = output_time_axes(model, axis)
    except InputError:  # a model without a time axis: each call is one step
        sizes = {} if (batch := batch_name(model)) is None else {batch: 1}
        chunks = [_record(model, sizes, seed) for seed in range(_FEWEST_CHUNKS)]
        return _carried(model, chunks, coarse=coarse)
    batch = batch_name(model)
    cases: list[WebCase] = []
    least = math.lcm(stream.hop, streaming.chunk)
    for chunk in (least, least * _OTHER_CHUNK):
        steps = _whole(max(_STEPS // least, _FEWEST_CHUNKS) * least, math.lcm(least, streaming.unit))
        feeds = _record(model, {axis: steps} | ({batch: 1} if batch else {}), seed=chunk)
        inputs = {name: info.shape.index(axis) for name, info in model.inputs.items() if axis in info.shape}
        if not set(inputs) <= set(feeds) or any(feeds[name].shape[at] != steps for name, at in inputs.items()):
            return []
        try:
            call = _measured(feeds, partial(run_chunks, model, steps=chunk), coarse=coarse)
        except InputError:  # such as for an input of lengths, which a stream does not have
            return cases
        cuts = tuple(min(chunk, steps - start) for start in range(0, steps, chunk))
        label = f"{steps} steps, {chunk} at a time"
        cases.append(WebCase(label, "stream", (call,), 1, (cuts,), {**inputs, **outputs}))
    return cases


def _carried(model: Model, chunks: Sequence[Arrays], *, coarse: bool) -> list[WebCase]:
    """A stream of these chunks, each of which may be one step of a cell."""
    rows = axis_sizes(model.inputs, chunks[0]).get(batch_name(model) or "", 1)
    chunks = [{name: array for name, array in feeds.items() if name not in model.states} for feeds in chunks]

    def run(feeds: Sequence[Arrays]) -> list[Arrays]:
        stream = model.stream(rows)
        found: list[Arrays] = []
        for each in feeds:
            results = stream.run(each)
            state = stream.state
            found.append({**results, **{output: state[name] for name, output in model.states.items()}})
        return found

    expected = run(chunks)
    moved = [run([_perturbed(feeds, seed, coarse=coarse) for feeds in chunks]) for seed in range(ROUNDINGS)]
    calls = []
    for at, (feeds, outputs) in enumerate(zip(chunks, expected, strict=True)):
        call = _allowing(feeds, outputs, [found[at] for found in moved], coarse=coarse)
        calls.append(replace(call, label=f"chunk {at + 1}"))
    return [WebCase(f"{len(calls)} chunks", "stream", tuple(calls), rows)]


def _measured(feeds: Arrays, run: Callable[[Arrays], Arrays], *, coarse: bool) -> WebCall:
    """A call with the model's outputs, and with tolerances from how much roundings of its inputs change them."""
    moved = [run(_perturbed(feeds, seed, coarse=coarse)) for seed in range(ROUNDINGS)]
    return _allowing(feeds, run(feeds), moved, coarse=coarse)


def _allowing(feeds: Arrays, outputs: Arrays, moved: Sequence[Arrays], *, coarse: bool) -> WebCall:
    allowed: dict[str, float] = {}
    free: dict[str, tuple[int, ...]] = {}
    for name, array in outputs.items():
        if any(found[name].shape != array.shape for found in moved) or array.dtype.kind not in "fiub":
            continue  # the size depends on the inputs' values
        if array.dtype.kind != "f":
            others = np.flatnonzero(np.any([found[name] != array for found in moved], axis=0))
            allowed[name], free[name] = 0.0, tuple(map(int, others))
            continue
        unit = EPSILON[array.dtype.name] * max(1.0, magnitude(array))
        with np.errstate(invalid="ignore"):
            differences = [np.abs(found[name].astype(np.float64) - array) for found in moved]
        change = max(float(np.nan_to_num(one, posinf=0.0).max(initial=0.0)) for one in differences)
        limit = max(_COARSE_FACTOR * change, K * unit) if coarse else K * max(change, unit)
        if limit <= max(K * COARSEST * magnitude(array), K * unit):  # with a larger limit, wrong numbers would pass
            allowed[name] = limit
    expected = {name: outputs[name] for name in allowed}
    return WebCall("", feeds, expected, allowed, {name: places for name, places in free.items() if places})


def _perturbed(feeds: Arrays, seed: int, *, coarse: bool) -> dict[str, np.ndarray]:
    """The floats in `feeds` changed by some roundings, up or down."""
    rng = np.random.default_rng(seed)
    moved = {}
    for name, array in feeds.items():
        if array.dtype.kind == "f":
            steps = _COARSE_PERTURBATION if coarse and array.dtype == np.float32 else _EXACT_PERTURBATION
            change = EPSILON[array.dtype.name] * steps * rng.uniform(-1, 1, array.shape)
            array = (array * (1 + change)).astype(array.dtype)
        moved[name] = array
    return moved

"""Run a rewritten graph in chunks with ONNX Runtime alone, beside the whole-sequence graph."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, numpy_helper

from lstm_onnx.streaming.rewrite import Rewritten, rewrite

DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(double)": np.float64}
TOLERANCE = 3e-5


def session(model: ModelProto, *, optimised: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimised:  # an optimiser's mistake must not become the reference
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def rewritten(
    model: ModelProto, time: Mapping[str, int], states: Mapping[str, str] | None = None, chunk: int | None = None
) -> Rewritten:
    initializers = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return rewrite(model, initializers, time, states or {}, chunk)


def complete(done: Rewritten) -> ModelProto:
    model = ModelProto()
    model.CopyFrom(done.model)
    for name, array in done.initializers.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


@dataclass
class ChunkRun:
    """One sequence in chunks."""

    done: Rewritten
    time: Mapping[str, int]
    states: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.session = session(complete(self.done))
        self.pairs = {**self.states, **self.done.caches}
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.names = [value.name for value in self.session.get_outputs()]

    def start(self, batch: int, initial: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        found = {}
        for name in self.pairs:
            info = self.inputs[name]
            shape = [size if isinstance(size, int) else batch for size in info.shape]
            value = (initial or {}).get(name, self.done.initial.get(name))
            array = np.zeros(shape, DTYPES[info.type])
            found[name] = array if value is None else np.broadcast_to(value, shape).astype(array.dtype)
        return found

    def call(self, feeds: Mapping[str, np.ndarray], state: dict[str, np.ndarray], last: int) -> dict[str, np.ndarray]:
        feeds = {**feeds, **state}
        if self.done.streaming.last is not None:
            feeds[self.done.streaming.last] = np.array([last], np.int64)
        results = dict(zip(self.names, self.session.run(None, feeds), strict=True))
        for name, output in self.pairs.items():
            state[name] = results.pop(output)
        return results

    def __call__(
        self,
        feeds: Mapping[str, np.ndarray],
        cut: list[int],
        batch: int,
        initial: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        state, at = self.start(batch, initial), 0
        parts: list[dict[str, np.ndarray]] = []
        for size in cut:
            chunk = {
                name: array.take(range(at, at + size), self.time[name]) if name in self.time else array
                for name, array in feeds.items()
            }
            at += size
            parts.append(self.call(chunk, state, 0))
        if self.done.streaming.last is not None:
            rest = {name: a.take([], self.time[name]) if name in self.time else a for name, a in feeds.items()}
            parts.append(self.call(rest, state, 1))
        self.final = state
        return {
            name: parts[-1][name]
            if output.axis is None
            else np.concatenate([part[name] for part in parts], output.axis)
            for name, output in self.done.outputs.items()
        }


def cuts(steps: int, rng: random.Random, *, empty: bool) -> Iterator[list[int]]:
    """One step at a time, all at once, and twice at random, with chunks of no steps where the graph takes them."""
    yield [1] * steps
    yield [steps]
    for largest in (3, 9):
        chunks: list[int] = []
        while sum(chunks) < steps:
            chunks.append(min(rng.randint(0 if empty else 1, largest), steps - sum(chunks)))
        yield chunks


def difference(
    run: ChunkRun, whole: ort.InferenceSession, feeds: Mapping[str, np.ndarray], batch: int, seed: int, unit: int = 1
) -> str:
    """Where a sequence in chunks of multiples of `unit` differs from the whole one; "" where it does not."""
    expected = dict(zip([value.name for value in whole.get_outputs()], whole.run(None, dict(feeds)), strict=True))
    name = next(iter(run.time))
    steps = feeds[name].shape[run.time[name]]
    rng = random.Random(seed)  # noqa: S311 - a test, not a secret
    for units in cuts(steps // unit, rng, empty=run.done.streaming.last is not None):
        cut = [unit * count for count in units]
        found = run(feeds, cut, batch)
        for output, array in found.items():
            want = expected[output]
            if array.shape != want.shape:
                return f"{output} in {cut[:6]}...: shape {array.shape}, not {want.shape}"
            scale = max(1.0, float(np.abs(want).max(initial=0)))
            error = float(np.abs(array.astype(np.float64) - want).max(initial=0))
            if not error <= TOLERANCE * scale:
                return f"{output} in {cut[:6]}...: off by {error:.3g} of {scale:.3g}"
    return ""

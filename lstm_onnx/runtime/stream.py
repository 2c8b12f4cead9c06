"""Streams: the states are carried from one chunk to the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError, RunError
from .arguments import positive_integer
from .bindings import Binding, Key, key_of, output_buffers
from .initial_states import fitting_states, stream_start
from .shutdown import calls_onnxruntime
from .streamable import require_streamable
from .tensor_info import to_numpy

if TYPE_CHECKING:
    from .device import DeviceSteps
    from .model import Model


_MOST_SHAPES = 8
"""Chunk shapes that are kept bound."""


class _Last(NamedTuple):
    """The shape of chunk that was bound last, at hand without a look-up: small steps come one like the other."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    binding: Binding
    execute: tuple[Callable[[], object], Callable[[], object]]
    chunk: np.ndarray
    output: np.ndarray


class Stream:
    """A model fed chunk by chunk.  Made by `Model.stream`.

    Any chunking of a sequence gives what the whole sequence gives; a model of which that is not so has
    no streams.
    """

    def __init__(self, model: Model, batch: int = 1, *, check: bool = True) -> None:
        require_streamable(model, check=check)
        batch = positive_integer("batch", batch)
        sizes = {dim for name in model.states for dim in model.inputs[name].shape}
        if batch != 1 and batch not in sizes and all(isinstance(dim, int) for dim in sizes):
            fixed = "; ".join(str(model.inputs[name]) for name in model.states)
            raise InputError(f"{model.path}: has no room for a batch of {batch}: its states have fixed sizes ({fixed})")
        self.model = model
        self.batch = batch
        initial = model.metadata.initial
        self._start = {name: stream_start(model.inputs[name], batch, initial.get(name)) for name in model.states}
        # Two sets of buffers in turn: a step reads one and writes the other, and a step that fails has spoilt neither
        # the one that counts nor, being bound once, cost a new array.
        self._buffers = tuple({name: array.copy() for name, array in self._start.items()} for _ in range(2))
        self._current = 0
        self._device: DeviceSteps | None = None
        if model.provider == "cuda":
            from .device import DeviceSteps

            self._device = DeviceSteps(model, self._start, graphs=model.cuda_graph)
        self._bound: OrderedDict[Key, tuple[Binding, Binding] | None] = OrderedDict()
        self._unbound: set[Key] = set()
        self._last: _Last | None = None
        self._session = model.session  # another one, once the model is closed
        model.session_for(self._start)  # opened now, and not in the middle of the stream
        self._names = [name for name in model.inputs if name not in model.states]
        ends = set(model.states.values())
        self._given = [name for name in model.outputs if name not in ends] or list(model.outputs)

    @property
    def _state(self) -> dict[str, np.ndarray]:
        return self._buffers[self._current]

    @property
    def state(self) -> dict[str, np.ndarray]:
        """A copy of every state by its input's name, such as ``{"h0": (L, batch, S), "c0": (L, batch, H)}``."""
        return self._device.state if self._device else {name: array.copy() for name, array in self._state.items()}

    @state.setter
    def state(self, values: Mapping[str, Any]) -> None:
        infos = {name: self.model.inputs[name] for name in self.model.states}
        shapes = {name: array.shape for name, array in self._start.items()}
        self._set(fitting_states(infos, values, shapes, "this stream's"))

    def reset(self) -> None:
        """Start over: every state is what the file starts it from, and zeros where it says nothing, as in nn.LSTM."""
        self._set(self._start)

    def _set(self, values: Mapping[str, np.ndarray]) -> None:
        if self._device is not None:
            self._device.state = values
            return
        for name, array in values.items():
            np.copyto(self._state[name], array)

    def __call__(self, chunk: Any) -> Any:
        """The outputs for the next steps of a bare LSTM, or of a model with one input beside its states.

        Args:
            chunk: for a bare LSTM ``(time, batch, input_size)``, or batch first as the model is; for a
                batch of 1 also ``(time, input_size)``.  For any other model the array that its one
                input takes.

        Returns:
            The output, of the chunk's kind; for a bare LSTM also in its layout.  A dict of outputs by
            name where there are several beside the states, or none.

        Raises:
            InputError: the chunk does not fit, or the model has several inputs, which `run` takes.
            RunError: ONNX Runtime failed; the states are as they were before the chunk.
        """
        last = self._last
        if (
            last is not None
            and type(chunk) is np.ndarray
            and chunk.shape == last.shape
            and chunk.dtype == last.dtype
            and self.model.session is self._session
        ):
            current = self._current
            last.chunk[...] = chunk
            try:
                last.execute[current]()
            except last.binding.errors:
                self._last = None  # `run` tries it again, and unbound where that fails too
                return self(chunk)
            self._current = current ^ 1
            return last.output.copy()
        spec = self.model.spec
        if spec is None:
            return self._call_module(chunk)
        x, restore = to_numpy(chunk, self.model.inputs["input"], "input")
        if x.ndim == 2 and self.batch == 1:
            axis = 0 if spec.batch_first else 1
            return restore(self.run({"input": np.expand_dims(x, axis)})["output"].squeeze(axis))
        return restore(self.run({"input": x})["output"])

    def _call_module(self, chunk: Any) -> Any:
        names = [name for name in self.model.inputs if name not in self.model.states]
        if len(names) != 1:
            raise InputError(
                f"{self.model.path}: has the inputs {', '.join(names) or 'of its states alone'}; "
                "call stream.run({name: array})"
            )
        results = self.run({names[0]: chunk})
        return next(iter(results.values())) if len(self.model.outputs) == len(self.model.states) + 1 else results

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """One chunk by names, any model.

        Args:
            feeds: the inputs that are not states.

        Returns:
            The outputs that are not states; where every output is one (a single cell), all of them.

        Raises:
            InputError: something does not fit.
            RunError: ONNX Runtime failed; the states are as they were before the chunk.
        """
        if not isinstance(feeds, Mapping):
            raise InputError(f"run takes names to arrays, such as {{name: array}}, and not a {type(feeds).__name__}")
        for name in feeds:
            if name in self.model.states:
                raise InputError(f"{name} is a state, which the stream carries itself; set stream.state to change it")
        if self._device is not None:
            return self._on_device(feeds)
        key = key_of(feeds)
        pair = None if key is None else self._bound.get(key)
        if key is not None and pair is not None and self.model.session is self._session:
            self.model.require_counts(feeds)
            binding = pair[self._current]
            for name, array in feeds.items():
                binding.inputs[name][...] = array
            try:
                binding.run()
            except RunError:
                # Its outputs' shapes may follow from more than its inputs' shapes (see `Repeats`).
                results = self._run_unbound(feeds)
                self._unbound.add(key)
                del self._bound[key]
                return {name: results[name] for name in self._given}
            self._current ^= 1
            return {name: binding.outputs[name].copy() for name in self._given}
        results = self._run_unbound(feeds)
        if key is not None and key not in self._unbound:
            self._learn(key, feeds, results)
        return {name: results[name] for name in self._given}

    def _run_unbound(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs of a chunk that is not bound, its states among them; the stream goes on from those."""
        results = self.model.run({**feeds, **self._state})
        after = self._buffers[self._current ^ 1]
        for name, output in self.model.states.items():
            array = to_numpy(results[output], None, name)[0]
            if array.shape != after[name].shape or array.dtype != after[name].dtype:
                raise RunError(
                    f"{self.model.path}: gives {output} as {array.dtype} {array.shape}, and the state {name} that it "
                    f"feeds is {after[name].dtype} {after[name].shape}"
                )
            after[name][...] = array
        self._current ^= 1
        return results

    def _on_device(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The chunk goes to the device and the outputs come from it; the states stay there."""
        assert self._device is not None  # noqa: S101 - the caller's condition
        arrays, restore = {}, None
        for name, value in feeds.items():
            arrays[name], own = to_numpy(value, self.model.inputs.get(name), name)
            restore = restore or own
        results = self._device.step(arrays)
        if not results:  # a single cell, whose outputs are its states
            results = {self.model.states[name]: array for name, array in self._device.state.items()}
        return {name: restore(array) if restore else array for name, array in results.items()}

    def _learn(self, key: Key, feeds: Mapping[str, np.ndarray], results: Mapping[str, Any]) -> None:
        """Bind chunks of this shape, once they have come twice: one binding for each way round of the states."""
        if key not in self._bound:
            self._bound[key] = None
        else:
            model = self.model
            arrays = {name: np.array(array, order="C") for name, array in feeds.items()}
            arrays = {name: array for name, array in model.completed(arrays).items() if name not in model.states}
            buffers = output_buffers(model.inputs, model.outputs, {**arrays, **self._state})
            if buffers is None or any(buffers[name].shape != np.shape(results[name]) for name in buffers):
                return
            session = model.session_for({**arrays, **self._state})
            pair = []
            try:
                for before, after in (self._buffers, self._buffers[::-1]):
                    ends = {model.states[name]: array for name, array in after.items()}
                    pair.append(Binding(session, model.path, {**arrays, **before}, {**buffers, **ends}))
            except RunError:  # what was asked for has been run all the same
                self._unbound.add(key)
                return
            self._bound[key] = (pair[0], pair[1])
            if len(self._names) == 1 == len(self._given) and not model.counts:
                chunk = arrays[self._names[0]]
                runs = (pair[0].execute, pair[1].execute)
                self._last = _Last(chunk.shape, chunk.dtype, pair[0], runs, chunk, buffers[self._given[0]])
        while len(self._bound) > _MOST_SHAPES:
            self._bound.popitem(last=False)


calls_onnxruntime(Stream.__call__)

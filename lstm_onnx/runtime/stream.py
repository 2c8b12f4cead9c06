"""`Stream`: carries the states from one chunk to the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from ..errors import InputError, RunError
from ..terminal_text import one_line
from .arguments import flag, positive_integer
from .batch_axes import require_batch
from .bindings import Binding, Key, key_of, output_buffers
from .cancellation import options_of
from .chunked_steps import ChunkedSteps
from .conversion import as_passed, to_arrays, to_numpy, unchanged
from .loaded_model import LoadedModel
from .non_finite_inputs import is_finite, warn_of_non_finite
from .run import run_model
from .shutdown import calls_onnxruntime
from .stream_states import require_like_state, stream_start, validated_states
from .streamable import require_concatenable, require_streamable
from .tuning import MAX_STREAM_BINDINGS

if TYPE_CHECKING:
    import torch

    from ..spec import LSTMSpec
    from .conversion import Array, ArrayLike
    from .device import DeviceSteps


class _Last(NamedTuple):
    """The chunk shape that was bound last, to avoid a look-up: most chunks of a stream have the same shape.

    Attributes:
        output: the name of the only output that is not a state.
        phase: of the stream before and after such a chunk; None if it has none.
        steps: the number of steps in the chunk.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    bindings: tuple[Binding, Binding]
    chunk: np.ndarray
    output: str
    phase: int | None = None
    steps: int = 0


class Stream:
    """A model that is run chunk by chunk.  Created by `Model.stream`.

    However a sequence is divided into chunks, the results are those of the whole sequence; a model for which that
    is not true has no streams.

    Attributes:
        model: the model.
        batch: how many sequences run side by side.
    """

    def __init__(self, model: LoadedModel, batch: int = 1, *, check: bool = True) -> None:
        require_streamable(model, check=flag("check", check))
        batch = positive_integer("batch", batch)
        sizes = {dim for name in model.states for dim in model.inputs[name].shape}
        if batch != 1 and batch not in sizes and all(isinstance(dim, int) for dim in sizes):
            fixed = "; ".join(str(model.inputs[name]) for name in model.states)
            raise InputError(
                f"cannot take a batch of {batch}: its states have fixed sizes ({fixed})", path=model.path, name="batch"
            )
        if batch > 1 and check:
            require_concatenable(model)
        self.model, self.batch = model, batch
        self._start = stream_start(model, batch)
        # Double-buffered: a step reads one set and writes the other, so that a failed step leaves the states intact
        # and no step allocates.
        self._buffers = tuple({name: array.copy() for name, array in self._start.items()} for _ in range(2))
        self._current = 0
        self._device: DeviceSteps | None = None
        if model.provider == "cuda" and model.states_can_be_bound and model.metadata.streaming is None:
            from .device import DeviceSteps

            self._device = DeviceSteps(model, self._start, graphs=model.cuda_graph)
        self._bound: OrderedDict[Key, tuple[Binding, Binding] | None] = OrderedDict()
        self._unbound: set[Key] = set()
        self._results: Mapping[str, np.ndarray] = {}  # of the last chunk, at least outputs without a time axis
        self._last: _Last | None = None
        self._last_of_ended: _Last | None = None
        self._session = model.session  # changes when the model is closed
        self._chunks = ChunkedSteps(model, batch)
        self._phased = self._chunks.phased
        self._ended = self._returns_dict = False
        model.session_for(self._start)  # opens it now, instead of at the first step
        self._names = self._chunks.input_names
        ends = set(model.states.values())
        own = [name for name in model.outputs if name not in ends]
        self._output_names = own or list(model.outputs)
        self._has_single_output = len(own) == 1

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
        validated = validated_states(infos, values, shapes, "this stream's")
        warn_of_non_finite(self.model, validated)
        self._restart(validated, restored=True)

    @property
    def delay(self) -> int:
        """The largest number of output steps that come only with `flush`: the model's look-ahead, in output steps."""
        return self._chunks.delay

    @property
    def hop(self) -> int:
        """The product of the model's strides: this many input steps always give the same number of output steps."""
        return self._chunks.hop

    def reset(self) -> None:
        """Start a new sequence: every state is set to the file's initial state, or to zeros, as in nn.LSTM."""
        self._restart(self._start)

    def _restart(self, states: Mapping[str, np.ndarray], *, restored: bool = False) -> None:
        self._chunks.restart(states, restored=restored)
        self._set(states)
        self._results = {}
        if self._ended:
            self._ended, self._last, self._last_of_ended = False, self._last_of_ended, None

    def flush(self) -> Any:
        """End the sequence, and return the outputs that were still to come: at most `delay` steps, possibly none.

        The results of all calls and of `flush`, concatenated along time, are the outputs of the whole sequence.
        Outputs without a time axis (a score of the whole sequence) are final.  `reset` starts another sequence; so
        does setting `state`, but not to what it is after the end, which is refused if the end has changed it.

        Returns:
            As the last call did: an array after ``stream(chunk)``, a dict after ``stream.run(feeds)``.

        Raises:
            InputError: the sequence has already ended, or the model cannot take a sequence with this number of steps.
            RunError: ONNX Runtime failed; the states are unchanged.
        """
        self._require_open()
        results = self._chunks.flushed(self.state)
        if results is None:
            self._chunks.settle(self.state, self._results)
            results = {name: self._chunks.nothing(name) for name in self._output_names}
        else:
            self._set({name: results[output] for name, output in self.model.states.items()})
        self._ended, self._last, self._last_of_ended = True, None, self._last
        results = self._chunks.converted({name: results[name] for name in self._output_names})
        return results if self._returns_dict or not self._has_single_output else next(iter(results.values()))

    def _require_open(self) -> None:
        if self._ended:
            raise InputError(
                "the sequence of this stream has ended", hint="stream.reset() starts another", path=self.model.path
            )

    def _set(self, values: Mapping[str, np.ndarray]) -> None:
        if self._device is not None:
            self._device.state = values
            return
        for name, array in values.items():
            np.copyto(self._state[name], array)

    @overload
    def __call__(self, chunk: torch.Tensor) -> torch.Tensor | Any: ...
    @overload
    def __call__(self, chunk: ArrayLike) -> Array | Any: ...
    @overload
    def __call__(self, chunk: Any) -> Any: ...
    def __call__(self, chunk: Any) -> Any:
        """The outputs for the next steps of a bare LSTM, or of a model with one input besides its states.

        Args:
            chunk: for a bare LSTM ``(time, batch, input_size)``, or ``(batch, time, input_size)`` with batch_first;
                for a batch of 1 also ``(time, input_size)``.  For any other model the array for its only input.

        Returns:
            The output, of the chunk's type and, for a bare LSTM, layout.  A dict of outputs by name where there
            are several apart from the states, or none.

        Raises:
            InputError: the chunk does not fit, or the model has several inputs; use `run`.
            RunError: ONNX Runtime failed; the states are as they were before the chunk.
        """
        last = self._last
        if (
            last is not None
            and type(chunk) is np.ndarray
            and chunk.shape == last.shape
            and chunk.dtype == last.dtype
            and self.model.session is self._session
            and (last.phase is None or last.phase == self._chunks.phase)
        ):
            if self.model.hides_nan and not is_finite(chunk):
                warn_of_non_finite(self.model, {self._names[0]: chunk})
            binding = last.bindings[self._current]
            last.chunk[...] = chunk
            try:
                binding.execute()
            except binding.errors:
                self._last = None  # `run` tries again, unbound if that fails as well
                return self(chunk)
            self._current ^= 1
            self._results = binding.outputs
            self._returns_dict = False
            self._chunks.to_caller_type = unchanged
            if last.phase is not None:
                self._chunks.count(last.steps)
            return binding.outputs[last.output].copy()
        spec = self.model.spec
        if spec is None:
            return self._call_module(chunk)
        try:
            return self._call_lstm(chunk, spec)
        finally:
            self._returns_dict = False

    def _call_lstm(self, chunk: Any, spec: LSTMSpec) -> Any:
        x, to_caller_type = to_numpy(chunk, self.model.inputs["input"], "input")
        if x.ndim == 2 and self.batch == 1:
            axis = 0 if spec.batch_first else 1
            return to_caller_type(self.run({"input": np.expand_dims(x, axis)})["output"].squeeze(axis))
        return to_caller_type(self.run({"input": x})["output"])

    def _call_module(self, chunk: Any) -> Any:
        if len(self._names) != 1:
            inputs = f"the inputs {', '.join(self._names)}" if self._names else "no input apart from its states"
            raise InputError(f"has {inputs}", path=self.model.path, hint="call stream.run({name: array})")
        try:
            results = self.run({self._names[0]: chunk})
        finally:
            self._returns_dict = False
        return next(iter(results.values())) if self._has_single_output else results

    @overload
    def run(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]: ...
    @overload
    def run(self, feeds: Mapping[str, ArrayLike]) -> dict[str, Array]: ...
    @overload
    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]: ...
    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """One chunk by input names, for any model.

        Args:
            feeds: the inputs that are not states.

        Returns:
            The outputs that are not states, or all of them where every output is a state (a single cell).

        Raises:
            InputError: something does not fit.
            RunError: ONNX Runtime failed; the states are as they were before the chunk.
        """
        if not isinstance(feeds, Mapping):
            raise InputError(f"run takes names to arrays, such as {{name: array}}, not {type(feeds).__name__}")
        for name in feeds:
            if name in self.model.states:
                raise InputError(
                    f"{name} is a state, which the stream carries itself",
                    hint="set stream.state to change it",
                    name=name,
                )
        if self._ended:
            self._require_open()
        self._returns_dict = True
        if self._chunks.chunked:
            feeds, empty = self._chunks.prepared(feeds)
            if empty:
                self._chunks.settle(self.state, self._results)
                return self._chunks.converted({name: self._chunks.nothing(name) for name in self._output_names})
        if self._device is not None:
            return self._on_device(feeds)
        key = key_of(feeds)
        if self._phased:
            key = self._chunks.key(key)
        pair = None if key is None else self._bound.get(key)
        if key is not None and pair is not None and self.model.session is self._session:
            self.model.require_counts(feeds)
            warn_of_non_finite(self.model, feeds)
            return self._run_bound(key, pair[self._current], feeds)
        results = self._run_unbound(feeds)
        if key is not None and key not in self._unbound and self.model.states_can_be_bound:
            self._bind(key, feeds, results)
        return {name: results[name] for name in self._output_names}

    def _run_bound(self, key: Key, binding: Binding, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The outputs of a chunk of a shape that is bound."""
        for name, array in feeds.items():
            binding.inputs[name][...] = array
        try:
            binding.run(options_of(self.model))
        except RunError:
            # Its output shapes may depend on more than its input shapes (see `BindingCache`).
            results = self._run_unbound(feeds)
            self._unbound.add(key)
            del self._bound[key]
            return {name: results[name] for name in self._output_names}
        self._current ^= 1
        self._results = binding.outputs
        results = {name: binding.outputs[name].copy() for name in self._output_names}
        if self._phased:
            self._chunks.advance(feeds, results)
        return results

    def _run_unbound(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """All outputs of a chunk that is not bound, including the states, from which the stream continues."""
        require_batch(self.model, feeds, self.batch)
        results = run_model(self.model, {**feeds, **self._state})
        after = self._buffers[self._current ^ 1]
        for name, output in self.model.states.items():
            array = to_numpy(results[output], None, name)[0]
            require_like_state(self.model, name, array, after[name])
            after[name][...] = array
        self._current ^= 1
        self._chunks.shapes = {name: np.shape(results[name]) for name in self._output_names}
        self._results = self._chunks.still(results)
        if self._phased:
            self._chunks.advance(feeds, results)
        return results

    def _on_device(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Copy the chunk to the device and the outputs from it; the states stay there."""
        assert self._device is not None  # noqa: S101 - the caller's condition
        arrays, to_caller_type = to_arrays(feeds, self.model.inputs)
        results = self._device.step(arrays)
        if not results:  # a single cell, whose outputs are its states
            results = {self.model.states[name]: array for name, array in self._device.state.items()}
        self._results = self._chunks.still(results)
        return as_passed(results, to_caller_type)

    def _bind(self, key: Key, feeds: Mapping[str, np.ndarray], results: Mapping[str, Any]) -> None:
        """Bind chunks of this shape once it has occurred twice: one binding for each direction of the double buffer."""
        if key not in self._bound:
            self._bound[key] = None
        else:
            model = self.model
            arrays = {name: np.array(array, array.dtype.newbyteorder("="), order="C") for name, array in feeds.items()}
            arrays = {name: array for name, array in model.completed(arrays).items() if name not in model.states}
            buffers = output_buffers(model.inputs, model.outputs, {**arrays, **self._state})
            if self._chunks.chunked:  # their shapes depend on the chunk, and on the phase in the key
                buffers = {name: np.empty_like(array) for name, array in results.items()}
            if buffers is None or any(buffers[name].shape != np.shape(results[name]) for name in buffers):
                return
            session = model.session_for({**arrays, **self._state})
            pair = []
            try:
                for before, after in (self._buffers, self._buffers[::-1]):
                    # Each has its own, so that a chunk that fails leaves the outputs of the one before it intact.
                    outputs = {name: np.empty_like(array) for name, array in buffers.items()}
                    ends = {model.states[name]: array for name, array in after.items()}
                    pair.append(Binding(session, model.path, {**arrays, **before}, {**outputs, **ends}))
            except RunError:  # the caller has its results anyway
                self._unbound.add(key)
                return
            bound = self._bound[key] = (pair[0], pair[1])
            is_simple = len(self._names) == 1 and self._has_single_output and not model.checks_numbers
            if is_simple and self._chunks.repeats(feeds):
                chunk = arrays[self._names[0]]
                phase, steps = (self._chunks.phase, self._chunks.steps_of(feeds)) if self._phased else (None, 0)
                self._last = _Last(chunk.shape, chunk.dtype, bound, chunk, self._output_names[0], phase, steps)
        while len(self._bound) > MAX_STREAM_BINDINGS:
            self._bound.popitem(last=False)

    def __reduce__(self) -> Any:
        """Refuse to be pickled or copied."""
        raise TypeError(
            "a stream cannot be pickled or copied; keep its state, and set it as the state of another stream"
        )

    def __repr__(self) -> str:
        """The model's path, the batch and the states' shapes, on one line."""
        states = ", ".join(f"{name} {array.shape}" for name, array in self._start.items())
        return one_line(f"<Stream of {self.model.path}: batch {self.batch}, states {states}>")


calls_onnxruntime(Stream.__call__)

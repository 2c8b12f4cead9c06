"""Runs chunks of a stream for a file that was made for chunks of any length: see `metadata.Streaming`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError, RunError
from ..symbolic_dims import names_in, size_of
from .batch_axes import BATCH, TIME, batch_name, has_unnamed_batch
from .bindings import Key
from .call import call
from .cancellation import options_of
from .conversion import ToCallerType, as_passed, to_numpy, unchanged
from .counts import require_one_place
from .loaded_model import LoadedModel
from .providers import runs_operator
from .streamable import found_chunks, stream_inputs
from .tensor_info import ValueInfo, require_known_names

Arrays = dict[str, "np.ndarray[Any, Any]"]


class ChunkedSteps:
    """Runs chunks of any length, including 0, and the end of a sequence.

    Attributes:
        chunked: whether the file was made for chunks of any length, and has more than the states of recurrent layers.
        input_names: the inputs that a caller passes.
        delay: see `Stream.delay`.
        hop: see `Stream.hop`.
        phased: whether earlier chunks matter: equal chunks may give different numbers of steps, or an input or output
            has no time axis and is kept for calls without steps.
        shapes: the output shapes of the last chunk that was not bound.
        to_caller_type: converts results to the type that the caller passed last.
    """

    def __init__(self, model: LoadedModel, batch: int) -> None:
        self.model = model
        self.batch = batch
        self.chunked = model.metadata.streaming is not None
        self._streaming = streaming = model.metadata.streaming_or_default
        self.input_names = list(stream_inputs(model))
        self.delay, self.hop = streaming.delay, streaming.hop
        self._other_names = [name for name in self.input_names if self.chunked and name not in streaming.time]
        self.phased = streaming.steps is not None or None in streaming.outputs.values() or bool(self._other_names)
        compared = None if self.chunked else found_chunks(model)
        named = streaming.outputs if self.chunked else {name: self._time_axis(name) for name in model.outputs}
        self._outputs = {**named, **({} if compared is None else compared.outputs)}
        self._steps = 0
        self._still: Arrays = {}
        self._restored = False
        self._others: Arrays = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.to_caller_type: ToCallerType = unchanged

    def prepared(self, feeds: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
        """The feeds of a call that does not end the sequence, and whether the chunk has no steps.

        Raises:
            InputError: an input is missing or has the wrong rank, or one input has steps and another has none.
        """
        streaming = self._streaming
        if streaming.last is not None:
            if streaming.last in feeds:
                raise InputError(
                    f"{streaming.last} is set by the stream",
                    hint="stream.flush() ends the sequence",
                    name=streaming.last,
                )
            feeds = {**feeds, streaming.last: np.zeros(1, np.int64)}
        first = next(iter(feeds.values()), None)
        self.to_caller_type = unchanged
        if type(first) is not np.ndarray and first is not None:
            name = next(iter(feeds))
            self.to_caller_type = to_numpy(first, self.model.inputs.get(name), name)[1]
        shapes = {name: tuple(getattr(feeds[name], "shape", ())) for name in streaming.time if name in feeds}
        steps = {
            name: shape[axis]
            for name, axis in streaming.time.items()
            if len(shape := shapes.get(name, ())) == len(self.model.inputs[name].shape)
        }
        empty = len(steps) == len(streaming.time) and not any(steps.values())
        if empty:
            known = [*self.input_names, *([] if streaming.last is None else [streaming.last])]
            require_known_names({name: self.model.inputs[name] for name in known}, feeds)
            missing = [name for name in self.input_names if name not in feeds]
            if missing:
                raise InputError(f"missing input: {self.model.inputs[missing[0]]}", name=missing[0])
            self._require_empty_fits(shapes)
            self._keep_others(feeds)
        return feeds, empty

    def _keep_others(self, feeds: Mapping[str, Any]) -> None:
        """Keep copies of the inputs without a time axis, since the caller may write into its own arrays."""
        for name in self._other_names:
            self._others[name] = np.array(to_numpy(feeds[name], self.model.inputs[name], name)[0])

    def _require_empty_fits(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Require that the other axes of a chunk without steps fit the model."""
        batch = batch_name(self.model)
        for name, axis in self._streaming.time.items():
            for place, (size, dim) in enumerate(zip(shapes[name], self.model.inputs[name].shape, strict=True)):
                wanted = self.batch if dim == batch else dim
                if place != axis and isinstance(wanted, int) and size != wanted:
                    raise InputError(
                        f"{name} has shape {shapes[name]}", hint=f"axis {place} must be {wanted}", name=name
                    )

    def key(self, key: Key | None) -> Key | None:
        """The key of a chunk's shapes, with the stream's phase if that affects the shapes of outputs."""
        return None if key is None else (*key, ("", (self.phase,), ""))

    @property
    def phase(self) -> int:
        """A number that, together with a chunk's shape, determines the shapes of outputs."""
        return self._streaming.phase(self._steps)

    def steps_of(self, feeds: Mapping[str, Any]) -> int:
        """The steps of a chunk."""
        name, axis = next(iter(self._streaming.time.items()))
        return int(np.shape(feeds[name])[axis])

    def repeats(self, feeds: Mapping[str, Any]) -> bool:
        """Whether a chunk of the same length as this one, which has been counted, gives outputs of the same shapes."""
        if not self.phased:
            return True
        if None in self._streaming.outputs.values():  # they are kept for calls without steps
            return False
        return self._streaming.phase(self._steps - self.steps_of(feeds)) == self.phase

    def count(self, steps: int) -> None:
        """Count steps that were run."""
        self._steps += steps

    def advance(self, feeds: Mapping[str, Any], results: Mapping[str, Any]) -> None:
        """Count the steps of a chunk that was run, and keep copies of arrays without a time axis for empty calls."""
        self.count(self.steps_of(feeds))
        self._keep_others(feeds)
        self._still |= self.still(results)

    def still(self, results: Mapping[str, Any]) -> Arrays:
        """Copies of the `results` without a time axis, since the caller may write into its own arrays."""
        names = [name for name, time in self._outputs.items() if time is None and name in results]
        return {name: np.array(to_numpy(results[name], None, name)[0]) for name in names}

    def restart(self, states: Mapping[str, np.ndarray], *, restored: bool = False) -> None:
        """Start from these states; `restored` are those of a sequence that has begun, unless it has had no step.

        Raises:
            InputError: they are of sequences that cannot be stepped together.
        """
        require_one_place(self._streaming, states)
        self._still.clear()
        self._others.clear()  # they belong to another sequence
        self._steps = self._steps_in(states)
        self._restored = restored and (self._streaming.steps is None or self._steps > 0)

    def _steps_in(self, states: Mapping[str, np.ndarray]) -> int:
        """The number of steps that the states count; 0 if they count none."""
        name = self._streaming.steps
        return 0 if name is None else int(states[name].reshape(-1)[0])

    def settle(self, states: Arrays, last: Mapping[str, np.ndarray]) -> None:
        """Find the outputs without a time axis: as in the `last` chunk, or of states that were restored since.

        Raises:
            InputError: they, or an input on which they depend, are not known after a call without steps.
            RunError: ONNX Runtime failed.
        """
        self._still |= self.still(last) | {output: states[name] for name, output in self.model.states.items()}
        if not self._restored:
            return
        unknown = [name for name, time in self._outputs.items() if time is None and name not in self._still]
        if unknown:
            # A GRU without steps crashes the process; it gets one step if the file has an input `last`.
            unsafe = self._streaming.last is None and runs_operator(self.model.session, "GRU")
            try:
                results = {} if unsafe or not self.chunked else self._without_steps(states, last=0)
            except RunError:  # such as since there is no last step to select
                results = {}
            found = results and all(results[name].size for name in unknown)
            # An LSTM or RNN without steps loses its states, and its result is not that of the last step.
            kept = all(
                np.array_equal(results[after], states[name], equal_nan=True)
                for name, after in self.model.states.items()
                if after in results
            )
            if not found or not kept:
                raise self._unknown(unknown[0], "feed a chunk first")
            self._still |= {name: results[name] for name in unknown}

    def _unknown(self, name: str, hint: str) -> InputError:
        return InputError(
            f"{name} is not known: no chunk has been run since the state was set",
            hint=hint,
            path=self.model.path,
            name=name,
        )

    def converted(self, results: Arrays) -> dict[str, Any]:
        """Results as arrays of the type that the caller passed last."""
        return as_passed(results, self.to_caller_type)

    def nothing(self, name: str) -> np.ndarray:
        """An output of a call without steps: empty along time, or its value at the last step."""
        info = self.model.outputs[name]
        known = self._outputs.get(name)
        if known is None and name in self._still:
            return self._still[name].copy()
        if known is not None and len(shape := self.shapes.get(name, ())) > known:
            return np.zeros((*shape[:known], 0, *shape[known + 1 :]), info.dtype or np.float32)
        return self._without_entries(info, known)

    def _without_entries(self, info: ValueInfo, axis: int | None) -> np.ndarray:
        """An array of a call without steps, whose time axis is `axis`."""
        batch = batch_name(self.model)
        sizes = {} if batch is None else {batch: self.batch}
        other = self.batch if batch is None else 1  # the batch may have another name in each input
        known = [size_of(dim, sizes) if isinstance(dim, str) else dim for dim in info.shape]
        shape = [0 if place == axis else other if size is None else size for place, size in enumerate(known)]
        return np.zeros(shape, info.dtype or np.float32)

    def _time_axis(self, name: str) -> int | None:
        """The time axis of an output: its size follows from time or, as after packed lengths, from no input."""
        model = self.model
        known = {each for info in model.inputs.values() for each in _names(info)}
        times = set(model.metadata.time_axes) or {TIME}
        if not model.metadata.inputs and not times & known:  # of another tool, and not compared: see `found_chunks`
            states = {each for state in model.states for each in _names(model.inputs[state])}
            times = {each for info in stream_inputs(model).values() for each in _names(info)} - states - {BATCH}
        known -= times
        shape = model.outputs[name].shape
        found = [axis for axis, dim in enumerate(shape) if isinstance(dim, str) and names_in(dim) - known]
        unnamed = [axis for axis, dim in enumerate(shape) if dim is None]
        if len(unnamed) > has_unnamed_batch(model):  # not all of them are the batch
            found += unnamed
        return found[0] if found else None

    def flushed(self, states: Arrays) -> dict[str, Any] | None:
        """All outputs of the call that ends the sequence, including states; None if it would change nothing.

        Raises:
            InputError: the model does not take sequences with this number of steps; or an input is not known.
            RunError: ONNX Runtime failed.
        """
        streaming, steps = self._streaming, self._steps_in(states)
        if steps % streaming.multiple:
            raise InputError(
                f"the sequence has {steps} steps, but the model takes multiples of {streaming.multiple}",
                hint="feed the missing steps before flush, or reset the stream",
                path=self.model.path,
            )
        if 0 < steps < streaming.least:
            raise InputError(
                f"the sequence has {steps} steps, but the model takes {streaming.least} or more",
                hint="feed more steps before flush, or reset the stream",
                path=self.model.path,
            )
        if streaming.last is None or not steps:
            return None
        return self._without_steps(states, last=1)

    def _without_steps(self, states: Arrays, last: int) -> dict[str, Any]:
        """All outputs of a call with a chunk of no steps (InputError, RunError)."""
        for name in self._other_names:
            if name not in self._others:
                raise self._unknown(name, "feed a chunk first, which may have no steps")
        feeds = {**self._others, **states}
        if self._streaming.last is not None:
            feeds[self._streaming.last] = np.full(1, last, np.int64)
        for name, axis in self._streaming.time.items():
            feeds[name] = self._without_entries(self.model.inputs[name], axis)
        names = list(self.model.outputs)
        values = call(self.model.path, self.model.session.run, names, feeds, options_of(self.model))
        return dict(zip(names, values, strict=True))


def _names(info: ValueInfo) -> set[str]:
    """The names in its shape."""
    return names_in(" ".join(dim for dim in info.shape if isinstance(dim, str)))

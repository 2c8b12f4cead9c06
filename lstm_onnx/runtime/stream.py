"""Streams: the states are carried from one chunk to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .states import stream_start
from .values import checked, to_numpy

if TYPE_CHECKING:
    from .session import Model


class Stream:
    """A model fed chunk by chunk.  Made by `Model.stream`.

    Any chunking of a sequence gives what the whole sequence gives, since h and c are all that an
    LSTM remembers.  That of a module holds where its other layers look at one step alone.
    """

    def __init__(self, model: Model, batch: int = 1) -> None:
        if not model.states:
            raise InputError(
                f"{model.path}: has no states to carry from chunk to chunk; load(..., states=...) names them"
            )
        if model.spec is not None and model.spec.bidirectional:
            raise InputError(
                f"{model.path}: is bidirectional: its reverse direction starts at the sequence's end, "
                "which a stream has not seen yet; run whole sequences instead"
            )
        if model.story.whole:
            raise InputError(f"{model.path}: cannot be streamed: {model.story.whole}; run whole sequences instead")
        if type(batch) is not int or batch < 1:
            raise InputError(f"batch = {batch!r} is not possible; it must be a positive integer")
        self.model = model
        self.batch = batch
        self._state: dict[str, np.ndarray] = {}
        self.reset()

    @property
    def state(self) -> dict[str, np.ndarray]:
        """A copy of every state by its input's name, such as ``{"h0": (L, batch, S), "c0": (L, batch, H)}``."""
        return {name: array.copy() for name, array in self._state.items()}

    @state.setter
    def state(self, values: Mapping[str, Any]) -> None:
        if not isinstance(values, Mapping):
            raise InputError(
                f"state must map {', '.join(self.model.states)} to arrays; it is a {type(values).__name__}"
            )
        infos = {name: self.model.inputs[name] for name in self.model.states}
        arrays = {name: to_numpy(value, infos.get(name), name)[0] for name, value in values.items()}
        fitting = checked(infos, arrays)
        for name, array in fitting.items():
            if array.shape != self._state[name].shape:
                raise InputError(f"{name} has shape {array.shape}; this stream's is {self._state[name].shape}")
        self._state = {name: array.copy() for name, array in fitting.items()}

    def reset(self) -> None:
        """Start over: every state is what the file starts it from, and zeros where it says nothing, as in nn.LSTM."""
        initial = self.model.story.initial
        self._state = {
            name: stream_start(self.model.inputs[name], self.batch, initial.get(name)) for name in self.model.states
        }

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
        results = self.model.run({**feeds, **self._state})
        ends = set(self.model.states.values())
        given = ends if ends < set(results) else set()
        # Where the states themselves are given away, what the caller does to them must not reach the stream.
        self._state = {
            name: np.array(to_numpy(results[output], None, name)[0], copy=not given or None)
            for name, output in self.model.states.items()
        }
        return {name: value for name, value in results.items() if name not in given}

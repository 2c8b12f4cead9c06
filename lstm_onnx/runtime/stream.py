"""Streams: the states are carried from one chunk to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .values import ValueInfo, checked, to_numpy, zeros

if TYPE_CHECKING:
    from .session import Model


class Stream:
    """A model fed chunk by chunk.  Made by `Model.stream`.

    Any chunking of a sequence gives what the whole sequence gives, since h and c are all that an
    LSTM remembers.
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
        """Start over: every state is zeros, as nn.LSTM starts."""
        self._state = {name: _start(self.model.inputs[name], self.batch) for name in self.model.states}

    def __call__(self, chunk: Any) -> Any:
        """The outputs for the next steps of a bare LSTM.

        Args:
            chunk: ``(time, batch, input_size)``, or batch first as the model is; for a batch of 1
                also ``(time, input_size)``.

        Returns:
            The output in the chunk's layout and kind.

        Raises:
            InputError: the chunk does not fit.
            RunError: ONNX Runtime failed; the states are as they were before the chunk.
        """
        spec = self.model.spec
        if spec is None:
            raise InputError(f"{self.model.path}: is not a bare LSTM; call stream.run({{name: array}})")
        x, restore = to_numpy(chunk, self.model.inputs["input"], "input")
        if x.ndim == 2 and self.batch == 1:
            axis = 0 if spec.batch_first else 1
            return restore(self.run({"input": np.expand_dims(x, axis)})["output"].squeeze(axis))
        return restore(self.run({"input": x})["output"])

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """One chunk by names, any model: the inputs that are not states in, the outputs that are not states out."""
        for name in feeds:
            if name in self.model.states:
                raise InputError(f"{name} is a state, which the stream carries itself; set stream.state to change it")
        results = self.model.run({**feeds, **self._state})
        self._state = {name: to_numpy(results[output], None, name)[0] for name, output in self.model.states.items()}
        return {name: value for name, value in results.items() if name not in self.model.states.values()}


def _start(info: ValueInfo, batch: int) -> np.ndarray:
    """Zeros for a state; models from elsewhere may call their batch otherwise, or leave it without a name."""
    open_axes = [axis for axis, dim in enumerate(info.shape) if not isinstance(dim, int)]
    shape = tuple(batch if axis in open_axes else dim for axis, dim in enumerate(info.shape))
    state = zeros(ValueInfo(info.name, info.dtype, shape), {}) if len(open_axes) <= 1 else None
    if state is None:
        raise InputError(f"the state {info} cannot start as zeros: one axis of it may be open, the batch")
    return state

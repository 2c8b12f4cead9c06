"""Converts a client's arrays to websocket frames and back, in the layout that the server's first message describes.

`SteppedStream` is what a client's streams have in common.
"""

from __future__ import annotations

import struct
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, shown
from ..runtime.call_order import Call, CallOrder
from .tensors import DATATYPES, to_bytes


@dataclass(frozen=True)
class ClientFrames:
    """The layout of a stream's frames.

    Attributes:
        inputs: name, datatype and shape of each input; a size that is not fixed is -1, and the batch size is 1.
        outputs: the same for outputs.
        elements: for each input, its number of elements in a frame of one step, and in each further step.
    """

    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    elements: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, first: Mapping[str, Any]) -> ClientFrames:
        """Read the layout from a server's first message (ConnectionError where that lacks something)."""
        if "elements" not in first:
            raise ConnectionError("the server does not say how many numbers a step has; its lstm-onnx is too old")
        return cls(first["inputs"], first["outputs"], first["elements"])

    def frame(self, inputs: Any) -> bytes:
        """The bytes of an array or of arrays by name; raises InputError where they do not fit the model."""
        if not isinstance(inputs, Mapping):
            if len(self.inputs) != 1:
                raise InputError(f"the model has several inputs: {', '.join(item['name'] for item in self.inputs)}")
            inputs = {self.inputs[0]["name"]: inputs}
        parts = []
        steps: dict[str, float] = {}
        for item in self.inputs:
            name, dtype, shape = item["name"], DATATYPES[item["datatype"]], item["shape"]
            if name not in inputs:
                raise InputError(f"the input {name} is missing", name=name)
            array = np.asarray(inputs[name])
            fits = len(array.shape) == len(shape) and all(
                size in (-1, own) for size, own in zip(shape, array.shape, strict=True)
            )
            if array.dtype != dtype or not fits:
                raise InputError(
                    f"{name} is {array.dtype} {array.shape}; the model takes {item['datatype']} {shape}", name=name
                )
            if -1 in shape:
                first, more = self.elements[name]
                steps[name] = 1 + (array.size - first) / more
            parts.append(to_bytes(array))
        if len(inputs) != len(self.inputs):
            unknown = next(name for name in inputs if name not in [item["name"] for item in self.inputs])
            raise InputError(f"{shown(unknown)} is not an input of the model")
        if len(set(steps.values())) > 1:  # their total may be the size of a valid frame nevertheless
            listed = ", ".join(f"{name} has {number:g}" for name, number in steps.items())
            raise InputError(f"the inputs have different numbers of steps: {listed}")
        return b"".join(parts)

    def framed(self, inputs: Any) -> bytes | InputError:
        """As `frame`, but return the InputError, which is raised where the call is awaited."""
        try:
            return self.frame(inputs)
        except InputError as error:
            return error

    def arrays(self, data: bytes) -> dict[str, np.ndarray]:
        """The outputs in an answer, by name."""
        arrays, at = {}, 0
        for item in self.outputs:
            size = len(data)
            if len(self.outputs) > 1:
                (size,) = struct.unpack_from("<I", data, at)
                at += 4
            flat = np.frombuffer(data, DATATYPES[item["datatype"]], size // DATATYPES[item["datatype"]].itemsize, at)
            arrays[item["name"]] = flat.reshape(item["shape"] if item["shape"].count(-1) < 2 else -1).copy()
            at += size
        return arrays

    def results(self, inputs: Any, data: bytes) -> Any:
        """What a step with `inputs` returns: the output, or outputs by name."""
        outputs = self.arrays(data)
        return outputs if isinstance(inputs, Mapping) or len(outputs) > 1 else next(iter(outputs.values()))


class SteppedStream:
    """A client's stream, whose steps are answered in the order of their calls.

    Attributes:
        inputs: name, datatype and shape of each input; a size that is not fixed is -1, and the batch size is 1.
        outputs: the same for outputs.
    """

    def __init__(self, frames: ClientFrames) -> None:
        self._frames = frames
        self._order = CallOrder()

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """See the class."""
        return self._frames.inputs

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """See the class."""
        return self._frames.outputs

    def step(self, inputs: Any) -> Coroutine[Any, Any, Any]:
        """Run the next time steps.  Calls are answered in their order, and need not wait for one another.

        `inputs` are copied when this method is called, not when its task starts: their memory may be reused at once.
        A frame is run even if its call is cancelled.

        Args:
            inputs: an array for a model with one input, or a dict of arrays by name.

        Returns:
            The output; a dict of outputs by name where `inputs` is a dict or the model has several outputs.

        Raises:
            InputError: the server refused the frame, or it does not fit; the stream is unchanged.
            ConnectionError: the stream is closed or lost, with its states; one with snapshots is lost if it could not
                be continued, or had no answer for `reconnect` seconds.  A frame without an answer may or may not have
                been run.
        """
        call = self._order.call()
        return call.of(self._step(inputs, self._frames.framed(inputs), call))

    async def _step(self, inputs: Any, frame: bytes | InputError, call: Call) -> Any:
        if isinstance(frame, InputError):
            raise frame
        await call.turn()
        return self._frames.results(inputs, await self._answer(frame))

    async def _answer(self, frame: bytes) -> bytes:
        """Send a frame, before anything is awaited, and wait for its answer."""
        raise NotImplementedError

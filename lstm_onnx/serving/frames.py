"""Encodes a websocket's binary frames: a model's inputs for one step of a stream, and its outputs.

A frame holds the raw little-endian bytes of every input, one after another, without any header: at most one size, that
of time, is not fixed, and it follows from the number of bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..runtime import Model, ValueInfo
from ..runtime.batch_axes import BatchAxes, axis_of, batch_name
from ..runtime.batcher.batcher import Batcher
from ..symbolic_dims import names_in, size_of
from .errors import RequestError
from .served_model import ServedModel, tensor_metadata
from .single_streams import SingleStreams
from .tensors import DATATYPES, from_bytes, to_bytes

_LENGTHS = "lengths"
"""The input of a bare LSTM with the lengths of its sequences; frames are complete, so the pool fills it in."""

_MOST_PLANS = 100
_Part = tuple[str, str, np.dtype[Any], list[int], int, int]
"""An input's name, datatype, dtype, sizes, and the positions at which its bytes start and end in a frame."""


@dataclass(frozen=True)
class FrameLayout:
    """The layout of the frames of a model.

    Attributes:
        inputs: the inputs in their order, with a batch size of 1.
        outputs: the outputs, likewise.
        free: the name of the dynamic axis; None where that has no name, or where every axis is fixed.
    """

    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    free: str | None
    _plans: dict[int, list[_Part]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, served: ServedModel) -> FrameLayout:
        """The layout for a model that can be streamed (RequestError where frames cannot carry its inputs)."""
        model, batcher = served.model, served.require_batcher()
        if model.metadata.streaming_or_default.last is not None:
            raise RequestError(
                f"{served.name} looks ahead, so its last outputs come only once a sequence has ended; use requests "
                "with a sequence_id, and set sequence_end in the last one"
            )
        input_axes, output_axes = _batch_axes(model, batcher, served.output_names)
        inputs = [
            _alone(info, input_axes[name])
            for name, info in served.inputs.items()
            if not (model.spec is not None and name == _LENGTHS)
        ]
        dims = [dim for info in inputs for dim in info.shape if not isinstance(dim, int)]
        names = {name for dim in dims if dim is not None for name in names_in(dim)}
        unnamed = dims.count(None)
        if len(names) + unnamed > 1:
            raise RequestError(
                f"the inputs of {served.name} have several sizes that are not fixed, which a frame's number of bytes "
                "does not determine; use requests with a sequence_id"
            )
        outputs = [_alone(model.outputs[name], output_axes[name]) for name in served.output_names]
        return cls(tuple(inputs), tuple(outputs), next(iter(names), None))

    def arrays(self, data: bytes | None) -> dict[str, np.ndarray]:
        """The inputs in a frame, None for a text frame (RequestError for that, or a wrong number of bytes)."""
        if data is None:
            raise RequestError("a frame must be binary, but this one is text")
        plan = self._plans.get(len(data))
        if plan is None:
            plan = self._parts(self._steps(len(data)))
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[len(data)] = plan
        view = memoryview(data)
        return {
            name: from_bytes(name, datatype, sizes, view[start:end])
            if datatype == "BOOL"
            else np.frombuffer(view[start:end], dtype).reshape(sizes)
            for name, datatype, dtype, sizes, start, end in plan
        }

    def _parts(self, steps: int) -> list[_Part]:
        """The position of each input in a frame of this many steps."""
        parts: list[_Part] = []
        at = 0
        known = {} if self.free is None else {self.free: steps}
        for info in self.inputs:
            datatype = tensor_metadata(info)["datatype"]
            dtype = DATATYPES[datatype]
            sizes = [
                dim if isinstance(dim, int) else steps if dim is None else size_of(dim, known) or 0
                for dim in info.shape
            ]
            end = at + math.prod(sizes) * dtype.itemsize
            parts.append((info.name, datatype, dtype, sizes, at, end))
            at = end
        return parts

    def _steps(self, size: int) -> int:
        """The number of steps in a frame of `size` bytes (RequestError where no number of steps has that size)."""
        one, two = (self._bytes(steps) for steps in (1, 2))
        if two == one:
            if size != one:
                raise RequestError(f"the frame has {size} bytes; it must have {one}")
            return 1
        steps, rest = divmod(size - one, two - one)
        if rest or steps < 0 or self._bytes(steps + 1) != size:
            raise RequestError(f"the frame has {size} bytes; it must have {one}, and {two - one} for each further step")
        return steps + 1

    def _bytes(self, steps: int) -> int:
        parts = self._parts(steps)
        return parts[-1][-1] if parts else 0

    def answer(self, outputs: Mapping[str, np.ndarray]) -> bytes:
        """A step's outputs as bytes; where there are several, each follows its size as a little-endian uint32."""
        parts = [to_bytes(outputs[info.name]) for info in self.outputs]
        if len(parts) == 1:
            return parts[0]
        return b"".join(piece for part in parts for piece in (struct.pack("<I", len(part)), part))

    def to_dict(self) -> dict[str, Any]:
        """The layout as JSON's types, for the first message of a websocket.

        ``elements`` are, for each input, its number of elements in a frame of one step and in each further step: if
        two inputs have wrong sizes, their frame may still have a valid number of bytes, which only its client can tell.
        """
        one, two = ({name: math.prod(sizes) for name, _, _, sizes, _, _ in self._parts(steps)} for steps in (1, 2))
        return {
            "inputs": [tensor_metadata(info) for info in self.inputs],
            "outputs": [tensor_metadata(info) for info in self.outputs],
            "elements": {name: [first, two[name] - first] for name, first in one.items()},
        }


def _batch_axes(
    model: Model, batcher: Batcher | SingleStreams, output_names: list[str]
) -> tuple[Mapping[str, int | None], Mapping[str, int | None]]:
    """The batch axis of each input and output; None where it is fixed or there is none."""
    if isinstance(batcher, Batcher):
        axes = BatchAxes.of(model, batcher.pool.axes, batcher.pool.output_names)
        return axes.inputs, axes.outputs
    batches = {batch_name(model)} - {None}
    return (
        {name: axis_of(info, batches) for name, info in model.inputs.items()},
        {name: axis_of(model.outputs[name], batches) for name in output_names},
    )


def _alone(info: ValueInfo, batch_axis: int | None) -> ValueInfo:
    """A tensor with a batch of 1."""
    return replace(info, shape=tuple(1 if axis == batch_axis else dim for axis, dim in enumerate(info.shape)))

"""A websocket's binary frames: a model's inputs for one step of a stream, and its outputs.

A frame holds the raw little-endian bytes of every input, one after another, without any header: at most one size is
not fixed, that of time, and follows from the number of bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..runtime import Model, ValueInfo
from ..runtime.batch_axes import BatchAxes, axis_of, batch_name
from ..runtime.batcher.batcher import Batcher
from ..symbolic_dims import names_in, size_of
from .errors import RequestError
from .served_model import ServedModel
from .single_streams import SingleStreams
from .tensors import DATATYPES, datatype_of, from_bytes, to_bytes

_LENGTHS = "lengths"
"""Of a bare LSTM; a stream has complete frames, and the pool fills it in."""

_MOST_PLANS = 100
_Part = tuple[str, str, np.dtype[Any], list[int], int, int]
"""Of an input: name, datatype, dtype, sizes, and where its bytes start and end in a frame."""


@dataclass(frozen=True)
class FrameTensor:
    """One input or output of a frame.

    Attributes:
        info: its name, dtype and axes.
        shape: its axes, with a batch of 1.
    """

    info: ValueInfo
    shape: tuple[int | str | None, ...]

    def sizes(self, free: str | None, steps: int) -> list[int]:
        """Its shape where the free axis has `steps` steps."""
        known = {} if free is None else {free: steps}
        return [
            dim if isinstance(dim, int) else steps if dim is None else size_of(dim, known) or 0 for dim in self.shape
        ]

    def bytes(self, free: str | None, steps: int) -> int:
        """Its number of bytes there."""
        assert self.info.dtype is not None  # noqa: S101 - `open_model` refuses others
        return math.prod(self.sizes(free, steps)) * self.info.dtype.itemsize

    def to_dict(self) -> dict[str, Any]:
        """Name, datatype and shape, with -1 for sizes that are not fixed."""
        assert self.info.dtype is not None  # noqa: S101
        sizes = [dim if isinstance(dim, int) else -1 for dim in self.shape]
        return {"name": self.info.name, "datatype": datatype_of(self.info.dtype), "shape": sizes}


@dataclass(frozen=True)
class FrameLayout:
    """What a frame of a model holds.

    Attributes:
        inputs: in their order.
        outputs: in their order.
        free: the name of the axis that is not fixed; None where it has none, or where every one is fixed.
    """

    inputs: tuple[FrameTensor, ...]
    outputs: tuple[FrameTensor, ...]
    free: str | None
    _plans: dict[int, list[_Part]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, served: ServedModel) -> FrameLayout:
        """The layout for a model that can be streamed (RequestError where it has none)."""
        model, batcher = served.model, served.require_batcher()
        if model.metadata.streaming_or_default.last is not None:
            raise RequestError(
                f"{served.name} looks ahead, so its last outputs come once a sequence has ended; use requests with a "
                "sequence_id, whose last one has sequence_end"
            )
        input_axes, output_axes = _batch_axes(model, batcher, served.output_names)
        inputs = [
            _tensor(info, input_axes[name])
            for name, info in served.inputs.items()
            if not (model.spec is not None and name == _LENGTHS)
        ]
        dims = [dim for tensor in inputs for dim in tensor.shape if not isinstance(dim, int)]
        names = {name for dim in dims if dim is not None for name in names_in(dim)}
        unnamed = dims.count(None)
        if len(names) + unnamed > 1:
            raise RequestError(
                f"the inputs of {served.name} have several sizes that are not fixed, so a frame's number of bytes "
                "does not say which; use requests with a sequence_id"
            )
        outputs = [_tensor(model.outputs[name], output_axes[name]) for name in served.output_names]
        return cls(tuple(inputs), tuple(outputs), next(iter(names), None))

    def arrays(self, data: bytes | None) -> dict[str, np.ndarray]:
        """The inputs of a frame; None is one of text (RequestError where it has a wrong number of bytes)."""
        if data is None:
            raise RequestError("a frame must be binary, and this one is text")
        plan = self._plans.get(len(data))
        if plan is None:
            plan = self._plan(len(data))
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

    def _plan(self, size: int) -> list[_Part]:
        """Where each input is in a frame of so many bytes (RequestError)."""
        steps = self._steps(size)
        parts: list[_Part] = []
        at = 0
        for tensor in self.inputs:
            dtype = tensor.info.dtype
            assert dtype is not None  # noqa: S101 - `open_model` refuses others
            end = at + tensor.bytes(self.free, steps)
            datatype = datatype_of(dtype)
            sizes = tensor.sizes(self.free, steps)
            parts.append((tensor.info.name, datatype, DATATYPES[datatype], sizes, at, end))
            at = end
        return parts

    def _steps(self, size: int) -> int:
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
        return sum(tensor.bytes(self.free, steps) for tensor in self.inputs)

    def answer(self, outputs: Mapping[str, np.ndarray]) -> bytes:
        """The outputs of a step; of several, each after its number of bytes as a little-endian uint32."""
        parts = [to_bytes(outputs[tensor.info.name]) for tensor in self.outputs]
        if len(parts) == 1:
            return parts[0]
        return b"".join(piece for part in parts for piece in (struct.pack("<I", len(part)), part))

    def to_dict(self) -> dict[str, Any]:
        """For the first message of a websocket."""
        return {
            "inputs": [tensor.to_dict() for tensor in self.inputs],
            "outputs": [tensor.to_dict() for tensor in self.outputs],
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


def _tensor(info: ValueInfo, batch_axis: int | None) -> FrameTensor:
    shape = tuple(1 if axis == batch_axis else dim for axis, dim in enumerate(info.shape))
    return FrameTensor(info, shape)

"""The data types of a rewrite: what is known about values of the original graph, and the streaming graph."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from ...metadata import Streaming
from ..size import Size
from .counts import Count
from .errors import RefusedError

Shape = tuple[Size, ...]


@dataclass(frozen=True)
class Fold:
    """What else is in the time axis: (before, time, after) were merged into one axis."""

    before: Size
    after: Size


@dataclass(frozen=True)
class Places:
    """Step numbers: ``stride * i + offsets`` for each i along an axis.

    Attributes:
        axis: along which i counts from 0, up to a size that depends on the number of time steps.
        stride: 1 or more.
        offsets: with a size of 1 along `axis`.
    """

    axis: int
    stride: int
    offsets: np.ndarray


@dataclass(frozen=True)
class Static:
    """A value that is the same at every step of a sequence.

    Attributes:
        shape: its axes in the whole-sequence graph; None where they are not known.
        numbers: the integers that it holds, if they are known; they may depend on the number of time steps.
        array: its content, if it is a constant.
        fill: the number that all its elements equal, if that is known.
        repeated: the axis that has equal steps in the original graph and only one of them here, and their count.
        quotient: a number that depends on the number of time steps, as a size and its divisor.
        places: step numbers, which are computed only when a node reads them.
    """

    shape: Shape | None
    dtype: np.dtype | None = None
    numbers: tuple[Size, ...] | None = None
    array: np.ndarray | None = None
    fill: float | None = None
    repeated: tuple[int, Count] | None = None
    quotient: tuple[Size, int] | None = None
    places: Places | None = None


@dataclass(frozen=True)
class Carry:
    """The value at the last step so far, such as a final state; as an output right once the sequence has ended."""

    shape: Shape | None
    dtype: np.dtype | None = None


@dataclass(frozen=True)
class Stream:
    """A value with steps.  A call has the next ones, or one step to be ignored if there are none.

    Attributes:
        shape: its axes in the whole-sequence graph.
        axis: the time axis.
        count: the number of steps.
        fold: what else is in the time axis.
    """

    shape: Shape
    dtype: np.dtype | None
    axis: int
    count: Count
    fold: Fold | None = None

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def steps(self) -> Size:
        """The number of time steps in the time axis.

        Raises:
            RefusedError: it does not follow from the axis.
        """
        if self.fold is None:
            return self.shape[self.axis]
        steps = self.shape[self.axis].divided(self.fold.before * self.fold.after)
        if steps is None:
            raise RefusedError("splits an axis into which time was reshaped")
        return steps

    def with_steps(self, size: Size, count: Count) -> Stream:
        """The same stream with another number of steps."""
        return replace(self, shape=with_size(self.shape, self.axis, size), count=count)


def with_size(shape: Shape, axis: int, size: Size) -> Shape:
    """A shape with the size of one axis replaced; the axis counts from the front."""
    return (*shape[:axis], size, *shape[axis + 1 :])


Fact = Static | Carry | Stream


@dataclass(frozen=True)
class StreamOutput:
    """An output of a streaming graph.

    Attributes:
        axis: its time axis; None for a value at the last step so far, or one that is the same at every step.
        rest: the most steps that come only once the sequence has ended.
        first: the number of input steps after which its first step is available.
    """

    axis: int | None
    rest: int = 0
    first: int = 1


@dataclass(frozen=True)
class Rewritten:
    """A streaming graph.

    Attributes:
        model: without initializers and metadata.
        initializers: by name.
        caches: the new states, each with the output that feeds it.
        initial: their initial values, with a batch axis of 1; other caches start from zeros.
        outputs: the outputs that are not states.
        streaming: how it takes chunks.
        time: the name of the time axis.
        look_ahead: the nodes that need later steps.
    """

    model: ModelProto
    initializers: dict[str, np.ndarray]
    caches: dict[str, str]
    initial: dict[str, np.ndarray]
    outputs: dict[str, StreamOutput]
    streaming: Streaming
    time: str
    look_ahead: tuple[str, ...] = ()

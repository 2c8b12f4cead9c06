"""What a rewrite gives: a streaming graph and what is known of it, or the node that cannot stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from ...metadata import Streaming
from .facts import RefusedError


@dataclass(frozen=True)
class StreamOutput:
    """An output of a streaming graph.

    Attributes:
        axis: its time axis; None for a value at the last step so far, or the same at every step.
        rest: the most steps of it that come only once the sequence has ended.
        first: after so many steps of the input its first step is there.
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
        initial: what they start from, with a batch axis of 1; those that are not here start from zeros.
        outputs: those that are not states.
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


class NodeRefusedError(RefusedError):
    """A node that cannot be computed chunk by chunk.

    Attributes:
        node: its name, or its operator's where it has none.
        op: its operator.
    """

    def __init__(self, node: NodeProto, why: RefusedError) -> None:
        super().__init__(why.reason, why.instead)
        self.node = str(node.name)
        self.op = str(node.op_type)

    def __str__(self) -> str:
        """The node and the reason."""
        return f"{self.node} ({self.op}) {self.reason}" if self.node else f"{self.op} {self.reason}"

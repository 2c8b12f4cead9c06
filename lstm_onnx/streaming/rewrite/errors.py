"""Why a graph cannot be computed chunk by chunk."""

from __future__ import annotations

from onnx import NodeProto

REVERSE = "a model without a reverse direction"
"""What can be written instead of a recurrent node that goes backwards along time."""


class RefusedError(Exception):
    """A node cannot be computed chunk by chunk.

    Attributes:
        reason: why.
        instead: what can be written instead; "" if there is nothing.
    """

    def __init__(self, reason: str, instead: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.instead = instead


class FoldedError(RefusedError):
    """A node combines steps where the time axis is merged with other axes."""


class OwnStateError(RefusedError):
    """A module carries states itself, other than through recurrent nodes."""


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

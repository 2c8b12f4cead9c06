"""Adds the nodes that choose a token: the one with the largest logit, or one sampled with a number in [0, 1)."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from ..onnxgraph.builder import Nodes, integers_name

OWN = "generate/"
"""The prefix of the names of everything that is added to a step."""
LOOP = f"{OWN}loop"
"""The name of the Loop."""
BELOW_ONE = 1 - 2.0**-22
"""The limit to which noise is clipped: its product with a sum is less than the sum, in float32 too."""


class OwnNodes(Nodes):
    """Nodes whose shared constants have names that cannot clash with the step's."""

    def integers(self, *values: int) -> str:
        """A 1-D int64 initializer; equal ones are shared."""
        return self.constant(OWN + integers_name(values), np.array(values, np.int64))


def last_step(nodes: Nodes, value: str, axis: int, name: str) -> str:
    """The last entry of a value along an axis, which is removed."""
    index = nodes.constant("generate/int/-1", np.array(-1, np.int64))
    return nodes.one("Gather", value, index, name=name, axis=axis)


def greedy(nodes: Nodes, numbers: str) -> str:
    """The token with the largest number, int64 ``(batch, 1)``, from numbers ``(batch, tokens)``."""
    return nodes.one("ArgMax", numbers, name="generate/choose/token", axis=1, keepdims=1)


def sampled(
    nodes: Nodes, numbers: str, temperature: str, noise: str, top_k: int | None, dtype: np.dtype[np.generic]
) -> str:
    """A token sampled from the softmax of ``numbers / temperature``, int64 ``(batch, 1)``.

    It is the first token at which the cumulative probability exceeds the noise: inverse transform sampling, as in
    ``numpy.random.Generator.choice``.

    Args:
        nodes: the nodes of the loop's body.
        numbers: the logits, ``(batch, tokens)``.
        temperature: one number.
        noise: ``(batch, 1)``.
        top_k: sample only from the `top_k` most probable tokens; None for all.
        dtype: the dtype of `numbers`.
    """
    if top_k is not None:
        count = nodes.integers(top_k)
        outputs = ("generate/choose/largest", "generate/choose/index")
        largest, _ = nodes.add("TopK", numbers, count, name="generate/choose/TopK", outputs=outputs)
        least = nodes.one("Gather", largest, nodes.integers(-1), name="generate/choose/least", axis=1)
        lowest = nodes.constant("generate/choose/lowest", np.array(-np.inf, dtype))
        small = nodes.one("Less", numbers, least, name="generate/choose/Less")
        numbers = nodes.one("Where", small, lowest, numbers, name="generate/choose/top")
    scaled = nodes.one("Div", numbers, temperature, name="generate/choose/Div")
    chances = nodes.one("Softmax", scaled, name="generate/choose/Softmax", axis=1)
    one = nodes.constant("generate/int/1", np.array(1, np.int64))
    sums = nodes.one("CumSum", chances, one, name="generate/choose/CumSum")
    total = nodes.one("Gather", sums, nodes.integers(-1), name="generate/choose/total", axis=1)
    below_one = nodes.constant("generate/choose/below_one", np.array(BELOW_ONE, dtype))
    below = nodes.one("Min", noise, below_one, name="generate/choose/Min")
    wanted = nodes.one("Mul", below, total, name="generate/choose/Mul")
    more = nodes.one("Greater", sums, wanted, name="generate/choose/Greater")
    first = nodes.one("Cast", more, name="generate/choose/Cast", to=TensorProto.INT32)
    return nodes.one("ArgMax", first, name="generate/choose/token", axis=1, keepdims=1)


def score(nodes: Nodes, numbers: str, token: str, *, axis: int) -> str:
    """The logarithm of a token's probability under the step's own numbers, with 1 along the axis of the tokens."""
    logs = nodes.one("LogSoftmax", numbers, name="generate/choose/LogSoftmax", axis=axis)
    return nodes.one("GatherElements", logs, token, name="generate/choose/score", axis=axis)

"""Makes a case in which inputs are exactly the numbers that a file compares them with.

``x > 0.3`` and ``x >= 0.3`` differ for one number alone, which random inputs never are.  PyTorch's two precisions
differ there as well, since 0.3 is another number in each.  But where a file computes an output by comparisons alone,
nothing is rounded: it must give what PyTorch gives in the file's own precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ...onnxgraph.nodes import Walk, producers_of, stored_tensors
from ..expected import Expected
from .subject import Subject

_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_LAYOUT = frozenset(
    {"Concat", "Constant", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice", "Split", "Squeeze"}
    | {"Transpose", "Unsqueeze"}
)
_LOGICAL = frozenset({"And", "Not", "Or", "Xor"})
_EXACT = _COMPARISONS | _LAYOUT | _LOGICAL
_MOST = 16
"""The most numbers that are tried."""
_SIZE = (3, 24)
"""The rows and steps of the case."""


def threshold_case(subject: Subject) -> Expected | None:
    """What PyTorch gives for it; None if the file compares no input with a number, or the module does not run on it."""
    graph = subject.graph.graph
    producers = producers_of(graph.node)
    outputs = [info.name for info in graph.output if _is_exact(info.name, producers)]
    stored = {name: tensor for name, tensor in stored_tensors(subject.graph) if len(tensor.raw_data) <= 8 * _MOST}
    found: dict[float, None] = {}
    for node in _compared(outputs, producers):
        for name in node.input:
            if name in stored and (array := numpy_helper.to_array(stored[name])).dtype.kind == "f":
                found |= dict.fromkeys(array[np.isfinite(array)].reshape(-1).tolist())
    numbers = list(found)[:_MOST]
    if not numbers:
        return None
    rng = np.random.default_rng([subject.seed, 19])
    case = subject.case(rng, *_SIZE)
    changed = {}
    for name in (spec.name for spec in subject.specs if np.dtype(spec.dtype).kind == "f"):
        changed[name] = case.feeds[name].copy()
        chosen = rng.permutation(changed[name].size)
        for start, number in enumerate(numbers):
            changed[name].reshape(-1)[chosen[start :: len(numbers) + 1]] = number
    expected = subject.expect(case.changed("inputs at thresholds", changed))
    if expected is None:
        return None
    (call,) = expected.calls
    given = call.reference if subject.dtype == "float64" else call.native
    exact = {name: given[name] for name in outputs if name in given and given[name].dtype.kind in "iub"}
    if not exact:
        return None
    ties = {name: array[None] for name, array in exact.items()}
    # Of the values' kind, since these are unusual ones.
    return replace(expected, calls=(replace(call, native=exact, reference=exact, ties=ties),), kind="values")


def _compared(outputs: list[str], producers: Mapping[str, NodeProto]) -> Iterator[NodeProto]:
    """The comparisons on which these outputs depend."""
    walk: Walk[str] = Walk(outputs)
    for name in walk:
        node = producers.get(name)
        if node is not None:
            if node.op_type in _COMPARISONS:
                yield node
            walk.add(node.input)


def _is_exact(output: str, producers: Mapping[str, NodeProto]) -> bool:
    """Whether a file computes an output without rounding, by comparisons of its inputs."""
    walk: Walk[str] = Walk([output])
    for name in walk:
        node = producers.get(name)
        if node is None:
            continue
        if node.domain or not (node.op_type in _EXACT or _is_exact_cast(node, producers)):
            return False
        walk.add(node.input)
    return True


def _is_exact_cast(node: NodeProto, producers: Mapping[str, NodeProto]) -> bool:
    """Whether a node casts bools, or to a wider dtype."""
    if node.op_type != "Cast":
        return False
    given = producers.get(node.input[0])
    wider = helper.get_node_attr_value(node, "to") == TensorProto.DOUBLE
    return wider or (given is not None and given.op_type in _COMPARISONS | _LOGICAL)

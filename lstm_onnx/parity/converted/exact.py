"""Compares a file with one converted again from its source, number by number and node by node."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto

from ...onnxgraph import load_inlined, node_name
from ...onnxgraph.load import entries_of, read_weights
from ..criterion import TensorResult
from ..results import CaseResult

STORED = "the stored numbers"
"""The label of the case on weights, scales, zero points and biases."""
GRAPH = "the graph"
"""The label of the case on nodes, inputs, outputs and pairs of states."""
_MOST = 8
"""The most differences that are listed one by one."""
_ENTRIES = ("states", "initial", "quantization", "spec", "origins", "streaming")
"""The metadata entries on which a run depends."""


@dataclass(frozen=True)
class Stored:
    """A file's graph without its initializers, and these by name."""

    model: ModelProto
    arrays: dict[str, np.ndarray]


def read_stored(path: str | os.PathLike[str]) -> Stored:
    """The graph and the weights of a file.

    Raises:
        FileError, ModelError: it cannot be read, or the file with its weights cannot.
    """
    model = load_inlined(path)
    arrays = read_weights(model, path)
    del model.graph.initializer[:]
    return Stored(model, arrays)


def compare_numbers(
    file: Mapping[str, np.ndarray], source: Mapping[str, np.ndarray], *, other_form: bool = False
) -> CaseResult:
    """The case on all stored numbers: those of the file must be those of the source, bit for bit.

    Args:
        file: the numbers by name.
        source: what they must be.
        other_form: the nodes differ but give the same bits, and may have their own scalars and sizes.
    """
    if other_form:
        own = {name for name in file.keys() ^ source.keys() if _is_of_nodes({**file, **source}[name])}
        file, source = ({name: one[name] for name in one.keys() - own} for one in (file, source))
    wrong = list(_different_numbers(file, source))
    if wrong:
        return CaseResult(STORED, tuple(wrong[:_MOST]), kind="stored")
    count = sum(array.size for array in source.values())
    right = TensorResult(f"{count:,} stored numbers", 0.0, 0.0, 0.0, (), allowed=0.0)
    return CaseResult(STORED, (right,), kind="stored")


def _is_of_nodes(array: np.ndarray) -> bool:
    """Whether numbers belong to nodes, such as a limit or axes, and are not weights, scales or biases."""
    return array.size == 1 or array.dtype == np.int64


def _different_numbers(file: Mapping[str, np.ndarray], source: Mapping[str, np.ndarray]) -> Iterator[TensorResult]:
    for name in dict.fromkeys([*source, *file]):
        one, other = file.get(name), source.get(name)
        if one is None or other is None:
            yield _wrong(name, math.inf, (), "is missing from the file" if one is None else "is not in the source")
        elif one.dtype != other.dtype or one.shape != other.shape:
            yield _wrong(name, math.inf, (), f"is {one.dtype} {one.shape}, the source's is {other.dtype} {other.shape}")
        elif one.tobytes() != other.tobytes():
            bits = f"V{one.itemsize}"
            places = np.flatnonzero(
                np.ascontiguousarray(one).reshape(-1).view(bits) != np.ascontiguousarray(other).reshape(-1).view(bits)
            )
            with np.errstate(invalid="ignore"):
                errors = np.abs(one.astype(np.float64) - other.astype(np.float64)).reshape(-1)[places]
            where = tuple(int(at) for at in np.unravel_index(places[0], one.shape)) if one.shape else ()
            problem = f"{len(places):,} of {one.size:,} numbers differ from the source's"
            yield _wrong(name, float(np.nanmax(errors, initial=0.0)), where, problem)


def _wrong(name: str, error: float, where: tuple[int, ...], problem: str) -> TensorResult:
    return TensorResult(name, error, math.nan, math.inf, where, problem=problem, allowed=0.0)


def different_nodes(file: ModelProto, source: ModelProto) -> str:
    """How the nodes of a file and their operator sets differ from the source's; "" if they do not."""
    ours, theirs = ({item.domain: item.version for item in model.opset_import} for model in (file, source))
    other = [] if ours == theirs else [f"the operator sets are {ours}, the source's {theirs}"]
    return _listed([*other, *_different_nodes(file.graph.node, source.graph.node)])


def different_interface(file: ModelProto, source: ModelProto) -> str:
    """How the inputs, outputs or pairs of states of a file differ from the source's; "" if they do not."""
    found = [
        *_different("input", file.graph.input, source.graph.input),
        *_different("output", file.graph.output, source.graph.output),
    ]
    entries = list(map(entries_of, (file, source)))
    for name in _ENTRIES:
        ours, theirs = (entry.get(f"lstm_onnx.{name}") for entry in entries)
        if ours != theirs:
            found.append(f"the metadata's {name} are {ours}, the source's {theirs}")
    return _listed(found)


def _listed(found: Sequence[str]) -> str:
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return "; ".join(found[:_MOST]) + more


def _different(kind: str, file: Sequence[ValueInfoProto], source: Sequence[ValueInfoProto]) -> Iterator[str]:
    ours, theirs = (
        {value.name: value.type.SerializeToString(deterministic=True) for value in values} for values in (file, source)
    )
    if list(ours) != list(theirs):
        yield f"the {kind}s are {', '.join(ours)}, the source's {', '.join(theirs)}"
    else:
        yield from (f"the {kind} {name} has another type or shape" for name in ours if ours[name] != theirs[name])


def _different_nodes(file: Sequence[NodeProto], source: Sequence[NodeProto]) -> Iterator[str]:
    ours, theirs = (_by_output(nodes) for nodes in (file, source))
    for key in dict.fromkeys([*theirs, *ours]):
        one, other = ours.get(key), theirs.get(key)
        if one is None or other is None:
            node = one or other
            assert node is not None  # noqa: S101 - it is in one of both
            yield f"the node {node_name(node)} is {'not in the source' if other is None else 'missing from the file'}"
        elif one.SerializeToString(deterministic=True) != other.SerializeToString(deterministic=True):
            yield f"the node {node_name(one)} ({one.op_type}) has other inputs, attributes or a body than the source's"


def _by_output(nodes: Sequence[NodeProto]) -> dict[tuple[str, ...], NodeProto]:
    """Nodes without their doc strings, by their outputs, since their order may be any possible one."""
    found = {}
    for node in nodes:
        plain = deepcopy(node)
        plain.doc_string = ""
        found[tuple(node.output)] = plain
    return found

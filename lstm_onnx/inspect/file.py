"""`inspect` itself: a file's recurrent layers, operators, weights and metadata."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, ModelError
from ..isolation.stages import stage
from ..metadata import Metadata
from ..onnxgraph import Scope, Tensor, external_problem, is_default, load_inlined, value_of
from ..onnxgraph.load import entries_of, opset_of
from ..onnxgraph.recurrent import GATES, module_path
from ..runtime.unchanged import of_one_file
from .int8 import INT8, int8_info
from .loops import loop_info
from .lstms import lstm_info
from .report import Inspection, LoopInfo, LSTMInfo


@of_one_file("inspected")
def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Find the LSTMs in an ONNX file.

    Raises:
        FileError: the file is missing, empty, a folder or not readable.
        ModelError: it is not an ONNX model, is truncated, or its lstm_onnx metadata is damaged.
    """
    model = load_inlined(path)
    file = Path(path)
    try:
        metadata = Metadata.from_metadata(entries_of(model))
        top = Scope.of(model.graph)
        lstms, loops, others, stored = _walk(top)
    except (ConfigError, ModelError) as error:
        raise ModelError(f"{path}: {error}") from error
    weights = [tensor for tensor in stored if tensor.is_weight]
    external, notes = _external_bytes(file, stored)
    notes += _repair_notes(metadata, lstms, loops)
    if metadata.spec is None and "lstm_onnx" in metadata.versions:
        lstms = [replace(lstm, module=module_path(lstm.name)) for lstm in lstms]
    return Inspection(
        file=os.fspath(path),
        file_bytes=file.stat().st_size + external,
        ir_version=model.ir_version,
        opset=opset_of(model) or None,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=tuple(value_of(item) for item in model.graph.input if item.name not in top.tensors),
        outputs=tuple(value_of(item) for item in model.graph.output),
        states=dict(metadata.states),
        lstms=tuple(lstms),
        other_ops=dict(sorted(others.items())),
        parameters=sum(tensor.size for tensor in weights),
        bytes=sum(tensor.num_bytes for tensor in weights),
        flops_per_step=sum(lstm.flops_per_step for lstm in lstms),
        metadata=metadata,
        notes=tuple(notes),
        loops=tuple(loops),
    )


def inspect_for_parent(path: str) -> dict[str, Any]:
    """The result of `inspect`, JSON-ready and as text, for a parent process."""
    stage("reading the file")
    result = inspect(path)
    return {"fields": result.to_dict(), "text": str(result)}


def _walk(top: Scope) -> tuple[list[LSTMInfo], list[LoopInfo], Counter[str], list[Tensor]]:
    """All recurrent layers, all other loops, the count of each other operator, and all stored tensors, of bodies too.

    Raises:
        ModelError: a tensor has a negative dimension.
    """
    lstms: list[LSTMInfo] = []
    loops: list[LoopInfo] = []
    others: Counter[str] = Counter()
    stored: list[Tensor] = []
    todo = [top]
    while todo:
        scope = todo.pop()
        for tensor in scope.stored:
            if any(dim < 0 for dim in tensor.dims):
                name = next((name for name, known in scope.tensors.items() if known is tensor), "a sparse one")
                raise ModelError(f"the tensor {name!r} has a negative dimension: {tensor.dims}")
        stored += scope.stored
        bodies: list[Scope] = []
        for node in scope.nodes:
            info = lstm_info(scope, node) or int8_info(scope, node)
            if info is not None:
                lstms.append(info)
            elif (loop := loop_info(scope, node)) is not None:
                loops.append(loop)
                others[node.op_type] += 1
            elif node.op_type != "Constant":
                others[node.op_type if is_default(node.domain) else f"{node.domain}.{node.op_type}"] += 1
            if info is None or not info.kind.startswith(("Scan", INT8)):  # a layer's body is part of it
                bodies += scope.bodies(node)
        todo += reversed(bodies)
    return lstms, loops, others, stored


def _repair_notes(metadata: Metadata, lstms: Sequence[LSTMInfo], loops: Sequence[LoopInfo]) -> list[str]:
    """What `repair` is for, in a file of another tool."""
    if "lstm_onnx" in metadata.versions:
        return []
    found = []
    cells = [loop.name for loop in loops if {"Tanh", "Sigmoid", "Relu"} & set(loop.operators) and loop.flops_per_step]
    if cells:
        found.append(f"{cells[0]} may be a recurrent layer that is written as a loop")
    # Notes are about what `repair` does not read: computed weights and states, other activations.
    plain = [lstm for lstm in lstms if lstm.kind in GATES and lstm.direction == "forward" and not lstm.notes]
    held = [lstm.name for lstm in plain if not lstm.states]
    if held:
        found.append(f"the states of {held[0]} are not inputs, so that it cannot be streamed")
    return [f"{'; '.join(found)}: see lstm-onnx repair"] if found else []


def _external_bytes(path: Path, tensors: Sequence[Tensor]) -> tuple[int, list[str]]:
    """Bytes of the files beside the model that hold its weights, and a note on each that cannot be read."""
    total, notes = 0, []
    for location in sorted({tensor.location for tensor in tensors if tensor.location is not None}):
        problem = external_problem(path, location)
        if problem:
            notes.append(f"external data {location!r} {problem}; it belongs beside the model, in a plain file")
        else:
            total += (path.resolve().parent / location).stat().st_size
    return total, notes

"""The file: its bytes, the protobuf in it, its external data; and `inspect` itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import ModelProto, checker, inliner

from ..atomic_io import readable_file
from ..errors import ConfigError, FileError, ModelError
from ..isolation.stages import stage
from ..metadata import Metadata
from ..onnxgraph import MOST_NODES, Scope, Tensor, inlined_size, is_default, value_of
from .lstms import lstm_info, module_of
from .report import Inspection, LSTMInfo

_LARGEST_PROTOBUF = 2**31 - 1


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Find the LSTMs in an ONNX file.

    Raises:
        FileError: it is missing, empty, a folder or not readable.
        ModelError: it is not an ONNX model, is cut short, or its lstm_onnx metadata are damaged.
    """
    found = readable_file(path, "an .onnx file")
    model = _parsed(found)
    try:
        metadata = Metadata.from_metadata({entry.key: entry.value for entry in model.metadata_props})
        top = Scope.of(model.graph)
        lstms, others, stored = _walk(top)
    except (ConfigError, ModelError) as error:
        raise ModelError(f"{path}: {error}") from error
    weights = [tensor for tensor in stored if tensor.is_weight]
    external, notes = _external_bytes(found, stored)
    if metadata.spec is None and "lstm_onnx" in metadata.versions:
        lstms = [replace(lstm, module=module_of(lstm.name)) for lstm in lstms]
    return Inspection(
        file=os.fspath(path),
        file_bytes=found.stat().st_size + external,
        ir_version=model.ir_version,
        opset=next((opset.version for opset in model.opset_import if is_default(opset.domain)), None),
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
    )


def described(path: str) -> dict[str, Any]:
    """What `inspect` finds, JSON-ready and as text, for who asks a child process."""
    stage("reading the file")
    found = inspect(path)
    return {"fields": found.to_dict(), "text": str(found)}


def _walk(top: Scope) -> tuple[list[LSTMInfo], Counter[str], list[Tensor]]:
    """Every LSTM, the count of every other operator, and every stored tensor, bodies included.

    Raises:
        ModelError: a tensor has a negative dimension.
    """
    lstms: list[LSTMInfo] = []
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
            info = lstm_info(scope, node)
            if info is not None:
                lstms.append(info)
            elif node.op_type != "Constant":
                others[node.op_type if is_default(node.domain) else f"{node.domain}.{node.op_type}"] += 1
            if info is None or info.kind != "Scan":  # the body of an LSTM's own Scan is the LSTM
                bodies += scope.bodies(node)
        todo += reversed(bodies)
    return lstms, others, stored


def _parsed(path: Path) -> ModelProto:
    """The model, its functions inlined."""
    try:
        if path.stat().st_size > _LARGEST_PROTOBUF:
            raise ModelError(f"{path}: is over 2 GiB, which no ONNX model is; its weights belong in a file beside it")
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}; expected an .onnx file") from error
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, RuntimeError) as error:
        raise ModelError(f"{path}: is not an ONNX model, or is cut short ({error}); export or copy it again") from error
    if not model.opset_import or not model.HasField("graph"):
        raise ModelError(f"{path}: is not an ONNX model, or is cut short (it has no graph or no opset)")
    if not _is_text(model):
        raise ModelError(f"{path}: is damaged: a name in it is not UTF-8 text; export or copy it again")
    if not model.functions:
        return model
    if inlined_size(model) > MOST_NODES:
        raise ModelError(
            f"{path}: its functions call each other, and are more than {MOST_NODES} nodes when they are inlined; "
            "lstm-onnx check says how many; do not run such a file from a source that you do not trust"
        )
    try:
        return inliner.inline_local_functions(model)
    except (checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: its functions cannot be inlined ({error})") from error


def _is_text(message: Message) -> bool:
    """Whether every string is one: protobuf hands out what is not UTF-8 as bytes, without a word."""
    for kind, value in message.ListFields():
        items = [value] if isinstance(value, (str, bytes, int, float, Message)) else value
        if kind.type == kind.TYPE_STRING and not all(isinstance(item, str) for item in items):
            return False
        if kind.type == kind.TYPE_MESSAGE and not all(_is_text(item) for item in items):
            return False
    return True


def _external_bytes(path: Path, tensors: Sequence[Tensor]) -> tuple[int, list[str]]:
    """Bytes of the files beside the model that hold its weights, and which of them are amiss."""
    total, notes = 0, []
    for location in sorted({tensor.location for tensor in tensors if tensor.location is not None}):
        beside = Path(location)
        if beside.is_absolute() or ".." in beside.parts:
            notes.append(f"external data {location!r} lies outside the model's folder, which every runtime refuses")
            continue
        try:
            total += (path.parent / beside).stat().st_size
        except (OSError, ValueError):
            notes.append(f"external data {location!r} is missing; it belongs beside the model")
    return total, notes

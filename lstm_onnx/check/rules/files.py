"""LO101-103, LO107: a valid model, its metadata, its external data, its initializers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from ...metadata import PRODUCER, Metadata
from ...onnxgraph import ONNX_ERRORS, Tensor, dtype_name, error_line, external_problem, shown, stored_tensors
from ...onnxgraph.load import OVERRIDABLE
from ...onnxgraph.shape_inference import has_negative_dims
from ..context import CheckContext, listed
from ..finding import Finding
from ..rule import applies, rule

_SMALL_BYTES = 64
"""Initializers up to this size are not reported."""

VALID_ONNX = rule(
    "LO101",
    "valid-onnx",
    "error",
    summary="onnx's own checker refuses the file",
    why="A file that the standard does not allow may run in one runtime, and be refused or read differently by the "
    "next. The checker also tests shapes and types, and that external data exists.",
    fix="export the model again",
)
METADATA = rule(
    "LO102",
    "metadata",
    "error",
    summary="lstm-onnx wrote the file, but its metadata is missing, damaged or cut off",
    why="The metadata says which output feeds which state, and the initial values of states. A file that is cut "
    "off just after its graph is still a valid model: it runs, but no longer carries its states.",
    fix="export or copy the model again",
)
EXTERNAL_DATA = rule(
    "LO103",
    "external-data",
    "error",
    summary="weights are outside the model's folder, missing, or shorter than the model says",
    why="A location with .., an absolute path or a symbolic link can lead to any place that the file's author chooses; "
    "onnx and ONNX Runtime refuse them, so the model does not open. Nor does it open if it was moved without the file "
    "of its weights.",
    fix="put the weights into a plain file in the model's folder, or export again with the weights inside",
)
INITIALIZER_INPUT = rule(
    "LO107",
    "initializer-input",
    "warning",
    summary="weights are also inputs of the graph",
    why="A caller could then pass other weights in any run, so ONNX Runtime folds no constants and fuses little. In a "
    "file of IR version 3 all weights are listed as inputs, but ONNX Runtime treats them as constants.",
    fix="remove the initializers from graph.input",
)


@applies(VALID_ONNX)
def valid_onnx(context: CheckContext) -> Iterator[Finding]:
    """onnx's own checker, including external data."""
    full = not has_negative_dims(context.model)
    try:
        onnx.checker.check_model(context.file, full_check=full)
    except ONNX_ERRORS as error:
        unranked = [item.name for item in context.model.graph.output if not item.type.tensor_type.HasField("shape")]
        ranked = f"give {unranked[0]} one number of axes at all sizes, as with squeeze(-1), and " if unranked else ""
        yield VALID_ONNX.violated("", f"onnx's checker refuses it: {error_line(error)}", f"{ranked}{VALID_ONNX.fix}")
    else:
        how = "shapes and types included" if full else "without shapes and types, whose negative sizes may crash it"
        yield VALID_ONNX.passed(f"onnx's checker, {how}, accepts it")


@applies(METADATA)
def metadata(context: CheckContext) -> Iterator[Finding]:
    """Metadata of ours is complete; a file of another tool needs none."""
    metadata, model = context.metadata, context.model
    if metadata is None:
        yield METADATA.violated("", context.metadata_problem)
        return
    version = metadata.versions.get("lstm_onnx")
    complete = version is not None and metadata.digest is not None
    complete = complete and (metadata.spec is not None or bool(metadata.inputs))
    if model.producer_name == PRODUCER and not complete:
        yield METADATA.violated("", f"{PRODUCER} wrote the file, but its metadata is missing or cut off")
    elif version is None:
        yield METADATA.passed("none from lstm-onnx: only the graph is checked")
    else:
        inputs = "; ".join(f"{spec.name} {spec.dtype} {shown(spec.shape)}" for spec in metadata.inputs)
        kind = "a bare LSTM" if metadata.spec is not None else f"a module that takes {inputs or 'what its graph says'}"
        yield METADATA.passed(f"written by lstm_onnx {version}, {kind}{_converted(metadata, model)}")


def _converted(metadata: Metadata, model: ModelProto) -> str:
    """The dtypes that another tool has changed since the metadata was written, in words."""
    written = {spec.name: spec.dtype for spec in metadata.inputs}
    if metadata.spec is not None:
        written["input"] = metadata.spec.dtype
    now = {value.name: dtype_name(value.type.tensor_type.elem_type) for value in model.graph.input}
    changed = [f"{name} is {now[name]}, was {was}" for name, was in written.items() if now.get(name, was) != was]
    return f"; converted since: {', '.join(changed)}" if changed else ""


@applies(EXTERNAL_DATA)
def external_data(context: CheckContext) -> Iterator[Finding]:
    """Weights outside the file: in its folder, in plain files, and long enough."""
    reported: set[str] = set()
    for name, tensor in stored_tensors(context.model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        problem = "" if location in reported else external_data_problem(context.file, tensor)
        if problem:
            reported.add(location)
            yield EXTERNAL_DATA.violated(name, f"its data at {location!r} {problem}")


def external_data_problem(file: str, tensor: TensorProto) -> str:
    """What is wrong with a tensor's external data, or ""."""
    keys = {entry.key: entry.value for entry in tensor.external_data}
    location = str(keys.get("location", ""))
    problem = external_problem(file, location)
    if problem:
        return problem
    size = (Path(file).resolve().parent / location).stat().st_size
    try:
        offset, length = (int(keys.get(key) or 0) for key in ("offset", "length"))
    except ValueError:
        return "has an offset or a length that is not a number"
    if min(offset, length) < 0:
        return f"begins at byte {offset} and ends at byte {offset + length}"
    end = offset + max(length, Tensor.of(tensor).num_bytes)
    return f"ends at byte {end}, but the file has {size}" if end > size else ""


@applies(INITIALIZER_INPUT)
def initializer_input(context: CheckContext) -> Iterator[Finding]:
    """Weights that a caller could replace."""
    graph = context.model.graph
    if context.model.ir_version < OVERRIDABLE:
        return
    large = {tensor.name for tensor in graph.initializer if Tensor.of(tensor).num_bytes > _SMALL_BYTES}
    names = [str(item.name) for item in graph.input if item.name in large]
    if names:
        yield INITIALIZER_INPUT.violated(names[0], f"{len(names)} initializers are also inputs: {listed(names)}")

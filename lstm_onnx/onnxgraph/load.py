"""Reads ONNX files, and their external data on request."""

from __future__ import annotations

import itertools
import os
import textwrap
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError, Message
from onnx import ModelProto, NodeProto, TensorProto, inliner, numpy_helper
from onnx.external_data_helper import uses_external_data

from ..atomic_io import readable_file
from ..errors import ConfigError, FileError, ModelError
from ..metadata import Metadata
from .nodes import MOST_NODES, graphs_of, inlined_size, sorted_nodes, stored_tensors
from .sparse import make_dense
from .tensors import is_default

ONNX_ERRORS = (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    onnx.defs.SchemaError,
    DecodeError,
    EncodeError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    OSError,
    MemoryError,
)
"""What the onnx package raises about a model; its C++ errors have no common base but Exception."""
OVERRIDABLE = 4
"""From this IR version on, an initializer may also be an input, which callers may override; before, each had to be."""
_LARGEST_PROTOBUF = 2**31 - 1
_LONGEST_ERROR = 400
_LONGEST_NAME = 2**17
"""Characters in a node's name; exporters write hundreds, and what replaces a node has its name in dozens of others."""


def load_model(path: str | os.PathLike[str]) -> ModelProto:
    """Read the model in a file, without its external data.

    Raises:
        FileError: the file is missing, empty, a folder or not readable.
        ModelError: the file is not an ONNX model, or is truncated.
    """
    file = readable_file(path, "an .onnx file")
    model = ModelProto()
    try:
        if file.stat().st_size > _LARGEST_PROTOBUF:
            raise ModelError(f"{path}: is over 2 GiB, which no ONNX model is; its weights belong in a file beside it")
        model.ParseFromString(file.read_bytes())
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}; expected an .onnx file") from error
    except (DecodeError, RuntimeError, ValueError) as error:
        problem = f"is not an ONNX model, or is truncated ({error_line(error)}); export or copy it again"
        raise ModelError(f"{path}: {problem}") from error
    # protobuf parses many sequences of random bytes as unknown fields, without an error.
    if not model.opset_import or not model.HasField("graph"):
        lacking = "graph" if model.opset_import else "operator set (opset_import)"
        raise ModelError(f"{path}: is not an ONNX model, or is truncated: it has no {lacking}; export or copy it again")
    return model


def load_inlined(path: str | os.PathLike[str]) -> ModelProto:
    """Read the model in a file, inline its functions, sort its nodes, and make sure that its names are valid text.

    ONNX Runtime sorts nodes itself, so it accepts files whose nodes are not sorted, as its float16 converter's.  In a
    file of an old IR version, initializers are removed from the inputs.

    Raises:
        FileError: see `load_model`.
        ModelError: see `load_model`; or a name is not UTF-8 or far too long, or the functions cannot be inlined.
    """
    model = load_model(path)
    if not _is_text(model):
        raise ModelError(f"{path}: is damaged: a name in it is not UTF-8 text; export or copy it again")
    functions = (node for function in model.functions for node in function.node)
    nodes = itertools.chain(functions, *(graph.node for graph in graphs_of(model.graph)))
    longest = max((len(node.name) for node in nodes), default=0)
    if longest > _LONGEST_NAME:
        raise ModelError(
            f"{path}: a node's name has {longest} characters, more than the {_LONGEST_NAME} allowed; "
            "give it a shorter one, or export the model again"
        )
    if model.ir_version < OVERRIDABLE:
        stored = {tensor.name for tensor in model.graph.initializer}
        for value in [value for value in model.graph.input if value.name in stored]:
            model.graph.input.remove(value)
    if not model.functions:
        return _in_order(model)
    if inlined_size(model) > MOST_NODES:
        raise ModelError(
            f"{path}: its functions call each other, and expand to more than {MOST_NODES} nodes when inlined; "
            "lstm-onnx check says how many; do not run such a file from a source that you do not trust"
        )
    try:
        return _in_order(inliner.inline_local_functions(model))
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: its functions cannot be inlined ({error_line(error)})") from error


def _in_order(model: ModelProto) -> ModelProto:
    """The model, with the nodes of each graph sorted so that they follow those whose values they read."""
    for graph in graphs_of(model.graph):
        nodes = list(graph.node)
        ordered = sorted_nodes(nodes)
        if any(one is not other for one, other in zip(ordered, nodes, strict=True)):
            copies = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
            del graph.node[:]
            graph.node.extend(copies)
    return model


def read_external(model: ModelProto, path: str | os.PathLike[str]) -> bool:
    """Read external weights, in files beside the model's, into `model`; return whether there were any.

    Args:
        model: the model.
        path: the model's file.

    Raises:
        ModelError: the file with a weight is missing, is too short, or is not a regular file in the model's folder.
    """
    locations = [location_of(tensor) for _, tensor in stored_tensors(model) if uses_external_data(tensor)]
    for location in dict.fromkeys(locations):
        problem = external_problem(path, location)
        if problem:
            raise ModelError(f"its weights in {location} cannot be read: the file {problem}", path=path)
    try:
        if locations:
            onnx.load_external_data_for_model(model, str(Path(path).resolve().parent))
    except ONNX_ERRORS as error:
        raise ModelError(f"its weights cannot be read: {error_line(error)}", path=path) from error
    return bool(locations)


def read_weights(model: ModelProto, path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The initializers of a model's graph as arrays, including external ones (see `read_external`).

    Sparse tensors in `model` are replaced by dense ones.

    Raises:
        ModelError: as `read_external` and `read_sparse`; or a tensor is damaged.
    """
    read_external(model, path)
    read_sparse(model, path)
    try:
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    except ONNX_ERRORS as error:
        raise ModelError(f"its weights cannot be read: {error_line(error)}", path=path) from error


def read_sparse(model: ModelProto, path: str | os.PathLike[str]) -> None:
    """Replace the sparse tensors of a model by dense ones, in place.

    Raises:
        ModelError: a tensor is damaged or too large.
    """
    try:
        make_dense(model)
    except ONNX_ERRORS as error:
        raise ModelError(f"its weights cannot be read: {error_line(error)}", path=path) from error


def opset_of(model: ModelProto) -> int:
    """The version of ONNX's own operator set; 0 if the model does not import it."""
    return next((item.version for item in model.opset_import if is_default(item.domain)), 0)


def entries_of(model: ModelProto) -> dict[str, str]:
    """The metadata entries of a model, whichever tool wrote them."""
    return {item.key: item.value for item in model.metadata_props}


def metadata_of(model: ModelProto, path: str | os.PathLike[str]) -> Metadata:
    """The metadata that lstm-onnx wrote into a model.

    Raises:
        ModelError: the metadata are damaged.
    """
    try:
        return Metadata.from_metadata(entries_of(model))
    except ConfigError as error:
        raise ModelError(error.message, path=path, hint=error.hint) from error


def error_line(error: BaseException | str) -> str:
    """The message of an error from onnx on one line of limited length."""
    return textwrap.shorten(str(error) or type(error).__name__, _LONGEST_ERROR, placeholder=" ...")


def location_of(tensor: TensorProto) -> str:
    """The external file that holds a stored tensor; "" if the model's file does."""
    return next((str(item.value) for item in tensor.external_data if item.key == "location"), "")


def external_problem(file: str | os.PathLike[str], location: str) -> str:
    """Why `location` cannot hold the weights of `file`; "" if it is a regular file in the model's folder."""
    folder = Path(file).resolve().parent
    beside = Path(location)
    if not location or "\0" in location:
        return "is not a path"
    if not beside.parts:
        return "is not a regular file"
    if beside.is_absolute() or ".." in beside.parts or "\\" in location or ":" in beside.parts[0]:
        return "is outside the model's folder"
    path = folder / beside
    try:
        path.stat()
    except (OSError, ValueError):
        return "is missing"
    if path.is_symlink():
        return "is a symbolic link"
    if not path.resolve().is_relative_to(folder):
        return "is outside the model's folder, by a link"
    return "" if path.is_file() else "is not a regular file"


def _is_text(message: Message) -> bool:
    """Whether every string is text: protobuf returns a string that is not UTF-8 as bytes, without an error."""
    for kind, value in message.ListFields():
        items = [value] if isinstance(value, (str, bytes, int, float, Message)) else value
        if kind.type == kind.TYPE_STRING and not all(isinstance(item, str) for item in items):
            return False
        if kind.type == kind.TYPE_MESSAGE and not all(_is_text(item) for item in items):
            return False
    return True

"""A model as the bytes of one file, with weights that were in files beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, helper

from ..checksum import KEY, UNKNOWN, with_checksum
from ..errors import ModelError
from .load import error_line, external_problem
from .nodes import graphs_of
from .write import EXTERNAL_DATA_THRESHOLD


def embedded(model: ModelProto, source: str | os.PathLike[str], entries: Mapping[str, str]) -> bytes:
    """The bytes of `model`; those of its file where nothing has to change.

    Args:
        model: is changed.
        source: its file.
        entries: metadata to add.

    Raises:
        ModelError: weights beside it cannot be read, or are too large for one file.
    """
    external = read_external(model, source)
    if not external and not entries:
        return Path(source).read_bytes()
    if model.ByteSize() > EXTERNAL_DATA_THRESHOLD:
        raise ModelError("has more than 2 GiB of weights, which one file cannot hold", path=source)
    kept = {item.key: item.value for item in model.metadata_props if item.key != KEY}
    del model.metadata_props[:]
    helper.set_model_props(model, {KEY: UNKNOWN, **kept, **entries})
    return with_checksum(model.SerializeToString(deterministic=True))


def read_external(model: ModelProto, source: str | os.PathLike[str]) -> bool:
    """Read the weights in files beside `source` into the model; whether there were any (ModelError)."""
    found = False
    for graph in graphs_of(model.graph):
        constants = [item.t for node in graph.node for item in node.attribute if item.HasField("t")]
        for tensor in (*graph.initializer, *constants):
            if tensor.data_location != TensorProto.EXTERNAL:
                continue
            found = True
            location = next((item.value for item in tensor.external_data if item.key == "location"), "")
            problem = external_problem(source, location)
            if problem:
                raise ModelError(f"its weights in {location} cannot be read: the file {problem}", path=source)
    if found:
        try:
            onnx.load_external_data_for_model(model, str(Path(source).resolve().parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise ModelError(f"its weights cannot be read: {error_line(error)}", path=source) from error
    return found

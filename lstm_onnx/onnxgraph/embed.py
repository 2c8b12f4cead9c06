"""A model as the bytes of one file, with weights that were in files beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from onnx import ModelProto, helper

from ..checksum import KEY, UNKNOWN, with_checksum
from ..errors import ModelError
from .load import read_external
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
    helper.set_model_props(model, {KEY: UNKNOWN, **kept, **entries})
    return with_checksum(model.SerializeToString(deterministic=True))

"""An export in int8: the float32 file, as `quantization.quantize` makes an int8 file of any."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from onnx import ModelProto

from ..atomic_io import temporary_folder
from ..errors import LSTMOnnxError
from ..onnxgraph.write import write_model
from ..quantization import QuantizeResult, quantize


def write_int8(
    model: ModelProto, initializers: Mapping[str, np.ndarray], path: str | os.PathLike[str], *, layers: str, kernel: str
) -> QuantizeResult:
    """Write the int8 file of a float32 model, proven as `quantize` proves it.

    Raises:
        FileError: a file cannot be written.
        ModelError: no layer can be quantised, or one does not compute what it must; no file is kept.
    """
    with temporary_folder() as folder:
        source = folder / "float32.onnx"
        write_model(model, initializers, source)
        try:
            return quantize(source, path, layers=layers, kernel=kernel)
        except LSTMOnnxError as error:
            # The file in the message is none of the caller's.
            raise type(error)(str(error).replace(os.fspath(source), os.fspath(path))) from error

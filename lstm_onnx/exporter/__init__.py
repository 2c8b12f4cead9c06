"""Exporting: nn.LSTM modules, and configured ones, to ONNX files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..spec import DEFAULT_OPSET, ExportOptions
from .lstm import Exported, export_lstm

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Exported", "export"]


def export(
    module: nn.LSTM,
    path: str | os.PathLike[str],
    *,
    lengths: bool = False,
    projection: str = "scan",
    opset: int = DEFAULT_OPSET,
) -> Exported:
    """Write an ``nn.LSTM`` to an ONNX file, every size of batch and time open.

    The file's inputs are ``input`` (the module's own layout), ``h0`` and ``c0`` (as nn.LSTM takes
    them), its outputs ``output``, ``hn`` and ``cn``.  Dropout does nothing at inference and is left
    out.  The module is read and not changed.

    Args:
        module: the nn.LSTM; float32, float64 or float16.
        path: where to write; weights over 2 GB go to ``PATH.DIGEST.data`` beside it.
        lengths: add the int32 input ``lengths`` (batch,), which gives what packed sequences give in
            PyTorch: each sequence's states at its own end, zeros in the output after it.
        projection: the lowering of ``proj_size > 0``.  "scan" is exact for every weight and the faster
            one on CPU; "fold" keeps the standard LSTM operator, which cuDNN and CUDA graphs want.
        opset: 14 to 23.

    Returns:
        What was written.

    Raises:
        ExportError: the module is not an nn.LSTM, or of another dtype.
        ConfigError: an option is not possible.
        WeightsError: "fold" with a projection too badly conditioned for it.
        FileError: the file cannot be written.
    """
    from .torch_lstm import spec_of, state_of

    options = ExportOptions(lengths=lengths, projection=projection, opset=opset)
    spec = spec_of(module)
    return export_lstm(spec, options, state_of(module, spec), path)

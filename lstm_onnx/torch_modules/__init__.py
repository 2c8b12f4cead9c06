"""Converts ONNX files to PyTorch modules."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..exporter.dependencies import import_torch
from ..runtime.unchanged import of_one_file

if TYPE_CHECKING:
    from torch import nn

__all__ = ["to_torch"]


@of_one_file("read")
def to_torch(path: str | os.PathLike[str]) -> nn.Module:
    """The PyTorch module of an ONNX file, with its weights, in eval mode; it can be trained and exported again.

    The file of a bare nn.LSTM becomes an ``nn.LSTM``; one with lengths an `LSTMWithLengths` around it.

    Any other file becomes a module with an nn.LSTM, nn.GRU or nn.RNN for each recurrent layer or stack of layers, and
    nn.Linear, nn.Embedding, nn.LayerNorm and nn.Conv* where the graph has these, at the paths that they had in the
    exported module.  It is called like the exported module, with lengths and states if that had them; the module of
    another tool's file is called with the file's inputs, in order.  Results have the exported module's structure: a
    tensor, a tuple, or a dict by name.  States that ``export(states="explicit")`` made inputs of the file are an
    optional argument, ``states``: a dict by the names of the inputs; then the result is a pair of the outputs and the
    states after them.

    A file does not contain dropout, or anything else that is used only in training: set ``module.lstm.dropout`` to
    train with it.

    Args:
        path: a file of any exporter, of operator set 7 or later.

    Raises:
        FileError: it cannot be read.
        ModelError: it is not an ONNX model, or contains something that PyTorch cannot express; the error names it.
        MissingDependencyError: torch is not installed.
    """
    import_torch("to_torch makes a module of it")
    from .build import module_of_file

    return module_of_file(path)

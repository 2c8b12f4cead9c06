"""Exporting: nn.LSTM, any module that contains one, and configured ones, to ONNX files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..atomic_io import require_writable
from ..errors import ConfigError, ExportError, LSTMOnnxError, reason, shown
from ..spec import DEFAULT_OPSET, ExportOptions
from .bare_lstm import export_lstm
from .write import ExportResult

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ExportResult", "export"]


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    states: str | None = None,
    output_names: Sequence[str] | None = None,
    lengths: bool = False,
    projection: str = "scan",
    opset: int = DEFAULT_OPSET,
    check: bool = True,
) -> ExportResult:
    """Write an ``nn.LSTM``, or any module that contains one, to an ONNX file, batch and time open.

    A bare ``nn.LSTM`` needs no example.  Its file's inputs are ``input`` (the module's own layout),
    ``h0`` and ``c0`` (as nn.LSTM takes them), its outputs ``output``, ``hn`` and ``cn``.

    Any other module is traced by torch.export with `example_inputs`; each nn.LSTM, nn.GRU, nn.RNN
    and cell in it becomes real ONNX operators, one a layer (a projected layer one Scan).  Inputs are
    named as the forward's arguments, outputs as the keys of its result (``output`` for a single
    tensor, ``output.0`` for the first of a tuple).  A state that the module keeps in an attribute
    becomes a pair of input and output, always (``hidden.h0`` and ``hidden.hn``).

    Dropout does nothing at inference and is left out.  The module is read and not changed.

    Args:
        module: float32, float64 or float16; it is exported in eval mode.
        path: where to write; weights over 2 GB go to ``PATH.DIGEST.data`` beside it.
        example_inputs: for a module: a tensor, a tuple of arguments or a dict of them by name, with
            tensors in whatever containers the forward takes.
        dynamic_shapes: which axes are open, as torch.export takes it, with names:
            ``{"tokens": {0: "batch", 1: "time"}}``.  ``torch.export.Dim("time", min=7, max=512)`` for a
            name bounds the axis: the file is tried at such sizes alone, and takes no others.  When left
            out, all axes of integer and boolean tensors are open, and all but the last of others.
        states: for a module: "zero" (the default) keeps the forward's own signature; "explicit" makes
            the states of every LSTM inputs and outputs (``encoder.lstm.h0`` and ``encoder.lstm.hn``),
            so that it can be streamed.
        output_names: for a module: names for its outputs, in order.
        lengths: for a bare nn.LSTM: add the int32 input ``lengths`` (batch,), which gives what packed
            sequences give in PyTorch: each sequence's states at its own end, zeros in the output after
            it.  A module that packs its sequences has lengths as an input of its own.
        projection: the lowering of ``proj_size > 0``.  "scan" is exact for every weight and the faster
            one on CPU; "fold" keeps the standard LSTM operator, which cuDNN and CUDA graphs want.
        opset: 14 to 23.
        check: for a module: run the file at other shapes, and compare, before it is kept.

    Returns:
        What was written.  Its `notes` say, of a module, between which sizes of an axis the file is right,
        where that is not at all of them; the file refuses others.

    Raises:
        ExportError: the module has no form in ONNX; the message names the module or the line and what
            to write instead.
        ConfigError: an option is not possible.
        WeightsError: "fold" with a projection too badly conditioned for it.
        FileError: the file cannot be written.
    """
    from .sources.torch_lstm import is_bare_lstm, spec_of, state_of, unwrap_module

    require_writable(path)
    if states is not None and not isinstance(states, str):
        raise ConfigError(f'states = {shown(states)} is not possible; it must be "zero" or "explicit"')
    module = unwrap_module(module)
    options = ExportOptions(lengths=lengths, projection=projection, opset=opset)
    if is_bare_lstm(module) and example_inputs is None:
        if states == "zero" or output_names is not None:
            raise ConfigError("a bare nn.LSTM has its states as inputs, and its outputs' names are fixed")
        spec = spec_of(module)
        return export_lstm(spec, options, state_of(module, spec), path)  # type: ignore[arg-type]
    if example_inputs is None:
        raise ExportError(
            f"{type(module).__name__} is more than an nn.LSTM, so it is traced: pass example_inputs, what its forward "
            "is called with"
        )
    if lengths:
        raise ConfigError("lengths=True is for a bare nn.LSTM; a module that packs sequences has lengths of its own")
    from .module import ModuleOptions, export_module
    from .tracing.arguments import bind_arguments

    names = None if output_names is None else _names(output_names)
    try:
        found = bind_arguments(module, example_inputs, dynamic_shapes)
    except (TypeError, ValueError, RecursionError) as error:  # what holds itself, or is no array of numbers
        if isinstance(error, LSTMOnnxError):
            raise
        raise ConfigError(f"example_inputs or dynamic_shapes cannot be used: {reason(error)}") from error
    return export_module(module, found, ModuleOptions(options, states or "zero", names, check=check), path)


def _names(output_names: Any) -> tuple[str, ...]:
    if not isinstance(output_names, (list, tuple)) or not all(isinstance(name, str) for name in output_names):
        raise ConfigError(f"output_names = {shown(output_names)} is not possible; it must be a list of names")
    return tuple(output_names)

"""Exports again, from the PyTorch model, the float32 file from which a file with smaller weights was made."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from onnx import helper

from ...checksum import KEY
from ...errors import ModelError
from ...exporter import export
from ...exporter.module import export_module
from ...exporter.module_options import ModuleOptions
from ...exporter.precision import arguments_in_dtype, module_in_dtype
from ...exporter.sources.source import LSTMSource, ModuleSource, Source
from ...exporter.sources.torch_lstm import is_bare_lstm
from ...metadata import Metadata
from ...onnxgraph.write import write_model
from ...runtime import Model
from ...spec import INT8_KERNELS, INT8_LAYERS
from ..modules.inputs import find_arguments, forward_outputs
from .exact import read_stored

_TRIED = ("axis_limits", "size_boundaries", "not_streamable", "time_axes", "batch_mixes")
"""Metadata entries with the results of an export's trials, which are not repeated."""


def export_float32(
    source: Any, model: Model, path: str | os.PathLike[str], *, example_inputs: Any = None, seed: int = 0
) -> None:
    """Write the float32 form of the file of `model` to `path`, as `export` wrote it on the way to that file.

    Args:
        source: the nn.Module, or a source that was loaded.
        model: the file, open.
        path: the file to write.
        example_inputs: for an nn.Module, as in `verify`.
        seed: of the random inputs for tracing a module.

    Raises:
        ModelError: the file was not exported by lstm-onnx.
        ExportError, ConfigError: the source cannot be exported in this way.
    """
    options = model.metadata.options
    if options is None:
        raise ModelError(
            "was made from a file that lstm-onnx did not export, so that file cannot be exported again",
            path=model.path,
            hint='compare it with that file: lstm-onnx verify FLOAT32.onnx FILE, or verify("FLOAT32.onnx", FILE); '
            "and that file with PyTorch",
        )
    options = replace(options, precision="float32", layers=INT8_LAYERS[0], kernel=INT8_KERNELS[0])
    # The caches of a stream, such as those of convolutions, are found by the trials.
    streaming = model.metadata.streaming
    tried, delay = streaming is not None, 0 if streaming is None else streaming.delay
    chunk = streaming.chunk if streaming is not None and streaming.chunk > 1 else None
    states = "explicit" if model.metadata.origins or tried else "zero"
    how: dict[str, Any] = {"export": options, "states": states, "max_delay": delay, "chunk": chunk}
    if isinstance(source, LSTMSource):
        replace(source, options=options).export(path)
    elif isinstance(source, ModuleSource):
        replace(source, options=replace(source.options, **how)).export(path, check=tried)
    elif is_bare_lstm(source) and not model.metadata.inputs:
        lengths, projection, opset = options.lengths, options.projection, options.opset
        export(source, path, lengths=lengths, projection=projection, opset=opset, precision="float32")
    else:
        export_again(source, model, path, example_inputs, seed, check=tried, **how)
    _take_trials(model.metadata, path)


def export_again(
    module: Any, model: Model, path: str | os.PathLike[str], example_inputs: Any, seed: int, **how: Any
) -> None:
    """Export a module in float32 with the inputs and outputs that a file has; `how` is for `ModuleOptions`."""
    module = module_in_dtype(module, "float32")
    _, arguments = find_arguments(model, module, (), example_inputs, seed)
    settings = ModuleOptions(output_names=forward_outputs(model), input_specs=model.metadata.inputs or None, **how)
    export_module(module, arguments_in_dtype(arguments, "float32"), settings, path)


def _take_trials(metadata: Metadata, path: str | os.PathLike[str]) -> None:
    """Give an export the trial results of another export of the same module."""
    stored = read_stored(path)
    props = {item.key: item.value for item in stored.model.metadata_props if item.key != KEY}
    for name in _TRIED:
        props.pop(f"lstm_onnx.{name}", None)
        props |= metadata.to_metadata_entry(name)
    helper.set_model_props(stored.model, props)
    write_model(stored.model, stored.arrays, path)


def source_in_dtype(source: Any, dtype: str | None) -> Any:
    """An nn.Module or a source in the dtype that a file is computed in; None keeps its own."""
    if dtype is None:
        return source
    if isinstance(source, Source):
        return source.with_options(precision=dtype).computed()
    return module_in_dtype(source, dtype)

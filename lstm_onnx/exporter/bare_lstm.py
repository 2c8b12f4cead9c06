"""A bare nn.LSTM as an ONNX model, written directly from its sizes and weights: no tracing, no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from ..metadata import Metadata
from ..onnxgraph.builder import Nodes
from ..onnxgraph.write import digest
from ..spec import ExportOptions, LSTMSpec
from .emitter import StackOutputs, recurrent_stack
from .result import BuiltModel, ExportResult
from .targets import form_of
from .weights import Array, StateDict, layer_weights
from .write import VERSIONS, float64_notes, make_model, write_export

STATES = {"h0": "hn", "c0": "cn"}


def export_lstm(
    spec: LSTMSpec,
    options: ExportOptions,
    state: StateDict,
    path: str | os.PathLike[str],
    *,
    notes: tuple[str, ...] = (),
    weights_digest: str | None = None,
    folds: Sequence[Array] = (),
) -> ExportResult:
    """Write an nn.LSTM to an ONNX file.

    Args:
        spec: its sizes.
        options: how it is written.
        state: its parameters by torch's names, of `spec`'s dtype (see `weights.validate_state_dict`).
        path: the file.
        weights_digest: what identifies the weights, if it is not that of `state`.
        folds: each layer's product R W_hr, where it is known (see `kept_digest.kept_folds`).
        notes: remarks for the user, to which the exporter's own are added.

    Raises:
        WeightsError: ``projection="fold"`` and a W_hr too badly conditioned for it.
        ExportError: `options` have a target that no form runs right on.
        FileError: `path` cannot be written.
    """
    nodes = Nodes()
    layers = [layer_weights(spec, state, layer, folds) for layer in range(spec.num_layers)]
    recurrent_stack(
        nodes,
        spec,
        layers,
        "input",
        "h0",
        "c0",
        lengths="lengths" if options.lengths else None,
        form=form_of(options, layers, lengths=options.lengths),
        names=StackOutputs("output", "hn", "cn"),
    )
    model = make_model("lstm", nodes.nodes, _inputs(spec, options), _outputs(spec), options.opset)
    metadata = Metadata(
        spec=spec, options=options, states=STATES, versions=VERSIONS, digest=weights_digest or digest(state)
    )
    notes = (*notes, *float64_notes(nodes.nodes, nodes.initializers))
    return write_export(BuiltModel(model, nodes.initializers, metadata, notes), path, parameters=spec.num_parameters)


def _inputs(spec: LSTMSpec, options: ExportOptions) -> list[ValueInfoProto]:
    inputs = [
        _value(spec, "input", spec.sequence_shape("batch", "time", spec.input_size), "the sequences"),
        _value(spec, "h0", spec.h_shape("batch"), "initial hidden state, layer by layer, directions within"),
        _value(spec, "c0", spec.c_shape("batch"), "initial cell state"),
    ]
    if options.lengths:
        doc = "steps of each sequence, 1 to time"
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ("batch",), doc))
    return inputs


def _outputs(spec: LSTMSpec) -> list[ValueInfoProto]:
    output = spec.sequence_shape("batch", "time", spec.output_size)
    return [
        _value(spec, "output", output, "the last layer's h at each step"),
        _value(spec, "hn", spec.h_shape("batch"), "final hidden state"),
        _value(spec, "cn", spec.c_shape("batch"), "final cell state"),
    ]


def _value(spec: LSTMSpec, name: str, shape: tuple[int | str, ...], doc: str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)), shape, doc)

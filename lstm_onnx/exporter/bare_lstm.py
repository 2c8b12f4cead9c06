"""A bare nn.LSTM as an ONNX model, written directly from its sizes and weights: no tracing, no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from .. import __version__
from ..metadata import Metadata
from ..spec import ExportOptions, LSTMSpec
from .emitter import Nodes, StackOutputs, recurrent_stack
from .weights import Array, digest, layer_weights
from .write import write_model

STATES = {"h0": "hn", "c0": "cn"}


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    `spec` is None for a module that is more than an LSTM.  `nodes` counts the graph's own nodes, not
    those within a Scan's body; `num_bytes` is the size of all files; `digest` identifies the weights;
    `external_data` is the file beside `path` that holds the weights of a model over 2 GB, or None.
    `states` maps each state input to the output that feeds it; `notes` is what should be said of it.
    """

    path: str
    spec: LSTMSpec | None
    options: ExportOptions
    nodes: int
    parameters: int
    num_bytes: int
    digest: str
    external_data: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, the spec and the options as tables."""
        return asdict(self)


def export_lstm(
    spec: LSTMSpec, options: ExportOptions, state: Mapping[str, Array], path: str | os.PathLike[str]
) -> ExportResult:
    """Write an nn.LSTM of sizes `spec` with the parameters `state` (see `weights.fitted`) to `path`.

    Raises:
        WeightsError: the fold of a projection was asked for and W_hr is too badly conditioned.
        FileError: `path` cannot be written.
    """
    model, initializers, weights_digest = lstm_model(spec, options, state)
    external, num_bytes = write_model(model, initializers, path)
    return ExportResult(
        path=os.fspath(path),
        spec=spec,
        options=options,
        nodes=len(model.graph.node),
        parameters=spec.num_parameters,
        num_bytes=num_bytes,
        digest=weights_digest,
        external_data=external,
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        states=STATES,
    )


def lstm_model(
    spec: LSTMSpec, options: ExportOptions, state: Mapping[str, Array]
) -> tuple[ModelProto, dict[str, np.ndarray], str]:
    """The model without its initializers, the initializers by name, and the weights' digest."""
    nodes = Nodes()
    recurrent_stack(
        nodes,
        spec,
        [layer_weights(spec, state, layer) for layer in range(spec.num_layers)],
        "input",
        "h0",
        "c0",
        lengths="lengths" if options.lengths else None,
        fold=options.projection == "fold",
        names=StackOutputs("output", "hn", "cn"),
    )
    elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))

    def value(name: str, shape: tuple[int | str, ...], doc: str, kind: int = elem_type) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape, doc)

    inputs = [
        value("input", spec.sequence_shape("batch", "time", spec.input_size), "the sequences"),
        value("h0", spec.h_shape("batch"), "initial hidden state, layer by layer, directions within"),
        value("c0", spec.c_shape("batch"), "initial cell state"),
    ]
    if options.lengths:
        inputs.append(value("lengths", ("batch",), "steps of each sequence, 1 to time", TensorProto.INT32))
    outputs = [
        value("output", spec.sequence_shape("batch", "time", spec.output_size), "the last layer's h at each step"),
        value("hn", spec.h_shape("batch"), "final hidden state"),
        value("cn", spec.c_shape("batch"), "final cell state"),
    ]
    opsets = [helper.make_opsetid("", options.opset)]
    model = helper.make_model(
        helper.make_graph(nodes.nodes, "lstm", inputs, outputs),
        opset_imports=opsets,
        # The oldest format that has the opset, so that the most runtimes can read the file.
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="lstm-onnx",
        producer_version=__version__,
    )
    weights_digest = digest(state)
    metadata = Metadata(
        spec=spec,
        options=options,
        states=STATES,
        versions={"lstm_onnx": __version__, "onnx": onnx.__version__},
        digest=weights_digest,
    )
    helper.set_model_props(model, metadata.to_metadata())
    return model, nodes.initializers, weights_digest

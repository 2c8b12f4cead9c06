"""Writing a model: its metadata, its weights (over 2 GB in a file beside it), and what was written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from ..metadata import PRODUCER
from ..onnxgraph import nodes_of
from ..onnxgraph.write import write_model
from ..quantization import quantize
from ..spec import ExportOptions
from ..version import __version__
from .float16_weights import with_float16_weights
from .result import BuiltModel, ExportResult
from .targets import fit_nodes, intermediate_file, written_for

VERSIONS = {"lstm_onnx": __version__, "onnx": onnx.__version__}


def float64_notes(nodes: Iterable[NodeProto], initializers: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """A note where recurrent operators compute in float64, which ONNX Runtime 1.31 implements on CUDA alone."""
    operators = {
        node.op_type
        for node in nodes
        if node.op_type in ("LSTM", "GRU", "RNN") and initializers[node.input[1]].dtype == np.float64
    }
    if not operators:
        return ()
    names = " or ".join(sorted(operators))
    note = f"ONNX Runtime's CPU provider has no float64 {names}, so the file runs only on CUDA"
    return (f'{note}; export it with projection="scan" or precision="float32" for the CPU',)


def nan_notes(nodes: Iterable[NodeProto], initializers: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """A note where a recurrent operator has a NaN among its weights, of which its outputs on the CPU show nothing."""
    names = {name for node in nodes if node.op_type in ("LSTM", "GRU", "RNN") for name in node.input[1:]}
    found = [name for name in initializers if name in names and np.isnan(initializers[name]).any()]
    if not found:
        return ()
    what = "where PyTorch's outputs are NaN, ONNX Runtime's are numbers"
    return (f"NaN among the weights {', '.join(found)}: {what}; export from a checkpoint before training diverged",)


def rank_notes(outputs: Iterable[ValueInfoProto]) -> tuple[str, ...]:
    """A note where an output's number of axes goes by the sizes, which runs, but which ONNX does not allow."""
    found = ", ".join(item.name for item in outputs if not item.type.tensor_type.HasField("shape"))
    note = (
        f"{found} has another number of axes at other sizes, as squeeze() removes an axis where it is 1; ONNX Runtime "
        "runs that, but onnx's checker (and so lstm-onnx check) refuses an output without a fixed number: squeeze an "
        "axis that is always 1, as squeeze(-1), or bound the others: torch.export.Dim('batch', min=2)"
    )
    return (note,) if found else ()


def in_order_of_use(model: ModelProto, initializers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A module's parameters and buffers as they are ordered in it, and then constants in the order of their use.

    The tracer's order follows from how the module's code computes them, of which the graph does not tell.
    """
    read = dict.fromkeys(name for node in nodes_of(model.graph.node) for name in node.input)
    places = {name: place for place, name in enumerate(read)}
    own = [name for name in initializers if "/" not in name]
    constants = sorted((name for name in initializers if "/" in name), key=lambda name: places.get(name, len(places)))
    return {name: initializers[name] for name in (*own, *constants)}


def make_model(
    name: str,
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    opset: int,
) -> ModelProto:
    """A model without its initializers and metadata, in the oldest format that has the opset."""
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(
        helper.make_graph(nodes, name, inputs, outputs),
        opset_imports=opsets,
        # Any later format would only exclude older runtimes.
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name=PRODUCER,
        producer_version=__version__,
    )


def write_export(built: BuiltModel, path: str | os.PathLike[str], *, parameters: int) -> ExportResult:
    """Write a model with its metadata to `path`, in the precision that its options say.

    Args:
        built: the model.
        path: the file.
        parameters: the number of the module's parameters.

    Raises:
        FileError: a file cannot be written.
        ModelError: ``precision="int8"``, and no layer can be quantized.
        ExportError: the options have a target that cannot run the file.
    """
    options = built.metadata.options
    assert options is not None  # noqa: S101 - every exporter sets them
    fit_nodes(built.model, options.target)
    return written_for(options.target, lambda target: _written(built, options, target, parameters), path)


def _written(built: BuiltModel, options: ExportOptions, path: str | os.PathLike[str], parameters: int) -> ExportResult:
    model, initializers, metadata = built.model, built.initializers, built.metadata
    helper.set_model_props(model, metadata.to_metadata())
    if options.precision == "int8":
        with intermediate_file("float32.onnx", path) as source:
            write_model(model, initializers, source)
            result = quantize(source, path, layers=options.layers, kernel=options.kernel)
        external, num_bytes, nodes, more = result.external_data, result.num_bytes, result.nodes, result.notes
    else:
        more = ()
        if options.precision == "float16":
            model, initializers, more = with_float16_weights(model, initializers)
        more = (*more, *nan_notes(nodes_of(model.graph.node), initializers))
        external, num_bytes = write_model(model, initializers, path)
        nodes = len(model.graph.node)
    return ExportResult(
        path=os.fspath(path),
        spec=metadata.spec,
        options=options,
        nodes=nodes,
        parameters=parameters,
        num_bytes=num_bytes,
        digest=str(metadata.digest),
        external_data=external,
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        states=dict(metadata.states),
        notes=(*built.notes, *more),
    )

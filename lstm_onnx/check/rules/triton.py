"""LO661: what Triton Inference Server requires of a file, according to its documentation."""

from __future__ import annotations

from collections.abc import Iterator

from ...onnxgraph import shape_of
from ..context import CheckContext
from ..finding import Finding
from ..rule import applies, rule

TRITON_BATCH = rule(
    "LO661",
    "triton-batch",
    "warning",
    target="triton",
    summary="an input or output whose batch is not the first axis",
    why="Triton batches requests along the first axis of every tensor.  With a configuration that it generates itself, "
    "it joins sequences along time or along the layers of a state.",
    fix="lstm-onnx deploy triton FILE -o DIR writes the model with the batch first, and its configuration",
    source="by documentation: github.com/triton-inference-server/server, docs/user_guide/model_configuration.md, "
    "Maximum Batch Size",
)


@applies(TRITON_BATCH)
def triton_batch(context: CheckContext) -> Iterator[Finding]:
    """Tensors whose first axis is not the batch."""
    batches = {*context.batches, *context.batches.values()}
    for name, kind in (*context.graph.inputs.items(), *context.graph.outputs.items()):
        dims = shape_of(kind) or ()
        at = [axis for axis, dim in enumerate(dims) if dim in batches]
        if at and 0 not in at:
            yield TRITON_BATCH.violated(name, f"its axis {at[0]} is the batch")

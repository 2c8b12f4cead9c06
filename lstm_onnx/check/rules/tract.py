"""LO611-620: what tract refuses, or computes wrongly without an error."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto

from ...onnxgraph import attributes_of, is_default, node_label, typed
from ...onnxgraph.nodes import repeating_node
from ...onnxgraph.recurrent import (
    DEFAULT_ACTIVATIONS,
    INITIAL_C,
    INITIAL_H,
    SEQUENCE_LENS,
    activations_of,
    batch_axis,
    direction_of,
    has_default_activations,
    input_of,
)
from ..context import CheckContext
from ..finding import Finding
from ..rule import applies, rule

_RUN = "run with tract 0.23.9"
_CODE = "github.com/sonos/tract, commit 38b383f"

TRACT_LENGTHS = rule(
    "LO611",
    "tract-lengths",
    "error",
    target="tract",
    summary="lengths of sequences, which tract refuses",
    why="tract opens an LSTM, GRU or RNN only without lengths, or with constant lengths that cover the whole time "
    "('Non constant seq_len is not supported').",
    fix='export the model with target="tract", which writes layers as Scans',
    source=f"{_RUN}; {_CODE}, onnx/src/ops/rec/common.rs",
)
TRACT_VARIANT = rule(
    "LO612",
    "tract-variant",
    "error",
    target="tract",
    summary="an attribute that tract does not read: direction=reverse, other activations, clip, input_forget",
    why="tract computes an LSTM, GRU or RNN of one direction forward, with sigmoid and tanh and without clipping, "
    "whatever its attributes say, and without an error.  Bidirectional ones are right.",
    fix='export the model with target="tract", which writes layers as Scans; run clip and input_forget with ONNX '
    "Runtime",
    source=f"{_RUN}; {_CODE}, onnx/src/ops/rec/lstm.rs, gru.rs and rnn.rs read no such attribute",
)
TRACT_STATES = rule(
    "LO613",
    "tract-states",
    "error",
    target="tract",
    summary="no initial states, with a dynamic batch",
    why="tract crashes the process that opens the file ('called Result::unwrap() on an Err value: "
    "UndeterminedSymbol'): it makes zeros of the batch size, which must be a number.",
    fix='export the model with target="tract", which writes layers as Scans, or with the states as inputs; or fix the '
    "sizes of the batch and of time, such as with onnxruntime.tools.make_dynamic_shape_fixed",
    source=f"{_RUN}; {_CODE}, onnx/src/ops/rec/common.rs, wire_one_side",
)
TRACT_CELL_STATE = rule(
    "LO616",
    "tract-cell-state",
    "error",
    target="tract",
    summary="an LSTM without initial states whose cell state is used together with another output",
    why="tract often fails when it runs a batch above 1 ('Clashing resolution for expression').",
    fix='export the model with target="tract", which writes layers as Scans; lstm-onnx verify SOURCE FILE --runtime '
    "tract shows whether it fails",
    source=_RUN,
)
TRACT_EXPANDED = rule(
    "LO617",
    "tract-expanded",
    "error",
    target="tract",
    summary="a recurrent operator whose input or initial state is repeated by Expand or Tile",
    why="tract moves the repetition past the operator's products, which often fails, when it opens the file or "
    "when it runs (a failing check in declutter, 'Clashing resolution for expression').",
    fix='export the model with target="tract", which keeps the two apart; lstm-onnx verify SOURCE FILE --runtime tract '
    "shows whether it fails",
    source=_RUN,
)
TRACT_PRECISION = rule(
    "LO618",
    "tract-precision",
    "info",
    target="tract",
    summary="gates, which tract computes with an approximate sigmoid",
    why="An open gate gives 0.99996 instead of 1, so a large cell state loses a share of 4e-5 in each step. "
    "Cell states of trained models are rarely above 100, where this is within a few roundings of the outputs.",
    fix='export the float32 model with target="tract", whose gates are exact; or compare on your own inputs: lstm-onnx '
    "verify SOURCE FILE --runtime tract --data DATA",
    source=f"{_RUN}: states of 1000 are off by 0.04; sonos/tract issue 2618 is about the same approximation",
)
TRACT_ZEROS = rule(
    "LO619",
    "tract-zeros",
    "error",
    target="tract",
    summary="a ConstantOfShape without a value",
    why="According to ONNX it makes float32 zeros; tract makes float64 zeros, and refuses the operator that reads them "
    "('Impossible to unify F64 with F32').",
    fix="give the ConstantOfShape its value, a float32 zero, or export the states as inputs",
    source=f"{_RUN}; {_CODE}, onnx/src/ops/array/mod.rs, constant_of_shape",
)
TRACT_DATA_SLICE = rule(
    "LO620",
    "tract-data-slice",
    "error",
    target="tract",
    summary="a Slice whose bounds depend on the numbers in an input, such as the largest of the lengths",
    why="tract turns the size into a symbol, and fails when it runs: 'Symbol <Sym0> points to an invalid (dead ?) "
    "SymbolScope'.",
    fix="leave the padding in (total_length=x.shape[1] in pad_packed_sequence), and cut it off after the model",
    source=_RUN,
)
TRACT_FLOAT64 = rule(
    "LO614",
    "tract-float64",
    "error",
    target="tract",
    summary="a recurrent operator or a loop in float64",
    why="tract opens the file and fails when it runs: 'Sigmoid does not support F64'.",
    fix="export it as float32",
    source=_RUN,
)
TRACT_INT8 = rule(
    "LO615",
    "tract-int8",
    "error",
    target="tract",
    summary="int8 whose scales are computed, or one of ONNX Runtime's own int8 operators",
    why="tract supports QuantizeLinear and DequantizeLinear only with a constant scale ('y_scale must be a const'); "
    "int8 LSTMs, GRUs and RNNs of the default kernel compute the scale of each row.  It has no DynamicQuantizeLSTM, "
    "and MatMulNBits only with 2 and 4 bits.",
    fix='export the model in float32 with target="tract", or run it with ONNX Runtime',
    source=_RUN,
)


@applies(TRACT_PRECISION)
def tract_precision(context: CheckContext) -> Iterator[Finding]:
    """LSTMs, and loops with gates, whose states may be large."""
    found = [
        node
        for scope, node in context.nodes
        if node.op_type == "LSTM" or (node.op_type == "Sigmoid" and scope.parent is not None)
    ]
    if found:
        yield TRACT_PRECISION.violated(found[0], "cell states of 1000 and more lose a share of 4e-5 in each step")


@applies(TRACT_LENGTHS)
def tract_lengths(context: CheckContext) -> Iterator[Finding]:
    """Lengths that are not constants."""
    for scope, node in context.onnx_operators:
        lengths = input_of(node, SEQUENCE_LENS)
        if lengths and context.constant(scope, lengths) is None:
            yield TRACT_LENGTHS.violated(node, f"tract refuses the lengths {lengths} of this {node.op_type}")


@applies(TRACT_VARIANT)
def tract_variant(context: CheckContext) -> Iterator[Finding]:
    """Attributes that it does not read."""
    for _, node in context.onnx_operators:
        ignored = list(_ignored(node))
        if ignored:
            yield TRACT_VARIANT.violated(node, f"tract ignores {', '.join(ignored)} of this {node.op_type}")


def _ignored(node: NodeProto) -> Iterator[str]:
    given = attributes_of(node)
    if direction_of(node) == "reverse":
        yield "direction=reverse"
    if not has_default_activations(node):
        yield f"activations={','.join(activations_of(node)).lower()}"
    if typed(given, "clip", float):
        yield "clip"
    if typed(given, "input_forget", int):
        yield "input_forget"


@applies(TRACT_STATES)
def tract_states(context: CheckContext) -> Iterator[Finding]:
    """Operators without initial states, at a dynamic batch."""
    for scope, node in context.onnx_operators:
        wanted = [INITIAL_H, INITIAL_C] if node.op_type == "LSTM" else [INITIAL_H]
        is_open = not isinstance(scope.dim(input_of(node, 0), batch_axis(node)), int)
        if is_open and not all(input_of(node, index) for index in wanted):
            yield TRACT_STATES.violated(node, f"this {node.op_type} starts from zeros with a dynamic batch")


@applies(TRACT_CELL_STATE)
def tract_cell_state(context: CheckContext) -> Iterator[Finding]:
    """LSTMs without initial states whose cell state is used together with another output."""
    for _, node in context.onnx_operators:
        if node.op_type != "LSTM" or (input_of(node, INITIAL_H) and input_of(node, INITIAL_C)):
            continue
        used = [index for index, name in enumerate(node.output) if name and context.is_used(name)]
        if 2 in used and len(used) > 1:
            yield TRACT_CELL_STATE.violated(node, "this LSTM starts from zeros, and its final cell state is used")


@applies(TRACT_EXPANDED)
def tract_expanded(context: CheckContext) -> Iterator[Finding]:
    """Inputs and initial states that are repeated."""
    for scope, node in context.onnx_operators:
        for index in (0, INITIAL_H, INITIAL_C):
            name = input_of(node, index)
            producer = repeating_node(name, scope.producer) if name else None
            if producer is not None:
                yield TRACT_EXPANDED.violated(node, f"its input {name} is repeated by {node_label(producer)}")
                break


@applies(TRACT_DATA_SLICE)
def tract_data_slice(context: CheckContext) -> Iterator[Finding]:
    """Slices up to a computed number."""
    for scope, node in context.onnx_nodes("Slice"):
        bounds = [name for name in node.input[1:3] if name and scope.data_sources(name)]
        if bounds:
            yield TRACT_DATA_SLICE.violated(node, f"its bound {bounds[0]} depends on the numbers in an input")


@applies(TRACT_ZEROS)
def tract_zeros(context: CheckContext) -> Iterator[Finding]:
    """Zeros whose dtype is ONNX's default."""
    for _, node in context.onnx_nodes("ConstantOfShape"):
        if not any(item.name == "value" for item in node.attribute):
            yield TRACT_ZEROS.violated(node, "tract makes float64 zeros here")


@applies(TRACT_FLOAT64)
def tract_float64(context: CheckContext) -> Iterator[Finding]:
    """Recurrent operators of float64, and sigmoids in bodies."""
    for scope, node in context.nodes:
        if node.op_type in (*DEFAULT_ACTIVATIONS, "Sigmoid") and scope.dtype(input_of(node, 0)) == "float64":
            yield TRACT_FLOAT64.violated(node, f"tract has no {node.op_type} of float64")


@applies(TRACT_INT8)
def tract_int8(context: CheckContext) -> Iterator[Finding]:
    """Scales that are not constants, and operators of ONNX Runtime's own domain."""
    computed = []
    for scope, node in context.nodes:
        if is_default(node.domain):
            scaled = node.op_type in ("QuantizeLinear", "DequantizeLinear")
            computed += [node] if scaled and scope.data_sources(input_of(node, 1)) else []
            continue
        bits = typed(attributes_of(node), "bits", int)
        if node.op_type == "DynamicQuantizeLSTM" or (node.op_type == "MatMulNBits" and bits not in (2, 4)):
            yield TRACT_INT8.violated(node, f"tract has no {node.op_type}{' of 8 bits' if bits == 8 else ''}")
    if computed:
        yield TRACT_INT8.violated(computed[0], f"{len(computed)} nodes have a computed scale, which tract refuses")

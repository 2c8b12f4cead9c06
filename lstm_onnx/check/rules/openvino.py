"""LO601-605: what OpenVINO's CPU plugin refuses, or computes wrongly without an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from ...onnxgraph import Scope, attributes_of, is_default, typed
from ...onnxgraph.padding import is_masked
from ...onnxgraph.recurrent import (
    PEEPHOLES,
    QUANTIZED_LSTM,
    SEQUENCE_LENS,
    activations_of,
    direction_of,
    input_of,
    is_onnx_operator,
)
from ..context import CheckContext
from ..finding import Finding
from ..rule import applies, rule

_RUN = "run with OpenVINO 2026.4.1 on its CPU plugin"
_ACTIVATIONS = frozenset({"sigmoid", "tanh", "relu"})

OPENVINO_LENGTHS = rule(
    "LO601",
    "openvino-lengths",
    "error",
    target="openvino",
    summary="lengths of sequences, which OpenVINO ignores if an axis is dynamic",
    why="OpenVINO computes every sequence to the end of its padding, without an error: outputs after the end are not "
    "zero, final states are those of the padding, and a reverse direction starts in it. If batch and time have fixed "
    "sizes, the results are right.",
    fix='export the model with target="openvino", which writes such layers as Scans, or fix both sizes after reading '
    "the file (model.reshape)",
    source=f"{_RUN}; openvino pull request 10710, in src/plugins/intel_cpu/src/nodes/rnn.cpp: isSupportedOperation "
    "returns before it looks at the lengths where the shape is dynamic",
)
OPENVINO_VARIANT = rule(
    "LO602",
    "openvino-variant",
    "error",
    target="openvino",
    summary="input_forget or peepholes, which OpenVINO ignores, or an activation that it refuses",
    why="OpenVINO computes an LSTM with input_forget=1 or peepholes as one without, and refuses recurrent operators "
    "with other activations than sigmoid, tanh and relu.",
    fix='export it for OpenVINO (target="openvino" writes peepholes as a Scan), run it with ONNX Runtime, or train the '
    "model with nn.LSTM's own equations",
    source=_RUN,
)
OPENVINO_FLOAT64 = rule(
    "LO603",
    "openvino-float64",
    "error",
    target="openvino",
    summary="float64, which OpenVINO computes as float32",
    why="Inputs and outputs stay float64, and every number in between has the precision of float32 (errors of 1e-7).",
    fix="export it as float32, whose results are the same there",
    source=_RUN,
)
OPENVINO_SCAN = rule(
    "LO604",
    "openvino-scan",
    "error",
    target="openvino",
    summary="a Scan whose body reads a value that the outer graph computes",
    why="OpenVINO cannot read the file ('Number of Scan node inputs is less than required'): a body may read "
    "constants of the outer graph, but a value that is computed there must be an input of the Scan.  Int8 LSTMs, "
    "GRUs and RNNs of the default kernel have such Scans.",
    fix="export the model in float32, or run it with ONNX Runtime",
    source=f"{_RUN}; src/frontends/onnx/frontend/src/op/scan.cpp counts the body's inputs so",
)
OPENVINO_INT8 = rule(
    "LO605",
    "openvino-int8",
    "info",
    target="openvino",
    summary="ONNX Runtime's int8 operators, for which OpenVINO computes different numbers",
    why="OpenVINO computes DynamicQuantizeLSTM with activations in float32, and rounds those of MatMulNBits in its own "
    "groups (DYNAMIC_QUANTIZATION_GROUP_SIZE).  Outputs are as far from ONNX Runtime's as these are from float32's "
    "(1e-2), so that what was verified is not what runs.",
    fix="run it with ONNX Runtime, or export the model in float32",
    source=_RUN,
)


def has_open_axis(context: CheckContext, scope: Scope, node: NodeProto) -> bool:
    """Whether the sizes of the first input of a recurrent operator are not all known."""
    shape = scope.shape(input_of(node, 0))
    return shape is None or not all(isinstance(dim, int) for dim in shape) or bool(context.graph.axes)


@applies(OPENVINO_LENGTHS)
def openvino_lengths(context: CheckContext) -> Iterator[Finding]:
    """Lengths that are not constants, at dynamic axes."""
    for scope, node in context.operators:
        lengths = input_of(node, SEQUENCE_LENS)
        if lengths and has_open_axis(context, scope, node) and not _only_past_end(context, scope, node, lengths):
            yield OPENVINO_LENGTHS.violated(node, f"OpenVINO ignores its lengths, {lengths}")


@dataclass(frozen=True)
class _Values:
    """The view of a graph that `onnxgraph.padding` needs."""

    context: CheckContext
    scope: Scope

    def maker(self, value: str) -> NodeProto | None:
        return self.scope.producer(value)

    def readers(self, value: str) -> list[NodeProto]:
        return [node for _, node, _ in self.context.readers.get(value, ())]

    def is_output(self, value: str) -> bool:
        return self.context.is_output(value)

    def constant(self, value: str) -> np.ndarray | None:
        return self.context.constant(self.scope, value)


def _only_past_end(context: CheckContext, scope: Scope, node: NodeProto, lengths: str) -> bool:
    """Whether the lengths change only steps past a sequence's end that nothing reads."""
    y, *finals = map(str, node.output)
    if direction_of(node) != "forward" or any(map(context.is_used, finals)):
        return False
    return is_masked(_Values(context, scope), y, lengths)


@applies(OPENVINO_VARIANT)
def openvino_variant(context: CheckContext) -> Iterator[Finding]:
    """Attributes that it ignores or refuses."""
    for _, node in context.operators:
        given = attributes_of(node)
        if typed(given, "input_forget", int):
            yield OPENVINO_VARIANT.violated(node, "OpenVINO ignores input_forget=1")
        if node.op_type in ("LSTM", QUANTIZED_LSTM) and input_of(node, PEEPHOLES):
            does = "ignores" if is_onnx_operator(node) else "refuses"
            yield OPENVINO_VARIANT.violated(node, f"OpenVINO {does} its peepholes")
        other = [name for name in activations_of(node) if name.lower() not in _ACTIVATIONS]
        if other:
            yield OPENVINO_VARIANT.violated(node, f"OpenVINO refuses the activation {', '.join(other)}")


@applies(OPENVINO_FLOAT64)
def openvino_float64(context: CheckContext) -> Iterator[Finding]:
    """Recurrent operators and inputs of float64."""
    for node in context.float64_layers:
        yield OPENVINO_FLOAT64.violated(node, f"OpenVINO computes this {node.op_type} in float32")


@applies(OPENVINO_SCAN)
def openvino_scan(context: CheckContext) -> Iterator[Finding]:
    """Values of the outer graph that a body reads and that are not constants."""
    for scope, node in context.onnx_nodes("Scan"):
        for body in scope.bodies(node):
            for name in (name for each in body.nodes for name in each.input if name and name not in body.known):
                home = body.home(name)
                if home is not None and name not in home.tensors:
                    message = f"its body reads {name}, which is computed outside of it"
                    yield OPENVINO_SCAN.violated(node, message)
                    break


@applies(OPENVINO_INT8)
def openvino_int8(context: CheckContext) -> Iterator[Finding]:
    """Operators of ONNX Runtime's own domain that round activations."""
    for _, node in context.nodes:
        blocks = node.op_type == "MatMulNBits" and attributes_of(node).get("bits") == 8
        if not is_default(node.domain) and (node.op_type == QUANTIZED_LSTM or blocks):
            yield OPENVINO_INT8.violated(node, f"OpenVINO computes different numbers for this {node.op_type}")
            return

"""LO506-509: recurrent operators in a precision that the CPU, or ONNX Runtime, does not handle well."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ...onnxgraph import ONNX_ERRORS, Scope, stored_tensors
from ...onnxgraph.recurrent import QUANTIZED_LSTM, input_of
from ...runtime.cpu import VNNI, cpu_flags
from ..context import CheckContext
from ..finding import Finding
from ..rule import PROVIDER, applies, rule

_INT8_WEIGHTS = {QUANTIZED_LSTM: (1, 2), "MatMulInteger": (1,), "DynamicQuantizeMatMul": (1,), "QLinearMatMul": (3,)}
"""The indices of the int8 weights among the inputs of these operators."""
_SAFE_INT8 = 64
"""Weights of 7 bits do not saturate: 2 * 255 * 64 fits into 16 bits."""

FLOAT64_ON_CPU = rule(
    "LO506",
    "float64-on-cpu",
    "error",
    summary="a recurrent operator in float64 on the CPU",
    why="ONNX Runtime's CPU provider opens the file, and fails in the first run: its LSTM does not support double "
    "yet. A Scan in float64 runs.",
    fix='export it as float32 or, with projection="scan", as Scans; or use provider "cuda"',
)
FLOAT16_ON_CPU = rule(
    "LO507",
    "float16-on-cpu",
    "info",
    summary="a recurrent operator in float16 on the CPU",
    why="ONNX Runtime puts Casts around a float32 kernel: it is no faster there, and has errors of 2e-4 to 3e-4.",
    fix="export as float32 for the CPU; float16 halves the file and is for CUDA",
)
BFLOAT16 = rule(
    "LO508",
    "bfloat16",
    "error",
    summary="a recurrent operator in bfloat16",
    why="ONNX allows it since opset 22, but ONNX Runtime has no kernel for it and refuses the file.",
    fix="export as float32, or as float16 for CUDA",
)
INT8_SATURATION = rule(
    "LO509",
    "int8-saturation",
    "warning",
    summary="int8 weights on a CPU whose int8 products saturate",
    why="Without VNNI, AVX2 and AVX512 add two products of uint8 and int8 in 16 bits, which saturates silently: "
    "errors of 0.14 to 0.29 on plain models, where 0.007 is usual.",
    fix="quantize the float32 file again (lstm-onnx quantize FILE -o OUT): its weights have 7 bits, which cost nothing "
    "and never saturate; or load with the session option session.x64quantprecision=1, at 1.7 to 2 times the time",
)
FATAL_OPTIMIZER = rule(
    "LO514",
    "fatal-optimizer",
    "warning",
    summary="ONNX Runtime's own optimizers crash the process that opens the file",
    why="Its MatmulTransposeFusion turns a float16 Transpose before a MatMul into a node on which a later optimizer "
    "fails (1.31): a CPU session with the default options crashes the process, without an exception. lstm-onnx's "
    "runtime "
    "and commands leave that optimizer out. So a file with both operators is also opened as other programs open it.",
    fix='in other programs, pass disabled_optimizers=["MatmulTransposeFusion"] to InferenceSession, or use float32 '
    "or CUDA",
)


@applies(BFLOAT16, FLOAT64_ON_CPU, FLOAT16_ON_CPU, needs=PROVIDER)
def precision(context: CheckContext) -> Iterator[Finding]:
    """float64 and float16 on the CPU, bfloat16 anywhere."""
    half: list[NodeProto] = []
    for scope, node in context.onnx_operators:
        dtype = scope.dtype(input_of(node, 0))
        dtype = scope.weight(input_of(node, 1)).dtype if dtype == "unknown" and input_of(node, 1) else dtype
        if dtype == "bfloat16":
            yield BFLOAT16.violated(node, f"{node.op_type} is bfloat16, for which ONNX Runtime has no kernel")
        if dtype == "float64" and context.provider == "cpu":
            yield FLOAT64_ON_CPU.violated(node, f"{node.op_type} is float64: it opens on the CPU but cannot run")
        half += [node] if dtype == "float16" and context.provider == "cpu" else []
    if half:
        yield FLOAT16_ON_CPU.violated(half[0], f"{len(half)} recurrent operators are float16: no faster on the CPU")


def may_have_fatal_optimizer(context: CheckContext) -> bool:
    """Whether the file has what LO514 needs: float16, and the operators Transpose and MatMul."""
    inputs = [value.type.tensor_type.elem_type for value in context.model.graph.input]
    stored = [tensor.data_type for _, tensor in stored_tensors(context.model)]
    kinds = {node.op_type for _, node in context.nodes}
    return TensorProto.FLOAT16 in (*inputs, *stored) and {"Transpose", "MatMul"} <= kinds


@applies(INT8_SATURATION, needs=PROVIDER)
def int8_saturation(context: CheckContext) -> Iterator[Finding]:
    """int8 weights that use all 8 bits, on a CPU without VNNI."""
    if context.provider != "cpu" or not saturates():
        return
    largest = _int8_magnitudes(context.model)
    for scope, node in context.nodes:
        names = [_origin(scope, input_of(node, at)) for at in _INT8_WEIGHTS.get(node.op_type, ())]
        if max((largest.get(name, 0) for name in names), default=0) > _SAFE_INT8:
            message = f"{node.op_type} has int8 weights, whose products saturate on this CPU (no VNNI)"
            yield INT8_SATURATION.violated(node, message)


def _origin(scope: Scope, name: str) -> str:
    return scope.source(name)[0] if name else ""


def _int8_magnitudes(model: ModelProto) -> dict[str, int]:
    """The largest magnitude in each int8 tensor; 127 for external data."""
    largest: dict[str, int] = {}
    for name, tensor in stored_tensors(model):
        if tensor.data_type != TensorProto.INT8 or not tensor.dims:
            continue
        try:
            external = tensor.data_location == TensorProto.EXTERNAL
            largest[name] = (
                127 if external else int(np.max(np.abs(numpy_helper.to_array(tensor).astype(np.int16)), initial=0))
            )
        except ONNX_ERRORS:
            continue  # damaged: the rule valid-onnx reports it
    return largest


def saturates() -> bool:
    """Whether this CPU adds int8 products in 16 bits: an x86 with AVX2 and without VNNI, as far as is known."""
    flags = cpu_flags()
    return "avx2" in flags and not flags & VNNI

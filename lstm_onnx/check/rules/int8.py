"""LO510-513: the drawbacks of int8 layers, by the kernel that computes them and the place where they run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import NodeProto

from ...onnxgraph import Scope, attributes_of
from ...onnxgraph.recurrent import QUANTIZED_LSTM, input_of
from ..context import CheckContext
from ..finding import Finding
from ..rule import CUDA, PROVIDER, applies, rule
from .precision import saturates

_SHARED_SCALE = (QUANTIZED_LSTM, "DynamicQuantizeMatMul", "DynamicQuantizeLinear")
_BLOCKS = "MatMulNBits"
_QUANTIZE = "quantize the float32 file again: lstm-onnx quantize FILE -o OUT, whose default kernel is MatMulInteger"

INT8_BATCH = rule(
    "LO510",
    "int8-batch",
    "warning",
    summary="int8 whose scale is shared by a batch: results depend on the other sequences",
    why="All numbers of a call, or of a step, share one scale. So a result depends on the other sequences of the "
    "batch (a row that is 100 times as large moves its neighbour by 0.6), on padding (by 0.03), on chunks (by 3e-3 "
    "to 7e-2) and, with DynamicQuantizeLSTM, on the number of threads (by 2e-3).",
    fix=_QUANTIZE,
)
INT8_IN_BROWSERS = rule(
    "LO511",
    "int8-in-browsers",
    "info",
    summary="8-bit weights in blocks, for browsers and Node",
    why="ONNX Runtime's WebAssembly build computes MatMulNBits with float32 activations, ten times slower than "
    "float32, and gives other numbers (by 3e-3).",
    fix=f"for browsers, {_QUANTIZE}",
)
INT8_ON_CUDA = rule(
    "LO512",
    "int8-on-cuda",
    "warning",
    summary="int8 products that CUDA lacks",
    why="ONNX Runtime's CUDA provider multiplies only int8 by int8: MatMulInteger of uint8 rows stays on the CPU, "
    "and the rows are copied back and forth at each run.",
    fix="run it on the CPU (--provider cpu); use float16 or float32 for CUDA",
)
INT8_WITHOUT_VNNI = rule(
    "LO513",
    "int8-without-vnni",
    "info",
    summary="8-bit weights in blocks on a CPU without VNNI",
    why="With AVX2 alone, MatMulNBits is slower than float32 for sequences up to a hidden size of 256, and for batches "
    "of 8.",
    fix=_QUANTIZE,
)


def _first(nodes: Iterable[tuple[Scope, NodeProto]], *ops: str) -> tuple[NodeProto | None, int]:
    """The first node of these operators, and their number."""
    found = [node for _, node in nodes if node.op_type in ops]
    return (found[0] if found else None), len(found)


@applies(INT8_BATCH, INT8_IN_BROWSERS)
def int8_kernels(context: CheckContext) -> Iterator[Finding]:
    """Operators whose results depend on the batch, or on the place where they run."""
    node, count = _first(context.nodes, *_SHARED_SCALE)
    if node is not None:
        yield INT8_BATCH.violated(node, f"{count} {node.op_type}: one scale for all rows of a call or a step")
    node, count = _first(context.nodes, _BLOCKS)
    if node is not None and attributes_of(node).get("bits") == 8:
        yield INT8_IN_BROWSERS.violated(node, f"{count} MatMulNBits: slow in WebAssembly, with other numbers")


@applies(INT8_ON_CUDA, needs=CUDA)
def int8_on_cuda(context: CheckContext) -> Iterator[Finding]:
    """Products of uint8 rows."""
    for scope, node in context.nodes:
        if node.op_type == "MatMulInteger" and _is_unsigned(scope, node):
            yield INT8_ON_CUDA.violated(node, "MatMulInteger of uint8 rows runs on the CPU")
            return


def _is_unsigned(scope: Scope, node: NodeProto) -> bool:
    """Whether the rows are uint8: by their own type, or by that of their zero point."""
    names = [name for name in (input_of(node, 0), input_of(node, 2)) if name]
    return any("uint8" in (scope.dtype(name), scope.weight(name).dtype) for name in names)


@applies(INT8_WITHOUT_VNNI, needs=PROVIDER)
def int8_without_vnni(context: CheckContext) -> Iterator[Finding]:
    """MatMulNBits where its kernel is slow."""
    node, count = _first(context.nodes, _BLOCKS)
    if node is not None and context.provider == "cpu" and saturates():
        yield INT8_WITHOUT_VNNI.violated(node, f"{count} MatMulNBits on a CPU without VNNI: slower than float32")

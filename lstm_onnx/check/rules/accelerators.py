"""LO631-652: what CoreML, QNN and TensorRT lack, according to documentation: none of them has been run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from onnx import NodeProto

from ...onnxgraph import Scope, attributes_of, typed
from ...onnxgraph.recurrent import SEQUENCE_LENS, activations_of, direction_of, has_default_activations, input_of
from ..context import OVER_STEPS, CheckContext
from ..finding import Finding
from ..rule import Rule, applies, rule

_ORT = "by documentation: github.com/microsoft/onnxruntime"
_QNN = OVER_STEPS - {"LSTM"}
_TENSORRT = frozenset(
    {"Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BlackmanWindow", "CenterCropPad"}
    | {"Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "DFT", "Det", "DynamicQuantizeLinear"}
    | {"HammingWindow", "HannWindow", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial"}
    | {"Optional", "OptionalGetElement", "OptionalHasElement", "QLinearConv", "QLinearMatMul", "STFT", "SequenceAt"}
    | {"SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap"}
    | {"SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Unique"}
)
_TENSORRT_OPSET = 20

COREML_RECURRENT = rule(
    "LO631",
    "coreml-recurrent",
    "warning",
    target="coreml",
    summary="a recurrent operator or a loop, which CoreML does not support",
    why="ONNX Runtime's CoreML provider leaves it to the CPU, and the model is split into parts around it.",
    fix="run it on the CPU (--provider cpu), which has no such cost",
    source=f"{_ORT}, tools/ci_build/github/apple/coreml_supported_mlprogram_ops.md (commit 04f568d) lists none",
)
QNN_RECURRENT = rule(
    "LO642",
    "qnn-recurrent",
    "warning",
    target="qnn",
    summary="a recurrent operator or a form of it that QNN does not support",
    why="ONNX Runtime's QNN provider has LSTM, but without lengths, other activations, clip and input_forget, and no "
    "GRU, RNN, Scan or Loop.  Other nodes run on the CPU, or are an error where that is not allowed.",
    fix="export an LSTM without lengths, or run it on the CPU",
    source=f"{_ORT}, core/providers/qnn/builder/op_builder_factory.cc (commit 00cd7c6) and "
    "opbuilder/lstm_op_builder.cc (commit 64b269e)",
)
TENSORRT_OPERATOR = rule(
    "LO651",
    "tensorrt-operator",
    "error",
    target="tensorrt",
    summary="an operator, a variant of a recurrent operator or an opset that TensorRT's parser does not support",
    why="TensorRT cannot build an engine from the file.  It supports LSTM, GRU, RNN, Scan and Loop, but not layout=1, "
    "input_forget=1 or two directions with different activations, no int8 products in ONNX's form, and "
    "opsets up to 20 in version 10.",
    fix="export the model in float32 or float16 at opset 20 or below; the default is 18",
    source="by documentation: github.com/onnx/onnx-tensorrt, docs/operators.md (commit 96e7811, TensorRT 10.1)",
)
TENSORRT_FLOAT64 = rule(
    "LO652",
    "tensorrt-float64",
    "warning",
    target="tensorrt",
    summary="float64, which TensorRT computes as float32",
    why="TensorRT casts float64 to float32, and clips numbers that do not fit.",
    fix="export it as float32",
    source="by documentation: github.com/onnx/onnx-tensorrt, docs/operators.md (commit 96e7811, TensorRT 10.1)",
)


def _counted(context: CheckContext, a_rule: Rule, operators: frozenset[str], end: str) -> Iterator[Finding]:
    found = [node for _, node in context.onnx_nodes(*operators)]
    if found:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(n.op_type for n in found).items()))
        yield a_rule.violated(found[0], f"{kinds} {end}")


@applies(COREML_RECURRENT)
def coreml_recurrent(context: CheckContext) -> Iterator[Finding]:
    """Operators that are not in CoreML's list."""
    yield from _counted(context, COREML_RECURRENT, OVER_STEPS, "run on the CPU")


@applies(QNN_RECURRENT)
def qnn_recurrent(context: CheckContext) -> Iterator[Finding]:
    """Operators for which QNN has no builder, and LSTMs that its builder refuses."""
    yield from _counted(context, QNN_RECURRENT, _QNN, "run on the CPU")
    for scope, node in context.onnx_operators:
        problems = list(_qnn_problems(context, scope, node)) if node.op_type == "LSTM" else []
        if problems:
            yield QNN_RECURRENT.violated(node, f"QNN supports no LSTM with {', '.join(problems)}")


def _qnn_problems(context: CheckContext, scope: Scope, node: NodeProto) -> Iterator[str]:
    given, lengths = attributes_of(node), input_of(node, SEQUENCE_LENS)
    if lengths and context.constant(scope, lengths) is None:
        yield "lengths"
    if not has_default_activations(node):
        yield "other activations"
    if typed(given, "clip", float):
        yield "clip"
    if typed(given, "input_forget", int):
        yield "input_forget=1"


@applies(TENSORRT_OPERATOR)
def tensorrt_operator(context: CheckContext) -> Iterator[Finding]:
    """Operators that TensorRT's table says are not supported."""
    yield from _counted(context, TENSORRT_OPERATOR, _TENSORRT, "are not supported")
    others = [node for _, node in context.nodes if node.domain == "com.microsoft"]
    if others:
        message = f"{others[0].op_type} is an operator of ONNX Runtime, which TensorRT does not know"
        yield TENSORRT_OPERATOR.violated(others[0], message)
    if context.opset() > _TENSORRT_OPSET:
        yield TENSORRT_OPERATOR.violated("", f"opset {context.opset()}, but TensorRT 10.1 supports opsets up to 20")
    for _, node in context.onnx_operators:
        given = attributes_of(node)
        names = [name.lower() for name in activations_of(node)]
        half = len(names) // 2
        problems = [f"{name}=1" for name in ("layout", "input_forget") if typed(given, name, int)]
        if direction_of(node) == "bidirectional" and names[:half] != names[half:]:
            problems.append("other activations in its second direction")
        if problems:
            yield TENSORRT_OPERATOR.violated(node, f"TensorRT supports no {node.op_type} with {problems[0]}")


@applies(TENSORRT_FLOAT64)
def tensorrt_float64(context: CheckContext) -> Iterator[Finding]:
    """Recurrent operators of float64."""
    for node in context.float64_layers:
        yield TENSORRT_FLOAT64.violated(node, f"TensorRT computes this {node.op_type} in float32")

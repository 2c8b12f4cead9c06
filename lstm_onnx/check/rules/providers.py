"""LO501-505: where nodes run, whether the model runs at all, and what CUDA lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnx import NodeProto

from ...onnxgraph import Scope, attributes_of
from ...onnxgraph.recurrent import (
    PEEPHOLES,
    QUANTIZED_LSTM,
    activations_of,
    has_default_activations,
    input_of,
    read_layer,
)
from ..context import CheckContext
from ..finding import Finding
from ..rule import CUDA, FORECAST, applies, rule

_NEW_OPSET = 22
_ON_CPU = "run it on the CPU (--provider cpu)"
_FOLD = f'export again with projection = "fold" for CUDA, or {_ON_CPU}, where a Scan is faster'

PLACEMENT = rule(
    "LO501",
    "provider",
    "error",
    summary="a node is not on the requested provider",
    why="ONNX Runtime moves nodes that a provider lacks to the CPU without a warning, and copies back and forth in "
    "each run. The rule asks the open session where each node is. With --require, operators on shapes, which ONNX "
    "Runtime keeps on the CPU by design, must be on the provider, too.",
    fix='export at opset 21 or below without what CUDA lacks, or use provider "auto"',
)
RUNNABLE = rule(
    "LO502",
    "runnable",
    "error",
    summary="the model does not open, or does not run at some size",
    why="It is run at several sizes of batch and time, chosen so that a size that was baked in cannot equal all of "
    "them, and its outputs must have the shapes that the file declares.",
    fix="a size was baked in; export again with dynamic batch and time",
)
OPSET_ON_CUDA = rule(
    "LO503",
    "opset-on-cuda",
    "warning",
    summary="a recurrent operator of opset 22 or later",
    why="LSTM, GRU and RNN have a new version since opset 22. ONNX Runtime's CUDA provider may not register that "
    "version (onnxruntime pull request 27728): the node then runs on the CPU. Opsets 14 to 21 are safe.",
    fix="export at opset 21 or below; the default is 18",
)
VARIANT_ON_CUDA = rule(
    "LO504",
    "variant-on-cuda",
    "warning",
    summary="a variant that CUDA lacks: clip, input_forget, peepholes, other activations, linear_before_reset=0, int8",
    why="ONNX Runtime's CPU provider computes them (clip: see LO404); its CUDA provider leaves them to the CPU, and "
    "copies back and forth in each run. It has only RNNs with tanh, and GRUs with linear_before_reset=1, PyTorch's "
    "kind.",
    fix="run it on the CPU (--provider cpu)",
)
LOOP_ON_CUDA = rule(
    "LO505",
    "loop-on-cuda",
    "info",
    summary="a Scan or Loop computes step by step",
    why="On CUDA the host launches the kernels of each step, so small steps are slow, and CUDA graphs refuse the "
    "model. On the CPU it is the faster form of a projected LSTM.",
    fix="run it on the CPU (--provider cpu), which has no such cost; for CUDA, write the loop as one LSTM, GRU or "
    "RNN operator if it is one",
)


@applies(OPSET_ON_CUDA, needs=FORECAST)
def opset_on_cuda(context: CheckContext) -> Iterator[Finding]:
    """The versions of the recurrent operators since opset 22."""
    opset = context.opset()
    nodes = [node for _, node in context.onnx_operators] if opset >= _NEW_OPSET else []
    if nodes:
        message = f"opset {opset}: {len(nodes)} recurrent operators may run on the CPU of a CUDA session"
        yield OPSET_ON_CUDA.violated(nodes[0], message)


@applies(VARIANT_ON_CUDA, needs=FORECAST)
def variant_on_cuda(context: CheckContext) -> Iterator[Finding]:
    """Variants that cuDNN's recurrent layers do not compute."""
    for _, node in context.operators:
        variants = [] if node.op_type == QUANTIZED_LSTM else _variants(node)
        if variants:
            message = f"{node.op_type} with {', '.join(variants)} does not run on CUDA"
            yield VARIANT_ON_CUDA.violated(node, message, _variant_fix(variants))
        elif node.op_type == QUANTIZED_LSTM:
            message = f"{QUANTIZED_LSTM} has a kernel only for the CPU"
            yield VARIANT_ON_CUDA.violated(node, message, f"{_ON_CPU}, or use the float file for a GPU")


def _variant_fix(variants: Sequence[str]) -> str:
    """How to avoid the variants of a node."""
    ways: dict[str, None] = {}
    for variant in variants:
        if variant == "clip":
            ways["leave clip out if nothing reaches it"] = None
        elif variant == "linear_before_reset 0":
            ways["train with linear_before_reset=1, which is nn.GRU's kind"] = None
        else:
            ways["train with the default activations, and without input_forget and peepholes, as nn.LSTM is"] = None
    return f"{_ON_CPU}; for a GPU, {', and '.join(ways)}"


def _variants(node: NodeProto) -> list[str]:
    """The same conditions as in ONNX Runtime's CUDA provider (RNNNeedFallbackToCPU in cuda_execution_provider.cc)."""
    attributes = attributes_of(node)
    variants: list[str] = [name for name in ("clip", "activation_alpha", "activation_beta") if name in attributes]
    variants += ["input_forget"] if attributes.get("input_forget") else []
    if not has_default_activations(node):
        names = dict.fromkeys(name.lower() for name in activations_of(node))
        variants.append(f"the activations {', '.join(names)}")
    if node.op_type == "LSTM" and input_of(node, PEEPHOLES):
        variants.append("peepholes")
    if node.op_type == "GRU" and not attributes.get("linear_before_reset"):
        variants.append("linear_before_reset 0")
    return variants


@applies(LOOP_ON_CUDA, needs=CUDA)
def loop_on_cuda(context: CheckContext) -> Iterator[Finding]:
    """Steps whose kernels the host launches one by one."""
    for scope, node in context.onnx_nodes("Scan", "Loop"):
        message = f"{node.op_type} runs step by step from the host"
        yield LOOP_ON_CUDA.violated(node, message, _FOLD if _is_our_projection(context, scope, node) else "")


def _is_our_projection(context: CheckContext, scope: Scope, node: NodeProto) -> bool:
    """Whether it is the Scan of a projected LSTM that lstm-onnx wrote, which can be exported in another form."""
    layer = read_layer(node, scope.producers) if context.ours else None
    return layer is not None and bool(layer.W_hr)

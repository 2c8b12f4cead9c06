"""LO621-623: what ONNX Runtime Web lacks in a browser, in WebAssembly and on WebGPU."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from ...onnxgraph import stored_tensors
from ...onnxgraph.recurrent import is_onnx_operator
from ..context import OVER_STEPS, CheckContext
from ..finding import Finding
from ..rule import applies, rule

WEB_EXTERNAL_DATA = rule(
    "LO621",
    "web-external-data",
    "warning",
    target="web",
    summary="weights in a separate file",
    why="A browser cannot read a file beside the model: the session opens only if the data are passed to it, under the "
    "name that the model has for them.",
    fix="pass externalData: [{path: NAME, data: URL}] to InferenceSession.create, or store the weights in the model",
    source="by documentation: onnxruntime.ai/docs/tutorials/web/large-models.html, External data",
)
WEBGPU_RECURRENT = rule(
    "LO622",
    "webgpu-recurrent",
    "warning",
    target="webgpu",
    summary="a recurrent operator or a loop, which has no kernel for WebGPU",
    why="ONNX Runtime Web computes it in WebAssembly and copies its inputs and outputs between GPU and CPU at each "
    "run, so that a recurrent model is slower than without WebGPU unless other layers dominate.  Graph capture, "
    "which needs every node on the GPU, refuses it.",
    fix='open it with executionProviders: ["wasm"]',
    source="by documentation: github.com/microsoft/onnxruntime, js/web/docs/webgpu-operators.md (commit 0182dd3) and "
    "core/providers/webgpu/webgpu_execution_provider.cc (commit 003f772) list none of them",
)
WEB_FLOAT64 = rule(
    "LO623",
    "web-float64",
    "error",
    target="web",
    summary="a recurrent operator of float64, which ONNX Runtime Web does not have",
    why="As on ONNX Runtime's CPU, the session opens and every run fails.  Scans of float64 run.",
    fix='export the model with target="web", which writes such layers as Scans, or as float32',
    source="run with ONNX Runtime Web 1.30",
)


@applies(WEB_FLOAT64)
def web_float64(context: CheckContext) -> Iterator[Finding]:
    """Operators whose weights are float64."""
    for node in context.float64_layers:
        if is_onnx_operator(node):
            yield WEB_FLOAT64.violated(node, f"ONNX Runtime Web has no {node.op_type} of float64")


@applies(WEB_EXTERNAL_DATA)
def web_external_data(context: CheckContext) -> Iterator[Finding]:
    """Tensors in a separate file."""
    names = [name for name, tensor in stored_tensors(context.model) if tensor.data_location == TensorProto.EXTERNAL]
    if names:
        yield WEB_EXTERNAL_DATA.violated(names[0], f"{len(names)} tensors are in another file")


@applies(WEBGPU_RECURRENT)
def webgpu_recurrent(context: CheckContext) -> Iterator[Finding]:
    """Operators without a kernel."""
    found = [node for _, node in context.onnx_nodes(*OVER_STEPS)]
    if found:
        kinds = ", ".join(sorted({node.op_type for node in found}))
        yield WEBGPU_RECURRENT.violated(found[0], f"{len(found)} operators ({kinds}) run in WebAssembly")

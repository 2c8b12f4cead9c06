"""The rules on where recurrent operators run: what CUDA lacks, what precision costs on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ...onnxgraph import Scope, attributes_of, is_default, text, typed
from ..context import PEEPHOLES, QUANTISED, Subject, input_of, label, stored
from ..graph import ONNX_ERRORS
from ..report import Finding, failed

_ACTIVATIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
"""Those that CUDA's recurrent layers have, for one direction."""
_NEW_OPSET = 22
_ON_CPU = "run it on the CPU (--provider cpu)"
_FOLD = f'export again with projection = "fold" for CUDA, or {_ON_CPU}, where a Scan is the faster way'
_WEIGHTS_AT = {QUANTISED: (1, 2), "MatMulInteger": (1,), "DynamicQuantizeMatMul": (1,), "QLinearMatMul": (3,)}
_SAFE_INT8 = 64
"""Weights of 7 bits do not saturate: 2 * 255 * 64 fits into 16 bits."""


def opset_on_cuda(subject: Subject) -> Iterator[Finding]:
    """Opset 22's new versions of the recurrent operators."""
    opset = subject.opset()
    nodes = [label(node) for _, node in subject.recurrent] if opset >= _NEW_OPSET else []
    if nodes:
        message = f"opset {opset}: {len(nodes)} recurrent operators may run on the CPU of a CUDA session"
        yield failed("opset-on-cuda", nodes[0], message)


def variant_on_cuda(subject: Subject) -> Iterator[Finding]:
    """What cuDNN's recurrent layers do not compute."""
    for _, node in subject.recurrent:
        said = _variants(node)
        if said:
            message = f"{node.op_type} with {', '.join(said)} does not run on CUDA"
            yield failed("variant-on-cuda", label(node), message, _for_cuda(said))
    for _, node in subject.nodes:
        if node.op_type == QUANTISED:
            message = f"{QUANTISED} has a kernel on the CPU alone"
            yield failed("variant-on-cuda", label(node), message, f"{_ON_CPU}, or take the float file for a GPU")


def _for_cuda(variants: Sequence[str]) -> str:
    """What would have to be otherwise, by what the node has."""
    ways: dict[str, None] = {}
    for said in variants:
        if said == "clip":
            ways["leave clip out where nothing reaches it"] = None
        elif said == "linear_before_reset 0":
            ways["train with linear_before_reset=1, which is nn.GRU's kind"] = None
        else:
            ways["train with the default activations, and without input_forget and peepholes, as nn.LSTM is"] = None
    return f"{_ON_CPU}; for a GPU, {', and '.join(ways)}"


def _variants(node: NodeProto) -> list[str]:
    """As ONNX Runtime's CUDA provider asks (RNNNeedFallbackToCPU in its cuda_execution_provider.cc)."""
    given = attributes_of(node)
    said: list[str] = [name for name in ("clip", "activation_alpha", "activation_beta") if name in given]
    said += ["input_forget"] if given.get("input_forget") else []
    names = tuple(text(item).lower() for item in typed(given, "activations", list))
    usual = _ACTIVATIONS[node.op_type]
    if names and names != (usual * len(names))[: len(names)]:
        said.append(f"the activations {', '.join(dict.fromkeys(names))}")
    if node.op_type == "LSTM" and input_of(node, PEEPHOLES):
        said.append("peepholes")
    if node.op_type == "GRU" and not given.get("linear_before_reset"):
        said.append("linear_before_reset 0")
    return said


def loop_on_cuda(subject: Subject) -> Iterator[Finding]:
    """Steps that the host starts one by one."""
    for _, node in subject.nodes:
        if node.op_type in ("Scan", "Loop") and is_default(node.domain):
            message = f"{node.op_type} runs step by step from the host"
            yield failed("loop-on-cuda", label(node), message, _FOLD if _is_our_projection(subject, node) else "")


def _is_our_projection(subject: Subject, node: NodeProto) -> bool:
    """Whether it is the Scan of a projected LSTM that lstm-onnx wrote, which has another form."""
    if not subject.ours or node.op_type != "Scan":
        return False
    bodies = [attribute.g for attribute in node.attribute if attribute.name == "body"]
    names = (name for body in bodies for step in body.node for name in step.input)
    return any(name.rpartition("/")[2].startswith("W_hr") for name in names)


def precision(subject: Subject) -> Iterator[Finding]:
    """float64 and float16 on the CPU, bfloat16 anywhere."""
    half: list[str] = []
    for scope, node in subject.recurrent:
        dtype = scope.dtype(input_of(node, 0))
        dtype = scope.weight(input_of(node, 1)).dtype if dtype == "unknown" and input_of(node, 1) else dtype
        if dtype == "bfloat16":
            yield failed("bfloat16", label(node), f"{node.op_type} is bfloat16, for which ONNX Runtime has no kernel")
        if dtype == "float64" and subject.provider == "cpu":
            yield failed(
                "float64-on-cpu", label(node), f"{node.op_type} is float64: it opens on the CPU and cannot run"
            )
        half += [label(node)] if dtype == "float16" and subject.provider == "cpu" else []
    if half:
        yield failed("float16-on-cpu", half[0], f"{len(half)} recurrent operators are float16: no faster on the CPU")


def int8_saturation(subject: Subject) -> Iterator[Finding]:
    """int8 weights of 8 bits in full, on a CPU without VNNI."""
    if subject.provider != "cpu" or not saturates():
        return
    largest = _int8_magnitudes(subject.model)
    for scope, node in subject.nodes:
        names = [_origin(scope, input_of(node, at)) for at in _WEIGHTS_AT.get(node.op_type, ())]
        if max((largest.get(name, 0) for name in names), default=0) > _SAFE_INT8:
            message = f"{node.op_type} has int8 weights, and this CPU (no VNNI) saturates their products"
            yield failed("int8-saturation", label(node), message)


def _origin(scope: Scope, name: str) -> str:
    return scope.source(name)[0] if name else ""


def _int8_magnitudes(model: ModelProto) -> dict[str, int]:
    """The largest magnitude in each int8 tensor; 127 where its numbers lie in another file."""
    found: dict[str, int] = {}
    for name, tensor in stored(model):
        if tensor.data_type != TensorProto.INT8 or not tensor.dims:
            continue
        try:
            external = tensor.data_location == TensorProto.EXTERNAL
            found[name] = (
                127 if external else int(np.max(np.abs(numpy_helper.to_array(tensor).astype(np.int16)), initial=0))
            )
        except ONNX_ERRORS:
            continue  # damaged; onnx's checker says so
    return found


def saturates() -> bool:
    """Whether this CPU is known to add int8 products in 16 bits: an x86 with AVX2 and without VNNI."""
    flags = cpu_flags()
    return "avx2" in flags and not flags & {"avx_vnni", "avx512_vnni"}


@cache
def cpu_flags() -> frozenset[str]:
    """What Linux says that an x86 CPU can do; empty on another system or another CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))

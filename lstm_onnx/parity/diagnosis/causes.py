"""Causes that follow from the sizes that run, the file's operators, and the magnitude of the error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from onnx import ModelProto

from ...onnxgraph.load import opset_of
from ...runtime import Model
from ...runtime.providers import onnxruntime, ort_errors, placements
from ..expected import Arrays, Expected
from ..mutants import folder_of, read_graph
from ..report import Cause
from ..tolerances import SAME_CAUSE_FACTOR, SATURATION_REMAINDER

_QUANTIZED = frozenset({"DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "QLinearMatMul", "QGemm"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_CPU_SINCE = 22
"""The opset with new versions of LSTM, GRU and RNN, which ONNX Runtime's CUDA provider may lack (PR 27728)."""


def baked_sizes(passed: Sequence[Mapping[str, int]], failed: Sequence[Mapping[str, int]]) -> Iterator[Cause]:
    """Axes of which only one size works, from the sizes of the cases that ran and of those that did not."""
    for axis in dict.fromkeys(name for sizes in failed for name in sizes):
        works = {sizes[axis] for sizes in passed if axis in sizes}
        fails = {sizes[axis] for sizes in failed if axis in sizes}
        if len(works) == 1 and not works & fails:
            yield Cause(
                f"baked shape: {axis}",
                f"it runs where {axis} is {works.pop()}, and not where it is {', '.join(map(str, sorted(fails)))}",
                f"lstm-onnx check says where a size of {axis} is written into the file; export it with that axis open",
            )


def mispaired(states: Mapping[str, str], right: Mapping[str, str]) -> Iterator[Cause]:
    """Streams that fail where single runs pass, because the file's metadata pairs states with the wrong outputs."""
    wrong = {name: output for name, output in states.items() if right.get(name, output) != output}
    if wrong:
        actual = ", ".join(f"{name} from {output}" for name, output in wrong.items())
        pairs = ", ".join(f"{name} from {right[name]}" for name in wrong)
        yield Cause(
            "state order: streams",
            f"single runs are right, and streams continue with {actual}",
            f"it must be {pairs}, in the metadata lstm_onnx.states or in load's states",
        )


def from_the_file(model: Model, expected: Expected) -> Iterator[Cause]:
    """Causes that follow from a file's operators and from where they ran, in a case of one call."""
    graph = read_graph(model)
    feeds = model.completed(dict(expected.calls[0].feeds))
    yield from quantized(
        model,
        graph,
        largest_error(expected, model.run(feeds)),
        lambda: largest_error(expected, run_precisely(model, graph, feeds)),
    )
    yield from left_gpu(model, graph)


def largest_error(expected: Expected, outputs: Arrays) -> float:
    """The largest error of all floating-point outputs; infinite where there is none."""
    reference = expected.calls[0].reference
    errors = [
        float(np.abs(outputs[name] - wanted).max(initial=0.0))
        for name, wanted in reference.items()
        if name in outputs and wanted.dtype.kind == "f"
    ]
    return max(errors, default=math.inf)


def quantized(model: Model, graph: ModelProto, error: float, precisely: Callable[[], float]) -> Iterator[Cause]:
    """int8 operators, and whether their sums saturate.

    Args:
        model: the file, open.
        graph: the same as a graph.
        error: the largest error of a failing case.
        precisely: computes the same with 8-bit products summed in full.
    """
    found = sorted({node.op_type for node in graph.graph.node} & _QUANTIZED)
    if not found or model.provider != "cpu":
        return
    precise = precisely()
    if precise <= SATURATION_REMAINDER * error:
        yield Cause(
            "saturated int8",
            f"{', '.join(found)} is off by {error:.3g}, and by {precise:.3g} with session.x64quantprecision=1",
            "sums of 8-bit products saturate on this CPU (no VNNI): set session.x64quantprecision=1, or quantize with "
            "reduce_range=True",
        )
    else:
        yield Cause(
            "int8 weights",
            f"{', '.join(found)} is off by {error:.3g}, and by {precise:.3g} with 8-bit products summed in full",
            "a quantized file does not have float32's precision; compare it with a tolerance of its own, or export in "
            "float32",
        )


def run_precisely(model: Model, graph: ModelProto, feeds: Arrays) -> dict[str, np.ndarray]:
    """The outputs of a file on the CPU with 8-bit products summed in full; empty where it does not run like that."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder_of(model))
    try:
        session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return dict(zip(model.outputs, session.run(list(model.outputs), dict(feeds)), strict=True))
    except ort_errors():
        return {}


def left_gpu(model: Model, graph: ModelProto) -> Iterator[Cause]:
    """Recurrent operators of a CUDA session that run on the CPU, and the opset as its cause."""
    if model.provider != "cuda":
        return
    nodes = [
        item.node for item in placements(model.session) if item.op_type in _RECURRENT and "CUDA" not in item.provider
    ]
    version = opset_of(graph)
    if not nodes:
        return
    evidence = f"{', '.join(nodes[:4])} ran on the CPU in a CUDA session"
    fix = "lstm-onnx check --provider cuda --require reports why each node left the GPU"
    if version >= _CPU_SINCE:
        evidence += f", and the file's opset is {version}"
        fix = "export at opset 18: the CUDA provider has LSTM-14"
    yield Cause("opset fallback", evidence, fix)


def tf32(dtype: str, error: float, simulated: float) -> Iterator[Cause]:
    """TF32 as the cause, if an error on CUDA is about as large as that of products of 10-bit fractions.

    Args:
        dtype: the model's.
        error: the largest error of a failing case.
        simulated: the largest error of PyTorch with weights and inputs rounded to TF32's 10 bits.
    """
    if dtype == "float32" and simulated > 0 and 1 / SAME_CAUSE_FACTOR <= error / simulated <= SAME_CAUSE_FACTOR:
        yield Cause(
            "TF32",
            f"on CUDA it is off by {error:.3g}; weights and inputs rounded to TF32's 10 bits make {simulated:.3g}",
            "set NVIDIA_TF32_OVERRIDE=0, or the CUDA provider's use_tf32=0",
        )

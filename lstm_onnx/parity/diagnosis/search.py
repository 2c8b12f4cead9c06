"""Searches for the place where a file first differs from PyTorch, and for the likely causes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto
from torch import nn

from ...errors import ExportError, InputError, RunError
from ...exporter.weights import StateDict
from ...input_spec import InputSpec, named_sizes
from ...onnxgraph.load import opset_of
from ...runtime import Model
from ...runtime.providers import onnxruntime, ort_errors, placements
from ..comparison import Comparison, Models
from ..expected import Arrays, Expected, first_difference
from ..mutants.self_test import folder_of, read_graph
from ..results import Cause, Location
from ..tolerances import SAME_CAUSE_FACTOR, SATURATION_REMAINDER
from .fault_models import FaultModel, Run, changed_parameters, parameters_of, run_with

SINGLE = ("whole", "data", "steps")
"""Kinds of cases that are one run on ordinary values."""
_NOT_THE_GATES = ("states", "state order", "direction: ", "lengths")
"""Causes outside of the gates."""
_MOST_CASES = 16
_MOST_FAULTS = 3


@dataclass(frozen=True)
class Suspect:
    """A recurrent module in which a mistake may be.

    Attributes:
        faults: the mistakes to try.
        module: the module, of a comparison's models, whose weights they change.
        run: runs PyTorch on the file's inputs, with that module.
        where: the module's place in a larger one, such as " in encoder.lstm".
    """

    faults: Iterable[FaultModel]
    module: Callable[[Models[Any]], nn.Module]
    run: Callable[[Models[Any]], Run]
    where: str = ""


def diagnose(
    compared: Sequence[Comparison],
    specs: Sequence[InputSpec],
    state_pairs: Mapping[str, str],
    *,
    located: Callable[[Comparison, Location], Location],
    suspects: Callable[[Location], Iterator[Suspect]],
    from_the_file: Callable[[Comparison], Iterator[Cause]],
) -> tuple[Location | None, tuple[Cause, ...]]:
    """The location of the first difference, and the likely causes, as far as they can be determined.

    Args:
        compared: the comparisons in which to look for a difference.
        specs: the inputs that are not states.
        state_pairs: the states of PyTorch, and the outputs that update them.
        located: the location with more details of where the file first differs, from a comparison of a single run.
        suspects: recurrent modules, with the mistakes in them that may explain the difference.
        from_the_file: causes that follow from the file, from a comparison of a single run.
    """
    wrong = [done for done in compared if not done.result.passed and not done.result.inconclusive]
    location = first_difference([(done.expected, done.result) for done in wrong])
    found = list(baked_sizes(*_sizes(specs, compared)))
    numbers = [done for done in wrong if _has_numbers(done)]
    # Extreme values explain little, but they may be all that fails.
    numbers = [done for done in numbers if done.expected.kind in SINGLE] or numbers
    if wrong and not numbers:
        found += mispaired(wrong[0].models.file.states, state_pairs)
    if location is not None and numbers:
        first = next((done for done in numbers if done.result.label == location.case), numbers[0])
        location = located(first, location)
        found += _from_numbers(suspects(location), numbers)
        found += from_the_file(numbers[0])
    if location is not None and any(cause.name.startswith(_NOT_THE_GATES) for cause in found):
        location = replace(location, gate=None)
    return location, tuple(found)


def _is_one_run(done: Comparison) -> bool:
    """Whether the file is run once on ordinary or extreme values, not through a stream or a pool."""
    return len(done.expected.calls) == 1 and done.expected.kind in (*SINGLE, "values")


def _has_numbers(done: Comparison) -> bool:
    tensors = done.result.tensors
    return _is_one_run(done) and bool(tensors) and not any(tensor.mismatched for tensor in tensors)


def _sizes(
    specs: Sequence[InputSpec], compared: Sequence[Comparison]
) -> tuple[list[Mapping[str, int]], list[Mapping[str, int]]]:
    """The sizes of the named axes in the single runs with outputs of the right shape, and in the others."""
    passed: list[Mapping[str, int]] = []
    failed: list[Mapping[str, int]] = []
    for done in compared:
        if _is_one_run(done) and done.expected.kind != "steps":
            shapes = any(tensor.problem.startswith("has shape") for tensor in done.result.tensors)
            sizes = named_sizes(specs, done.expected.calls[0].feeds)
            (failed if done.result.error or shapes else passed).append(sizes)
    return passed, failed


def _simple_first(done: Comparison) -> tuple[bool, int, bool, int]:
    """Sort key: without lengths before with, without states before with, several steps before one."""
    feeds = done.expected.calls[0].feeds
    first = next(iter(feeds.values()))
    return "lengths" in feeds, len(feeds), math.prod(first.shape[:2]) < 3, -first.size


def _from_numbers(suspects: Iterator[Suspect], wrong: Sequence[Comparison]) -> list[Cause]:
    """Mistakes in one suspect that give the file's numbers in all cases that fail; empty if none do.

    Simple cases come first, so that of two faults, the one that needs no states and no lengths is found first, and the
    other is then searched for in combination with it.
    """
    evidence = []
    for done in sorted(wrong, key=_simple_first)[:_MOST_CASES]:
        try:
            evidence.append((done, done.models.file.run(done.expected.calls[0].feeds)))
        except (InputError, RunError):
            continue
    found = (_explained(suspect, evidence) for suspect in (suspects if evidence else ()))
    return next(filter(None, found), [])


def _explained(suspect: Suspect, evidence: Sequence[tuple[Comparison, Arrays]]) -> list[Cause]:
    rights = {id(done.models): parameters_of(suspect.module(done.models)) for done, _ in evidence}
    catalogue = list(suspect.faults)
    faults: list[FaultModel] = []
    found: list[Cause] = []
    left = evidence
    while left:
        chosen, rest = None, left
        for one in catalogue:
            if len(rest) and _explains(suspect, (*faults, one), *left[0], rights):
                unexplained = [item for item in left if not _explains(suspect, (*faults, one), *item, rights)]
                if len(unexplained) < len(rest):
                    chosen, rest = one, unexplained
        if chosen is None or len(faults) == _MOST_FAULTS:
            return []
        faults.append(chosen)
        also = " and the one before" if len(faults) > 1 else ""
        evidence_text = f"PyTorch with this mistake{also}{suspect.where} gives the file's numbers"
        found.append(Cause(chosen.name, f"{evidence_text} in {len(left) - len(rest)} of {len(left)} cases", chosen.fix))
        left = rest
    return found


def _explains(
    suspect: Suspect, faults: tuple[FaultModel, ...], done: Comparison, actual: Arrays, rights: Mapping[int, StateDict]
) -> bool:
    """Whether PyTorch with these faults gives the file's outputs; `rights` are the right weights by models."""
    module, right = suspect.module(done.models), rights[id(done.models)]
    wrong = functools.reduce(lambda state, fault: fault.weights(state), faults, right)
    with changed_parameters(module, right, wrong):
        try:
            predicted = run_with(faults, suspect.run(done.models))(module, done.expected.calls[0].feeds)
        except ExportError:
            return False
    return done.expected.as_if(predicted).judge([actual]).passed


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
                f"it runs if {axis} is {works.pop()}, and not if it is {', '.join(map(str, sorted(fails)))}",
                f"lstm-onnx check says where a size of {axis} is fixed in the file; export it with that axis dynamic",
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


def causes_of_the_file(done: Comparison) -> Iterator[Cause]:
    """Causes that follow from a file's operators and from where they ran, in a case of one call."""
    model, expected = done.models.file, done.expected
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
    """The largest error of all floating-point outputs; infinite if there are none."""
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
        graph: its graph.
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

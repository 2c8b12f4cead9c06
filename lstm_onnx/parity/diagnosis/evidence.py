"""Where a file first differs from a bare nn.LSTM, and the likely causes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...errors import InputError, RunError
from ...exporter.weights import StateDict
from ...spec import LSTMSpec
from ..expected import first_difference
from ..lstm_reference import Outputs, run_torch
from ..report import Cause, Location
from . import causes
from .fault_models import FaultModel, changed_parameters, fault_models, parameters_of, rounded, run_with
from .locate import locate

if TYPE_CHECKING:
    from ..comparison import Comparison

PLAIN = ("whole", "data", "steps")
"""Kinds of cases that are one run."""
_NOT_THE_GATES = ("states", "state order", "direction: ", "lengths")
"""Causes outside of the gates."""
_MOST_CASES = 12
_MOST_FAULTS = 3


def diagnose(spec: LSTMSpec, compared: Sequence[Comparison]) -> tuple[Location | None, tuple[Cause, ...]]:
    """The location of the first difference, and the likely causes.

    Args:
        spec: the LSTM's sizes.
        compared: all cases that were run.
    """
    wrong = [done for done in compared if not done.result.passed and not done.result.inconclusive]
    location = first_difference([(done.expected, done.result) for done in wrong])
    numbers = [done for done in wrong if done.result.tensors and done.expected.kind in PLAIN]
    if location is not None and numbers:
        first = next((done for done in numbers if done.result.label == location.case), numbers[0])
        location = locate(first.models, spec, first.case, location)
    found = list(causes.baked_sizes(*_sizes(spec, compared)))
    ran = [done for done in numbers if not any(t.mismatched for t in done.result.tensors)]
    if ran:
        found += _from_numbers(spec, ran, location)
        found += _from_the_file(spec, ran[0])
    if wrong and not numbers:
        found += causes.mispaired(wrong[0].models.file.states, {"h0": "hn", "c0": "cn"})
    if location is not None and any(cause.name.startswith(_NOT_THE_GATES) for cause in found):
        location = replace(location, gate=None)
    return location, tuple(found)


def _sizes(spec: LSTMSpec, compared: Sequence[Comparison]) -> tuple[list[Mapping[str, int]], list[Mapping[str, int]]]:
    """Batch and time of the single runs with outputs of the right shape, and of the others."""
    passed: list[Mapping[str, int]] = []
    failed: list[Mapping[str, int]] = []
    for done in compared:
        if done.expected.kind not in ("whole", "data"):
            continue
        first, second = done.case.input.shape[:2]
        sizes = {"batch": first, "time": second} if spec.batch_first else {"batch": second, "time": first}
        shapes = any(tensor.problem.startswith("has shape") for tensor in done.result.tensors)
        (failed if done.result.error or shapes else passed).append(sizes)
    return passed, failed


def _simple_first(done: Comparison) -> tuple[bool, bool, bool, int]:
    """Sort key: without lengths before with, without states before with, several steps before one."""
    case = done.case
    return (
        case.lengths is not None,
        case.states is not None,
        case.input.shape[0] * case.input.shape[1] < 3,
        -case.input.size,
    )


def _from_numbers(spec: LSTMSpec, wrong: Sequence[Comparison], location: Location | None) -> list[Cause]:
    """Fault models that give the file's numbers in all cases that fail; empty where none do.

    Simple cases come first, so that of two faults the one that needs no states and no lengths is found before the
    other, which is then searched for in combination with it.
    """
    evidence = []
    for done in sorted(wrong, key=_simple_first)[:_MOST_CASES]:
        try:
            evidence.append((done, done.models.file.run(done.case.feeds())))
        except (InputError, RunError):
            continue
    layer = None if location is None else location.layer
    direction = None if location is None or location.direction is None else int(location.direction == "reverse")
    rights = {id(done.models): parameters_of(done.models.float64) for done, _ in evidence}
    faults: list[FaultModel] = []
    found = []
    left = evidence
    while left:
        chosen, rest = None, left
        for one in fault_models(spec, layer, direction):
            if len(rest) and _explains((*faults, one), *left[0], rights):
                unexplained = [item for item in left if not _explains((*faults, one), *item, rights)]
                if len(unexplained) < len(rest):
                    chosen, rest = one, unexplained
        if chosen is None or len(faults) == _MOST_FAULTS:
            return []
        faults.append(chosen)
        also = " and the one before" if len(faults) > 1 else ""
        evidence_text = f"PyTorch with this mistake{also} gives the file's numbers"
        found.append(Cause(chosen.name, f"{evidence_text} in {len(left) - len(rest)} of {len(left)} cases", chosen.fix))
        left = rest
    return found


def _explains(
    faults: tuple[FaultModel, ...], done: Comparison, actual: Mapping[str, np.ndarray], rights: Mapping[int, StateDict]
) -> bool:
    """Whether an LSTM with these faults gives the file's outputs; `rights` are the right weights by models."""
    module, right = done.models.float64, rights[id(done.models)]
    wrong = functools.reduce(lambda state, fault: fault.weights(state), faults, right)
    with changed_parameters(module, right, wrong):
        predicted = run_with(faults)(module, done.case)
    return done.expected.as_if(predicted).judge([actual]).passed


def _from_the_file(spec: LSTMSpec, done: Comparison) -> Iterator[Cause]:
    """Causes that follow from the file's operators and from where they ran, with the error in a case."""
    yield from causes.from_the_file(done.models.file, done.expected)
    if done.models.file.provider == "cuda":
        error, simulated = (
            causes.largest_error(done.expected, outputs)
            for outputs in (done.models.file.run(done.case.feeds()), _in_tf32(done))
        )
        yield from causes.tf32(spec.dtype, error, simulated)


def _in_tf32(done: Comparison) -> Outputs:
    """The outputs of the float64 LSTM with weights and inputs rounded as cuDNN's tensor cores round them."""
    module = copy.deepcopy(done.models.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(rounded(parameter.numpy(), 10)))
    return run_torch(module, replace(done.case, input=rounded(done.case.input, 10)))

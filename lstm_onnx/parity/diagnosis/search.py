"""Where a file first differs from PyTorch, and the likely causes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from ...errors import ExportError, InputError, RunError
from ...exporter.weights import StateDict
from ..expected import Arrays, first_difference
from ..report import Cause, Location
from . import causes
from .fault_models import FaultModel, Run, changed_parameters, parameters_of, run_with

if TYPE_CHECKING:
    from ..comparison import Comparison, Models, Verification

SINGLE = ("whole", "data", "steps")
"""Kinds of cases that are one run on ordinary values."""
_NOT_THE_GATES = ("states", "state order", "direction: ", "lengths")
"""Causes outside of the gates."""
_MOST_CASES = 12
_MOST_FAULTS = 3


@dataclass(frozen=True)
class Suspect:
    """A recurrent module in which a mistake may be.

    Attributes:
        faults: the mistakes to try.
        module: the module, of a comparison's models, whose weights they change.
        run: how PyTorch is run on the file's inputs, with that module.
        where: names the module in a larger one, as in " in encoder.lstm".
    """

    faults: Iterable[FaultModel]
    module: Callable[[Models[Any]], nn.Module]
    run: Callable[[Models[Any]], Run]
    where: str = ""


def diagnose(verification: Verification) -> tuple[Location | None, tuple[Cause, ...]]:
    """The location of the first difference, and the likely causes, as far as they can be determined."""
    compared = verification.to_diagnose
    wrong = [done for done in compared if not done.result.passed and not done.result.inconclusive]
    location = first_difference([(done.expected, done.result) for done in wrong])
    found = list(causes.baked_sizes(*_sizes(verification, compared)))
    numbers = [done for done in wrong if _has_numbers(done)]
    # Extreme values explain little, but may be all that is wrong.
    numbers = [done for done in numbers if done.expected.kind in SINGLE] or numbers
    if wrong and not numbers:
        found += causes.mispaired(wrong[0].models.file.states, verification.state_pairs)
    if location is not None and numbers:
        first = next((done for done in numbers if done.result.label == location.case), numbers[0])
        location = verification.located(first, location)
        found += _from_numbers(verification.suspects(location), numbers)
        found += verification.causes_of_the_file(numbers[0])
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
    verification: Verification, compared: Sequence[Comparison]
) -> tuple[list[Mapping[str, int]], list[Mapping[str, int]]]:
    """The sizes of the named axes in the single runs with outputs of the right shape, and in the others."""
    passed: list[Mapping[str, int]] = []
    failed: list[Mapping[str, int]] = []
    for done in compared:
        if _is_one_run(done) and done.expected.kind != "steps":
            shapes = any(tensor.problem.startswith("has shape") for tensor in done.result.tensors)
            sizes = verification.named_sizes(done.expected.calls[0].feeds)
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

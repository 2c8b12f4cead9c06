"""Would a verification have caught a wrong file?  It is tried on wrong copies of the file at hand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from ...errors import ConfigError, LSTMOnnxError, shown
from ...runtime import Model
from ..expected import Expected
from ..replay import replay
from ..report import MutantResult, Range
from .catalogue import MUTATORS, Mutator
from .copies import folder_of, opened, read_graph
from .graph_edit import Edit, Shapes, known_shapes
from .outcome import Outcome

LEVELS = ("none", "quick", "all")
"""No self-test; one mutant of each kind; every kind at every recurrent layer."""
_SEVERAL = range(5, 17)
"""Time steps of a case that tells much and costs little."""


def require_level(level: str) -> None:
    """Refuse what is none of `LEVELS` (ConfigError)."""
    if not isinstance(level, str) or level not in LEVELS:
        raise ConfigError(f"mutants = {shown(level)} is not known; it must be one of {', '.join(LEVELS)}")


@dataclass(frozen=True)
class Subject:
    """A right file, open and as a graph, and what is expected of it."""

    model: Model
    proto: onnx.ModelProto
    expected: Sequence[Expected]


def mutated(
    proto: onnx.ModelProto,
    mutator: Mutator,
    site: int = 0,
    folder: str = "",
    shapes: Shapes | None = None,
    ranges: Sequence[Range] = (),
) -> tuple[Outcome, onnx.ModelProto]:
    """A copy of `proto` with a mistake in its recurrent layer number `site`, and what came of making it.

    `folder` is where its external data lies, `shapes` are those of `known_shapes`, for proofs, and `ranges` what
    the right file was compared at, which some mistakes are made within.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    edit = Edit(copy, folder, shapes, ranges)
    outcome = mutator.apply(edit, edit.sites[site])
    edit.sort()
    return outcome, copy


def self_test(
    model: Model,
    expected: Sequence[Expected],
    level: str = "quick",
    seed: int = 0,
    *,
    loud: Subject | None = None,
    ranges: Sequence[Range] = (),
) -> Iterator[MutantResult]:
    """Whether what is `expected` of the file of `model` rejects its mutants, one by one.

    Args:
        model: open; its file is read again.
        expected: cases of a verification that the file passed.
        level: one of `LEVELS`.
        seed: of a quick self-test, which layer is changed where there are several.
        loud: the same with the weights made loud, where the verification compared that too.
        ranges: what the file was compared at; without them mistakes that show only somewhere are left out.

    Yields:
        A result for each.

    Raises:
        ConfigError: `level` is no level.
    """
    require_level(level)
    if level == "none":
        return
    proto, folder = read_graph(model), folder_of(model)
    subjects = [Subject(model, proto, _telling_first(expected))]
    if loud is not None:
        subjects.append(replace(loud, expected=_telling_first(loud.expected)))
    shapes = known_shapes(proto)
    names = [site.name for site in Edit(proto, folder).sites]
    for number, mutator in enumerate(MUTATORS):
        if level == "quick" and not mutator.quick:
            continue
        # From another layer on each time, so that a quick self-test reaches all of them.
        for turn in range(len(names)):
            at = (seed + number + turn) % len(names)
            result = _result(subjects, mutator, at, folder, shapes, ranges)
            if result is None:
                continue
            alone = len(names) == 1 or mutator.whole
            yield replace(result, name=mutator.name if alone else f"{mutator.name}, {names[at]}")
            if level == "quick" or mutator.whole:
                break


def _telling_first(expected: Sequence[Expected]) -> list[Expected]:
    """The cases that say something; those of several rows and steps with states before all others, small ones first."""

    def order(case: Expected) -> tuple[bool, bool, int, int]:
        feeds = case.calls[0].feeds
        size = max((array.size for array in feeds.values()), default=0)

        def largest(axes: Mapping[str, int]) -> int:
            return max((array.shape[axes[name]] for name, array in feeds.items() if name in axes), default=1)

        several = largest(case.batch_axes) > 1 and largest(case.time_axes) in _SEVERAL
        return case.kind not in ("whole", "data"), not several, -len(feeds), size

    return sorted((case for case in expected if not case.inconclusive), key=order)


def _result(
    subjects: Sequence[Subject], mutator: Mutator, at: int, folder: str, shapes: Shapes, ranges: Sequence[Range]
) -> MutantResult | None:
    """What the cases make of a mutant; None where there is none, or no case that could see it."""
    nearest: MutantResult | None = None
    for subject in subjects:
        cases = [case for case in subject.expected if case.kind in ("chunks", "pool") or not mutator.streams]
        if not cases:
            continue
        # What shows first costs least: the order of the others stays as it is.
        cases.sort(key=lambda case: case.kind not in mutator.kinds)
        outcome, copy = mutated(subject.proto, mutator, at, folder, shapes, ranges)
        if outcome.reason:
            return MutantResult("", "equivalent", 0.0, "", outcome.reason)
        if not outcome.applied:
            return None
        tried = _tried(subject.model, copy, cases)
        if tried.outcome == "rejected":
            return tried
        if nearest is None or tried.ratio >= nearest.ratio:
            nearest = tried
    return nearest


def _tried(model: Model, copy: onnx.ModelProto, cases: Sequence[Expected]) -> MutantResult:
    """The first case that rejects a copy, or the one that came nearest to."""
    try:
        mutant = opened(model, copy)
    except LSTMOnnxError:
        return MutantResult("", "rejected", math.inf, "opening it")
    nearest = MutantResult("", "survived", 0.0, "")
    for expected in cases:
        result = replay(mutant, expected)
        ratio = math.inf if result.error else max((_number(tensor.ratio) for tensor in result.tensors), default=0.0)
        if not result.passed:
            return MutantResult("", "rejected", ratio, result.label)
        if ratio >= nearest.ratio:
            nearest = replace(nearest, ratio=ratio, case=result.label)
    return nearest


def _number(ratio: float) -> float:
    return math.inf if math.isnan(ratio) else ratio

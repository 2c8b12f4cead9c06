"""The self-test: would the verification have caught a wrong file?  It is repeated on mutants of the file."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import onnx

from ...errors import ConfigError, LSTMOnnxError, shown
from ...runtime import Model
from ...runtime.providers import open_session
from ..expected import Expected, steady_outputs
from ..replay import replay
from ..results import MutantResult, Range
from ..runtimes import engine_of, session_like
from .catalogue import MUTATORS, Mutator
from .effect import Shapes, changed_outputs, same_by_graph
from .equivalence import Outcome, equivalent
from .graph_edit import Edit, known_shapes
from .unread import NUMBERS, Replace, same_outputs

LEVELS = ("none", "quick", "all")
"""No self-test; one mutant of each kind; every kind in every recurrent layer."""
_SEVERAL = range(5, 17)
"""Time steps of a case that is sensitive and cheap."""


def read_graph(model: Model) -> onnx.ModelProto:
    """The graph of the file of `model`, without its external data."""
    return onnx.load(os.path.realpath(model.path), load_external_data=False)


def folder_of(model: Model) -> str:
    """The folder of the file's external data."""
    return os.path.dirname(os.path.realpath(model.path))  # noqa: PTH120


def opened(model: Model, proto: onnx.ModelProto, *, on_engine: bool = True) -> Model:
    """A copy of a file, opened on the engine (or else in ONNX Runtime) and provider of `model`, with its state pairs.

    It has one thread: a pool with more would open the file again, and a copy has none.

    Raises:
        LSTMOnnxError: it cannot be opened.
    """
    content, folder = proto.SerializeToString(), folder_of(model)
    if on_engine:
        session, provider = session_like(model, content, folder)
    else:
        session, provider = open_session(content, model.provider, 1, folder=folder)
    states = None if model.states == model.metadata.states else model.states
    return Model(model.path, session, provider, states, 1)


def require_level(level: str) -> None:
    """Check that `level` is one of `LEVELS`.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(level, str) or level not in LEVELS:
        raise ConfigError(f"mutants = {shown(level)} is not known; it must be one of {', '.join(LEVELS)}")


@dataclass(frozen=True)
class Target:
    """A right file to make mutants of, open and as a graph, and its cases."""

    model: Model
    proto: onnx.ModelProto
    expected: Sequence[Expected]

    def on_onnxruntime(self) -> Target:
        """The same in ONNX Runtime, where another engine runs it.

        Mutants show whether the cases would have rejected a wrong file.  An engine that ignores an attribute, such as a
        direction, would run a mutant of it as if it were right.
        """
        if engine_of(self.model) is None:
            return self
        return replace(self, model=opened(self.model, self.proto, on_engine=False))


def mutated(
    proto: onnx.ModelProto,
    mutator: Mutator,
    layer: int = 0,
    folder: str = "",
    shapes: Shapes | None = None,
    ranges: Sequence[Range] = (),
) -> tuple[Outcome, onnx.ModelProto]:
    """The outcome of a mutator at the recurrent layer number `layer`, and the changed copy of `proto`.

    `folder` has its external data; `shapes` are those of `known_shapes`, for proofs; `ranges` are the sizes and
    values that the right file was compared at, within which some mutants are wrong.
    """
    mutant = deepcopy(proto)
    edit = Edit(mutant, folder, shapes, ranges, inner=not mutator.once)
    # A change outside of the layers needs none.
    outcome = mutator.apply(edit, edit.layers[layer] if edit.layers else None)  # type: ignore[arg-type]
    edit.sort()
    if outcome.applied and same_by_graph(proto, mutant, shapes or {}):
        outcome = equivalent("no output depends on it")
    return outcome, mutant


def self_test(
    model: Model,
    expected: Sequence[Expected],
    level: str = "quick",
    seed: int = 0,
    *,
    amplified: Target | None = None,
    harder: Iterable[Target] = (),
    ranges: Sequence[Range] = (),
) -> Iterator[MutantResult]:
    """Whether the cases reject the mutants of a file, one by one, which run in ONNX Runtime.

    Args:
        model: the file, open; its graph is read again.
        expected: the cases of a verification that the file passed.
        level: one of `LEVELS`.
        seed: chooses the layer that a quick self-test changes where there are several.
        amplified: the file with amplified weights, where the verification has compared it.
        harder: further cases that the file passes, for mutants that no other case rejects; they are made one by one.
        ranges: the sizes and values of the verification; without them, mutants that are wrong only at some are left
            out.

    Yields:
        A result for each mutant.

    Raises:
        ConfigError: `level` is not a level.
    """
    require_level(level)
    if level == "none":
        return
    proto, folder = read_graph(model), folder_of(model)
    first = [Target(model, proto, expected), *([amplified] if amplified is not None else [])]
    targets = _Remembered(
        replace(target.on_onnxruntime(), expected=[_without_curves(one) for one in _sensitive_first(target.expected)])
        for target in itertools.chain(first, harder)
    )
    shapes = known_shapes(proto)
    names = [layer.name for layer in Edit(proto, folder, inner=True).layers]
    for number, mutator in enumerate(MUTATORS):
        if (level == "quick" and not mutator.quick) or not (names or mutator.once):
            continue
        # Starting at another layer each time, so that a quick self-test reaches all of them.
        for offset in range(max(1, len(names))):
            at = (seed + number + offset) % max(1, len(names))
            result = _result(targets, mutator, at, folder, shapes, ranges)
            if result is None:
                continue
            unique = len(names) <= 1 or mutator.once
            yield replace(result, name=mutator.name if unique else f"{mutator.name}, {names[at]}")
            if level == "quick" or mutator.once:
                break


class _Remembered:
    """An iterable that can be iterated repeatedly; items are made when they are first asked for."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self._targets = iter(targets)

    def __iter__(self) -> Iterator[Target]:
        self._targets, again = itertools.tee(self._targets)
        return again


def _sensitive_first(expected: Sequence[Expected]) -> list[Expected]:
    """The conclusive cases; those with several rows and steps and with states come first, small ones before large."""

    def order(case: Expected) -> tuple[bool, bool, int, int]:
        feeds = case.calls[0].feeds
        size = max((array.size for array in feeds.values()), default=0)

        def largest(axes: Mapping[str, int]) -> int:
            return max((array.shape[axes[name]] for name, array in feeds.items() if name in axes), default=1)

        several = largest(case.batch_axes) > 1 and largest(case.time_axes) in _SEVERAL
        return case.kind not in ("whole", "data"), not several, -len(feeds), size

    return sorted((case for case in expected if not case.inconclusive), key=order)


def _without_curves(case: Expected) -> Expected:
    """The case without the time axes that only a report's curves need."""
    return case if case.kind in ("chunks", "pool") else replace(case, time_axes={})


def _result(
    targets: Iterable[Target], mutator: Mutator, at: int, folder: str, shapes: Shapes, ranges: Sequence[Range]
) -> MutantResult | None:
    """The result of a mutant; None where the mutator does not apply, or no case could detect the mutant."""
    nearest: MutantResult | None = None
    for target in targets:
        cases = [case for case in target.expected if case.kind in ("chunks", "pool") or not mutator.streams]
        if not cases:
            continue
        # The cases that most likely detect it are run first, and otherwise in their order.
        cases.sort(key=lambda case: case.kind not in mutator.kinds)
        outcome, mutant = mutated(target.proto, mutator, at, folder, shapes, ranges)
        if outcome.reason:
            return MutantResult("", "equivalent", 0.0, "", outcome.reason)
        if not outcome.applied:
            return None
        result = _run(target.model, mutant, cases)
        if result.outcome == "rejected":
            return result
        if nearest is None or result.ratio >= nearest.ratio:
            nearest = result
    if nearest is not None and mutator.replace is not None and _unread(targets, mutator.replace, at, folder, shapes):
        return MutantResult("", "equivalent", 0.0, "", "no output depends on the numbers that it changes")
    return nearest if nearest is None else _of_steady_outputs(nearest, targets, mutator, at, folder, shapes, ranges)


def _of_steady_outputs(
    nearest: MutantResult,
    targets: Iterable[Target],
    mutator: Mutator,
    at: int,
    folder: str,
    shapes: Shapes,
    ranges: Sequence[Range],
) -> MutantResult:
    """The result of a mutant that no case rejects, of which a user can mend nothing where it changes constants alone.

    The report has a note on them: with other inputs they may differ.
    """
    steady = steady_outputs(case for target in targets for case in target.expected)
    proto = next(iter(targets)).proto
    changed = changed_outputs(proto, mutated(proto, mutator, at, folder, shapes, ranges)[1], shapes) if steady else ()
    if not changed or not steady.issuperset(changed):
        return nearest
    reason = f"it changes only {' and '.join(sorted(changed))}, the same in every case"
    return replace(nearest, outcome="equivalent", reason=reason)


def _unread(targets: Iterable[Target], replaced: Replace, at: int, folder: str, shapes: Shapes) -> bool:
    """Whether all outputs stay the same with other numbers in place of those that a mutant changes."""
    for target in targets:
        copies = []
        for number in (None, *NUMBERS):
            edit = Edit(deepcopy(target.proto), folder, shapes, inner=True)
            if not replaced(edit, edit.layers[at], number):
                return False
            edit.sort()
            try:
                copies.append(opened(target.model, edit.model))
            except LSTMOnnxError:
                return False
        own, *others = copies
        if not same_outputs(own, others, target.expected):
            return False
    return True


def _run(model: Model, proto: onnx.ModelProto, cases: Sequence[Expected]) -> MutantResult:
    """The first case that rejects a mutant, or the one with the largest ratio."""
    try:
        mutant = opened(model, proto)
    except LSTMOnnxError:
        return MutantResult("", "rejected", math.inf, "opening it")
    nearest = MutantResult("", "survived", 0.0, "")
    for expected in cases:
        result = replay(mutant, expected)
        if not result.passed:
            return MutantResult("", "rejected", result.ratio, result.label)
        if result.ratio >= nearest.ratio:
            nearest = replace(nearest, ratio=result.ratio, case=result.label)
    return nearest

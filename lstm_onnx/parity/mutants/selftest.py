"""Would a verification have caught a wrong file?  It is tried on wrong copies of the file at hand."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import onnx

from ...errors import ConfigError, LSTMOnnxError
from ...runtime import Model
from ...runtime.providers import open_session
from ..expected import Expected
from ..replay import replay
from ..report import MutantResult
from .catalogue import ABSENT, EQUIVALENT, MUTATORS, Mutator
from .graph import Edit

LEVELS = ("none", "quick", "all")
"""No self-test; one mutant of each kind; every kind at every recurrent layer."""


def require_level(level: str) -> None:
    """Refuse what is none of `LEVELS` (ConfigError)."""
    if level not in LEVELS:
        raise ConfigError(f"mutants = {level!r} is not known; it must be one of {', '.join(LEVELS)}")


def mutants_of(
    model: onnx.ModelProto, level: str, folder: str = "", seed: int = 0
) -> Iterator[tuple[str, Mutator, onnx.ModelProto | None]]:
    """Wrong copies of `model`.

    Args:
        model: it is not changed; its external data need not be loaded.
        level: one of `LEVELS`.
        folder: where its external data lies.
        seed: of a quick self-test, which layer is changed where there are several.

    Yields:
        What is wrong, the mutator, and the copy; None in its place where the change is proven to be none.
    """
    count = len(Edit(_copy(model), folder).sites)
    for number, mutator in enumerate(MUTATORS if level != "none" else ()):
        if level == "quick" and not mutator.quick:
            continue
        # From another layer on each time, so that a quick self-test reaches all of them.
        for turn in range(count):
            at = (seed + number + turn) % count
            copy = _copy(model)
            edit = Edit(copy, folder)
            outcome = mutator.apply(edit, edit.sites[at])
            if outcome == ABSENT:
                continue
            name = f"{mutator.name}, {edit.sites[at].name}" if count > 1 else mutator.name
            yield name, mutator, None if outcome == EQUIVALENT else copy
            if level == "quick" or mutator.whole:
                break


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def self_test(
    model: Model, expected: Sequence[Expected], level: str = "quick", seed: int = 0
) -> Iterator[MutantResult]:
    """Whether what is `expected` of the file of `model` rejects its mutants, one by one.

    Args:
        model: open; its file is read again.
        expected: cases of a verification that the file passed.
        level: one of `LEVELS`.
        seed: see `mutants_of`.

    Yields:
        A result for each.
    """
    if level == "none":
        return
    path = os.path.realpath(model.path)
    folder = os.path.dirname(path)  # noqa: PTH120
    proto = onnx.load(path, load_external_data=False)
    cases = _telling_first(expected)
    carried = [case for case in cases if case.kind in ("chunks", "pool")]
    for name, mutator, copy in mutants_of(proto, level, folder, seed):
        if copy is None:
            yield MutantResult(name, "equivalent", 0.0, "")
        elif not mutator.streams or carried:
            yield replace(_tried(model, copy, folder, carried if mutator.streams else cases), name=name)


def _telling_first(expected: Sequence[Expected]) -> list[Expected]:
    """The cases that say something; small ones of several steps and rows before all others, since they tell most."""

    def order(case: Expected) -> tuple[bool, bool, int]:
        size = max((array.size for array in case.calls[0].feeds.values()), default=0)
        several = case.label.startswith("batch 3, time 7")
        return case.kind not in ("whole", "data", "golden"), not several, size

    return sorted((case for case in expected if not case.inconclusive), key=order)


def _tried(model: Model, copy: onnx.ModelProto, folder: str, cases: Sequence[Expected]) -> MutantResult:
    """The first case that rejects a copy, or the one that came nearest to."""
    try:
        session, provider = open_session(copy.SerializeToString(), model.provider, model.threads, folder=folder)
        mutant = Model(model.path, session, provider, threads=model.threads)
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

"""Where a file first differs from a module, and the likely causes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ExportError, InputError, RunError
from ...spec import LSTMSpec
from ..expected import Arrays, Expected, first_difference
from ..report import CaseResult, Cause, Location
from . import causes
from .fault_models import changed_parameters, parameters_of, weight_faults
from .first_wrong_layer import Place, first_wrong_layer

if TYPE_CHECKING:
    from ..modules.verification import ModuleVerification

_MOST_MODULES = 4
"""LSTMs of a module in which a fault is searched for, where the wrong one is not known."""
_MOST_CASES = 8


def diagnose_module(verification: ModuleVerification) -> tuple[Location | None, tuple[Cause, ...]]:
    """The location of the first difference, and the likely causes."""
    done = verification.pairs
    wrong = [pair for pair in done if not pair[1].passed and not pair[1].inconclusive]
    location = first_difference(wrong)
    found = list(causes.baked_sizes(*_sizes(verification, done)))
    single = [expected for expected, result in wrong if _is_one_run(expected) and _ran(result)]
    if not single:
        found += causes.mispaired(verification.model.states, verification.models.float64.states)
        return location, tuple(found)
    place = _place(verification, single[0])
    if place is not None and location is not None:
        location = replace(location, module=place.path or None, layer=place.layer, direction=place.direction)
    evidence = [(expected, actual) for expected in single[:_MOST_CASES] if (actual := _run(verification, expected))]
    if evidence:
        found += list(_from_weights(verification, evidence, place) or _from_inputs(verification, evidence))
        found += causes.from_the_file(verification.model, single[0])
    return location, tuple(found)


def _is_one_run(expected: Expected) -> bool:
    """Whether the file is run once, not through a stream or a pool."""
    return len(expected.calls) == 1 and expected.kind not in ("chunks", "pool")


def _ran(result: CaseResult) -> bool:
    return not result.error and not any(tensor.mismatched for tensor in result.tensors)


def _run(verification: ModuleVerification, expected: Expected) -> Arrays:
    try:
        return verification.model.run(expected.calls[0].feeds)
    except (InputError, RunError):
        return {}


def _sizes(
    verification: ModuleVerification, done: Sequence[tuple[Expected, CaseResult]]
) -> tuple[list[Mapping[str, int]], list[Mapping[str, int]]]:
    """The sizes of the named axes in the calls with outputs of the right shape, and in the others."""
    passed: list[Mapping[str, int]] = []
    failed: list[Mapping[str, int]] = []
    for expected, result in done:
        if _is_one_run(expected):
            (passed if _ran(result) else failed).append(_named_sizes(verification, expected.calls[0].feeds))
    return passed, failed


def _named_sizes(verification: ModuleVerification, feeds: Arrays) -> dict[str, int]:
    return {
        dim: feeds[spec.name].shape[axis]
        for spec in verification.specs
        if spec.name in feeds
        for axis, dim in enumerate(spec.shape)
        if isinstance(dim, str)
    }


def _place(verification: ModuleVerification, expected: Expected) -> Place | None:
    """The first wrong layer, by its states."""
    feeds, models = expected.calls[0].feeds, verification.models
    try:
        models.native(feeds)
        models.float64(feeds)
    except ExportError:
        return None
    return first_wrong_layer(models.file, feeds, models.native.sites, models.float64.sites, verification.dtype)


def _from_weights(
    verification: ModuleVerification, evidence: Sequence[tuple[Expected, Arrays]], place: Place | None
) -> list[Cause]:
    """Faults in the weights of one LSTM that give the file's numbers in PyTorch."""
    sites = verification.models.float64.sites
    lstms = [path for path, site in sites.items() if isinstance(site.spec, LSTMSpec)]
    paths = [place.path] if place is not None and place.path in lstms else lstms[:_MOST_MODULES]
    for path in paths:
        spec = sites[path].spec
        assert isinstance(spec, LSTMSpec)  # noqa: S101 - chosen so
        module, suffix = verification.models.float64.submodule(path), "_l0" if sites[path].cell else ""
        right = parameters_of(module)
        layers = [None, *([place.layer] if place is not None and spec.num_layers > 1 else [])]
        for layer in layers:
            for one in weight_faults(spec, layer, None):
                state = one.weights({f"{name}{suffix}": array for name, array in right.items()})
                with changed_parameters(module, right, {name: state[f"{name}{suffix}"] for name in right}):
                    if all(_explains(verification, item[0].calls[0].feeds, *item) for item in evidence):
                        return [Cause(one.name, _evidence(f" in {path}" if path else "", evidence), one.fix)]
    return []


def _from_inputs(verification: ModuleVerification, evidence: Sequence[tuple[Expected, Arrays]]) -> Iterator[Cause]:
    """Changes of states and lengths that give the file's numbers in PyTorch."""
    for name, fix, change in _changes(verification):
        feeds = [expected.calls[0].feeds for expected, _ in evidence]
        if all(_explains(verification, {**f, **change(f)}, *item) for f, item in zip(feeds, evidence, strict=True)):
            yield Cause(name, _evidence("", evidence), fix)
            return


def _explains(verification: ModuleVerification, feeds: Arrays, expected: Expected, actual: Arrays) -> bool:
    """Whether PyTorch gives the file's outputs on these inputs."""
    try:
        predicted = verification.models.float64(feeds)
    except ExportError:
        return False
    return expected.as_if(predicted).judge([actual]).passed


def _evidence(where: str, evidence: Sequence[object]) -> str:
    count = len(evidence)
    return f"PyTorch with this mistake{where} gives the file's numbers in {count} of {count} cases"


def _changes(verification: ModuleVerification) -> Iterator[tuple[str, str, Callable[[Arrays], Arrays]]]:
    """Mistakes with states and lengths: name, fix, and how they change the inputs."""
    states = list(verification.model.states)
    fix = "feed the operator's initial_h and initial_c from the file's inputs"
    for names in ([states] if len(states) > 1 else []) + [[name] for name in states]:
        yield f"states ignored: {', '.join(names)}", fix, _zeroed(names)
    for first, second in itertools.combinations(states, 2):
        fix = "the operator's inputs are initial_h and then initial_c, by layer and then by direction"
        yield f"state order: {first} and {second} exchanged", fix, _swapped(first, second)
    axes = {spec.name: spec.high for spec in verification.specs if isinstance(spec.high, str)}
    if axes:
        fix = "feed the lengths to the operator's sequence_lens"
        yield "lengths ignored", fix, lambda feeds: _whole(verification, feeds, axes)


def _zeroed(names: Sequence[str]) -> Callable[[Arrays], Arrays]:
    return lambda feeds: {name: np.zeros_like(feeds[name]) for name in names if name in feeds}


def _swapped(first: str, second: str) -> Callable[[Arrays], Arrays]:
    def change(feeds: Arrays) -> Arrays:
        pair = feeds.get(first), feeds.get(second)
        if pair[0] is None or pair[1] is None or pair[0].shape != pair[1].shape:
            return {}
        return {first: pair[1], second: pair[0]}

    return change


def _whole(verification: ModuleVerification, feeds: Arrays, axes: Mapping[str, str]) -> Arrays:
    """Every length equal to the size of the axis that bounds it."""
    sizes = _named_sizes(verification, feeds)
    return {name: np.full_like(feeds[name], sizes[axis]) for name, axis in axes.items() if axis in sizes}

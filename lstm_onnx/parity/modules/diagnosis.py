"""Where a file first differs from a module, and the mistakes that may be in each of its LSTMs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from ...errors import ExportError
from ...exporter.weights import StateDict
from ...spec import LSTMSpec
from ..diagnosis.fault_models import Change, FaultModel, Run, changed_inputs, swapped, weight_faults, zeroed
from ..diagnosis.search import Suspect
from ..expected import Arrays
from ..report import Location
from .first_wrong_layer import first_wrong_layer

if TYPE_CHECKING:
    from ..comparison import Comparison, Models
    from .run import ModuleRun
    from .verification import ModuleVerification

_MOST_MODULES = 4
"""LSTMs of a module in which a fault is searched for, where the wrong one is not known."""


def with_first_wrong_layer(verification: ModuleVerification, done: Comparison, location: Location) -> Location:
    """`location` with the first wrong layer, by its states, where that is found."""
    feeds, models = done.expected.calls[0].feeds, verification.models
    try:
        models.native(feeds)
        models.float64(feeds)
    except ExportError:
        return location
    place = first_wrong_layer(models.file, feeds, models.native.sites, models.float64.sites, verification.dtype)
    if place is None:
        return location
    return replace(location, module=place.path or None, layer=place.layer, direction=place.direction)


def suspects(verification: ModuleVerification, location: Location) -> Iterator[Suspect]:
    """The LSTM of the first wrong layer, or else the first ones, with mistakes in weights, states and lengths."""
    sites = verification.models.float64.sites
    lstms = [path for path, site in sites.items() if isinstance(site.spec, LSTMSpec)]
    wrong = (location.module or "") if location.layer is not None else None
    for path in [wrong] if wrong in lstms else lstms[:_MOST_MODULES]:
        spec = sites[path].spec
        assert isinstance(spec, LSTMSpec)  # noqa: S101 - chosen so
        layers = [None, *([location.layer] if location.layer is not None and spec.num_layers > 1 else [])]
        faults = itertools.chain.from_iterable(weight_faults(spec, layer, None) for layer in layers)
        named = [replace(one, weights=_of_a_cell(one.weights)) for one in faults] if sites[path].cell else faults
        where = f" in {path}" if path else ""
        yield Suspect(named, functools.partial(_module_at, path), _run_of, where)
    inputs = [FaultModel(name, fix, around=changed_inputs(change)) for name, fix, change in _changes(verification)]
    yield Suspect(inputs, lambda _: nn.Module(), _run_of)


def _module_at(path: str, models: Models[ModuleRun]) -> nn.Module:
    return models.float64.submodule(path)


def _run_of(models: Models[ModuleRun]) -> Run:
    return lambda _, feeds: models.float64(feeds)


def _of_a_cell(weights: Callable[[StateDict], StateDict]) -> Callable[[StateDict], StateDict]:
    """The same change of the parameters of an nn.LSTMCell, whose names have no layer."""

    def change(state: StateDict) -> StateDict:
        changed = weights({f"{name}_l0": array for name, array in state.items()})
        return {name: changed[f"{name}_l0"] for name in state}

    return change


def _changes(verification: ModuleVerification) -> Iterator[tuple[str, str, Change]]:
    """Mistakes with states and lengths: name, fix, and how they change the inputs."""
    states = list(verification.model.states)
    fix = "feed the operator's initial_h and initial_c from the file's inputs"
    for names in ([states] if len(states) > 1 else []) + [[name] for name in states]:
        yield f"states ignored: {', '.join(names)}", fix, zeroed(names)
    for first, second in itertools.combinations(states, 2):
        fix = "the operator's inputs are initial_h and then initial_c, by layer and then by direction"
        yield f"state order: {first} and {second} exchanged", fix, swapped(first, second)
    axes = {spec.name: spec.high for spec in verification.specs if isinstance(spec.high, str)}
    if axes:
        fix = "feed the lengths to the operator's sequence_lens"
        yield "lengths ignored", fix, lambda feeds: _whole(verification, feeds, axes)


def _whole(verification: ModuleVerification, feeds: Arrays, axes: Mapping[str, str]) -> Arrays:
    """Every length equal to the size of the axis that bounds it."""
    sizes = verification.named_sizes(feeds)
    return {name: np.full_like(feeds[name], sizes[axis]) for name, axis in axes.items() if axis in sizes}

"""Finds where a file first differs from a module, and lists the mistakes that may be in each of its LSTMs.

For the first recurrent layer that is wrong, the final states of every layer with a name from lstm-onnx become outputs
of a copy of the file, and are compared with those of the module's layers.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import helper
from torch import nn

from ...errors import ExportError, InputError, LSTMOnnxError, RunError
from ...exporter.opaque.recurrent_module import RecurrentModule
from ...exporter.weights import StateDict
from ...input_spec import named_sizes
from ...runtime import Model
from ...spec import LSTMSpec
from ..comparison import Comparison, Models
from ..criterion import compare
from ..diagnosis.fault_models import Change, FaultModel, Run, changed_inputs, swapped, weight_faults, zeroed
from ..diagnosis.search import Suspect
from ..expected import Arrays
from ..mutants.graph_edit import Edit
from ..mutants.self_test import folder_of, opened, read_graph
from ..results import Location
from .run import ModuleRun
from .subject import Subject

_MOST_MODULES = 4
"""The most LSTMs of a module in which a fault is searched for, if the wrong one is not known."""


def with_first_wrong_layer(subject: Subject, done: Comparison, location: Location) -> Location:
    """`location` with the first wrong layer, by its states, where that is found."""
    feeds, models = done.expected.calls[0].feeds, subject.models
    try:
        models.native(feeds)
        models.float64(feeds)
    except ExportError:
        return location
    found = _first_wrong_layer(models.file, feeds, models.native.sites, models.float64.sites, subject.dtype)
    return location if found is None else replace(location, module=found[0] or None, layer=found[1], direction=found[2])


def suspects(subject: Subject, location: Location) -> Iterator[Suspect]:
    """The LSTM of the first wrong layer, or else the first ones, with mistakes in weights, states and lengths."""
    sites = subject.models.float64.sites
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
    inputs = [FaultModel(name, fix, around=changed_inputs(change)) for name, fix, change in _changes(subject)]
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


def _changes(subject: Subject) -> Iterator[tuple[str, str, Change]]:
    """Mistakes with states and lengths: name, fix, and how they change the inputs."""
    states = list(subject.model.states)
    fix = "feed the operator's initial_h and initial_c from the file's inputs"
    for names in ([states] if len(states) > 1 else []) + [[name] for name in states]:
        yield f"states ignored: {', '.join(names)}", fix, zeroed(names)
    for first, second in itertools.combinations(states, 2):
        fix = "the operator's inputs are initial_h and then initial_c, by layer and then by direction"
        yield f"state order: {first} and {second} exchanged", fix, swapped(first, second)
    axes = {spec.name: spec.high for spec in subject.specs if isinstance(spec.high, str)}
    if axes:
        fix = "feed the lengths to the operator's sequence_lens"
        yield "lengths ignored", fix, lambda feeds: _whole(subject, feeds, axes)


def _whole(subject: Subject, feeds: Arrays, axes: Mapping[str, str]) -> Arrays:
    """Every length equal to the size of the axis that bounds it."""
    sizes = named_sizes(subject.specs, feeds)
    return {name: np.full_like(feeds[name], sizes[axis]) for name, axis in axes.items() if axis in sizes}


_NAME = re.compile(r"(?:(?P<path>.+)/)?l(?P<layer>\d+)/(?:LSTM|GRU|RNN|Scan)")
_CALL = re.compile(r"(?:^|/)call(?P<number>\d+)$")
_DIRECTIONS = ("forward", "reverse")


@dataclass(frozen=True)
class _Exposed:
    """A final state of the file: its module, call, layer and state, and the names of its outputs."""

    path: str
    call: int
    layer: int
    state: int
    names: tuple[str, ...]


def _first_wrong_layer(
    model: Model,
    feeds: Arrays,
    native: Mapping[str, RecurrentModule],
    float64: Mapping[str, RecurrentModule],
    dtype: str,
) -> tuple[str, int, str | None] | None:
    """The first layer, in the file's order, whose final states do not pass.

    Args:
        model: the file, open.
        feeds: its inputs.
        native: the recurrent modules by path, after a run on the same inputs in the native precision.
        float64: the same in float64.
        dtype: the model's.

    Returns:
        The module's path, the layer and, if bidirectional, the direction; None where all are right, or the file's
        layers are not found by their names.
    """
    graph = read_graph(model)
    exposed = list(_expose(Edit(graph, folder_of(model)), float64, dtype))
    if not exposed:
        return None
    try:
        actual = opened(model, graph).run(feeds)
    except (LSTMOnnxError, InputError, RunError):
        return None
    for item in exposed:
        spec = float64[item.path].spec
        states = _rows(actual, item.names, spec.num_directions)
        pair = [sites[item.path].calls[item.call].final[item.state] for sites in (native, float64)]
        torch_states = [tensor.detach().cpu().double().numpy() for tensor in pair]
        for direction in range(spec.num_directions):
            row = item.layer * spec.num_directions + direction
            scale = max(1.0, float(np.abs(torch_states[1]).max(initial=0.0)))
            one, reference = (array[row] for array in torch_states)
            if not compare("state", states[direction], one, reference, dtype=dtype, scale=scale).passed:
                return item.path, item.layer, _DIRECTIONS[direction] if spec.num_directions == 2 else None
    return None


def _rows(actual: Arrays, names: Sequence[str], directions: int) -> list[np.ndarray]:
    """``(batch, features)`` for each direction, from one output with both or one output each."""
    if len(names) == directions and directions > 1:
        return [actual[name][0] for name in names]
    return list(actual[names[0]])


def _expose(edit: Edit, sites: Mapping[str, RecurrentModule], dtype: str) -> Iterator[_Exposed]:
    """Add the final states to the graph's outputs, layer by layer, c before h."""
    for operator in edit.layers:
        found = _place(operator.node.name, sites)
        if found is None:
            continue
        path, call, layer = found
        spec = sites[path].spec
        if call >= len(sites[path].calls) or operator.hidden_size != spec.hidden_size:
            continue
        states = ("h", "c") if spec.has_cell else ("h",)
        folded = isinstance(spec, LSTMSpec) and spec.proj_size > 0 and not operator.scan
        for state in reversed(states):
            if folded and state == "h":
                continue  # the operator's h is before the projection
            names = tuple(edit.named_final(operator, state))
            for name in names:
                if not edit.is_output(name):
                    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
                    edit.graph.output.append(helper.make_tensor_value_info(name, kind, None))
            yield _Exposed(path, call, layer, states.index(state), names)


def _place(name: str, sites: Mapping[str, RecurrentModule]) -> tuple[str, int, int] | None:
    """Module path, index of the call, and layer of a node with a name from the exporter."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    path, call = match["path"] or "", 0
    repeated = _CALL.search(path)
    if repeated and path.replace("/", ".") not in sites:
        path, call = path[: repeated.start()], int(repeated["number"]) - 1
    own = next((each for each in sites if each.replace(".", "/") == path), None)
    return None if own is None else (own, call, int(match["layer"]))

"""A module whose recurrent layers are quiet, with their weights made loud, in its file and in PyTorch alike.

See `loud`, which does it for a bare LSTM.  Half precision needs it most: what a layer behind another one does
with gates that hardly move is below its rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import Tensor

from ..errors import LSTMOnnxError
from .amplify import ENOUGH, wanted_gain
from .expected import Expected, size_of
from .mutants import Edit, Site, Subject, folder_of, opened, read_graph

if TYPE_CHECKING:
    from .modules import ModuleVerification

_SHAPES = ((8, 7), (5, 12), (32, 2))
"""(batch, time) of what is compared."""
_KINDS = ("weight_ih", "weight_hh", "bias")


@dataclass(frozen=True)
class _Layer:
    """One layer of a recurrent module: its parameters by kind, and what each is multiplied by."""

    path: str
    parameters: Mapping[str, tuple[str, ...]]
    factors: Mapping[str, float]


def made_loud(verification: ModuleVerification) -> Subject | None:
    """The file with loud weights, and what PyTorch gives with them; None where they are loud, or not found in it."""
    layers = list(_layers(verification))
    largest = max((factor for layer in layers for factor in layer.factors.values()), default=1.0)
    if largest < ENOUGH.get(verification.dtype, ENOUGH["float32"]) or verification.dtype == "float64":
        return None
    model = verification.model
    graph = _louder_file(verification, layers, read_graph(model), folder_of(model))
    if graph is None:
        return None
    try:
        louder = opened(model, graph)
    except LSTMOnnxError:
        return None
    with _scaled(verification, layers):
        return Subject(louder, graph, list(_expected(verification)))


def _layers(verification: ModuleVerification) -> Iterator[_Layer]:
    for path in verification.own.sites:
        module = verification.own.submodule(path)
        names = [name for name, _ in module.named_parameters(recurse=False)]
        suffixes = {name.partition("_l")[2].removesuffix("_reverse") for name in names}
        for suffix in sorted(suffixes):
            own = [name for name in names if name.partition("_l")[2].removesuffix("_reverse") == suffix]
            parameters = {kind: tuple(name for name in own if name.startswith(kind)) for kind in _KINDS}
            factors = {
                kind: wanted_gain(kind, [_array(module.get_parameter(name)) for name in found], verification.dtype)
                for kind, found in parameters.items()
            }
            yield _Layer(path, parameters, factors)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array


def _louder_file(
    verification: ModuleVerification, layers: list[_Layer], model: onnx.ModelProto, folder: str
) -> onnx.ModelProto | None:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    edit = Edit(copy, folder)
    changed: set[str] = set()
    for site in edit.sites:
        layer = next((layer for layer in layers if _is_site(verification, layer, edit, site)), None)
        if layer is None or any(edit.fold(site)):
            return None
        changed.add(layer.path)
        for kind, ports in zip(_KINDS, (site.W, site.R, site.B), strict=True):
            for port in ports:
                array = edit.constant(port.value)
                if array is None:
                    return None
                port.value = edit.array(array * array.dtype.type(layer.factors[kind]))
    # What the file has no operator of, such as a cell that was taken apart, stays as it is in PyTorch only.
    return copy if changed == {layer.path for layer in layers} else None


def _is_site(verification: ModuleVerification, layer: _Layer, edit: Edit, site: Site) -> bool:
    """Whether an operator has the weights of a layer, in whatever order."""
    module = verification.own.submodule(layer.path)
    for kind, ports in (("weight_ih", site.W), ("weight_hh", site.R)):
        found = [edit.constant(port.value) for port in ports]
        theirs = [array for array in found if array is not None]
        mine = [_array(module.get_parameter(name)) for name in layer.parameters[kind]]
        if len(theirs) != len(found) or not theirs or not mine:
            return False
        values, wanted = (np.sort(np.concatenate([np.ravel(one) for one in each])) for each in (theirs, mine))
        if not np.array_equal(values, wanted):
            return False
    return True


@contextlib.contextmanager
def _scaled(verification: ModuleVerification, layers: list[_Layer]) -> Iterator[None]:
    """The parameters of both copies of the module multiplied, for as long as it is entered."""
    held: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            for run in (verification.own, verification.wide):
                for layer in layers:
                    module = run.submodule(layer.path)
                    for kind, names in layer.parameters.items():
                        for name in names:
                            parameter = module.get_parameter(name)
                            held.append((parameter, parameter.clone()))
                            parameter.mul_(layer.factors[kind])
        yield
    finally:
        with torch.no_grad():
            for changed, right in reversed(held):
                changed.copy_(right)


def _expected(verification: ModuleVerification) -> Iterator[Expected]:
    rng = np.random.default_rng([verification.seed, 4])
    specs = verification.specs
    found = []
    for batch, time in _SHAPES:
        case = verification.case_at(specs, rng, verification.sizes(specs, batch, time + verification.longer))
        expected = verification.whole(replace(case, label=f"weights made loud, {case.label}"))
        if expected is not None and not expected.inconclusive:
            found.append(expected)
    least: dict[str, float] = {}
    for call in (call for expected in found for call in expected.calls):
        for name, reference in call.reference.items():
            size = size_of(reference)
            if size > 0:
                least[name] = max(least.get(name, 0.0), call.own_error(name) / size)
    for expected in found:
        yield replace(expected, least=least)

"""Amplifies the weights of a module with small weights, both in the file and in PyTorch.

See `amplify`, which does it for a bare LSTM.  Half precision needs it most: while the gates hardly move, the effect of
a layer behind another one is below rounding.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from ...errors import LSTMOnnxError
from ...onnxgraph.recurrent import RecurrentLayer
from ..amplify import change, scale_layers, weight_gain
from ..criterion import magnitude
from ..expected import Expected, with_largest_errors
from ..mutants.graph_edit import Edit
from ..mutants.self_test import Target, folder_of, opened
from ..tolerances import LEAST_WEIGHT_GAIN
from .sizes import of_some_features
from .subject import Subject

SHAPES = ((8, 7), (5, 12), (32, 2))
"""The (batch, time) of the cases, unless others are given."""
_KINDS = ("weight_ih", "weight_hh", "bias", "weight_hr")
_DENSE = "dense"
"""The kind of all other weight matrices."""
_HEADROOM = 256
"""How much larger numbers inside a layer may be than its outputs, if no activation bounds them."""


@dataclass(frozen=True)
class AmplifiedTarget(Target):
    """The file with amplified weights; inside `scaled()`, the module has the same weights."""

    scaled: Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class _Layer:
    """One layer of a recurrent module, or another weight: the names of its parameters, and their factors, by kind."""

    path: str
    parameters: Mapping[str, tuple[str, ...]]
    factors: Mapping[str, float]


def amplified_target(
    subject: Subject,
    *,
    least: float | None = None,
    dense: bool = False,
    complete: bool = True,
    shapes: Sequence[tuple[int, int]] = SHAPES,
) -> AmplifiedTarget | None:
    """The file with amplified weights, and what PyTorch gives with them; None if not needed, or not found in it.

    Args:
        subject: the file as it is, and its module.
        least: the gain below which nothing is amplified; by default that of the dtype.
        dense: whether to amplify the weights outside of the recurrent layers as well.
        complete: return None if a layer is not found in the file, such as one without effect; otherwise amplify only
            those found.
        shapes: the (batch, time) of the cases.
    """
    if subject.dtype == "float64":
        return None
    model = subject.model
    layers, folder = list(_layers(subject)), folder_of(model)
    others = list(_dense_weights(subject, subject.graph, folder)) if dense else []
    largest = change(factor for layer in (*layers, *others) for factor in layer.factors.values())
    if least is None:
        least = LEAST_WEIGHT_GAIN.get(subject.dtype, LEAST_WEIGHT_GAIN["float32"])
    if largest < least:
        return None
    edit = Edit(deepcopy(subject.graph), folder)
    found: list[_Layer] = []
    for operator in edit.layers:
        layer = _layer_of(subject, layers, edit, operator)
        if layer is None:
            return None
        found.append(layer)
    amplified = [layer for layer in layers if layer in found]
    # A layer without an operator, such as a cell that was split into others, cannot be amplified in the file.
    if (complete and len(amplified) < len(layers)) or not scale_layers(edit, [layer.factors for layer in found]):
        return None
    for other in others:
        _scale_dense(subject, other, edit.model, folder)
    try:
        file = opened(model, edit.model)
    except LSTMOnnxError:
        return None
    scaled = functools.partial(_scaled, subject, [*amplified, *others])
    with scaled():
        return AmplifiedTarget(file, edit.model, _expected(subject, shapes), scaled)


def _layers(subject: Subject) -> Iterator[_Layer]:
    run = subject.models.native
    for path in run.sites:
        module = run.submodule(path)
        names = [name for name, _ in module.named_parameters(recurse=False)]
        suffixes = {name.partition("_l")[2].removesuffix("_reverse") for name in names}
        for suffix in sorted(suffixes):
            own = [name for name in names if name.partition("_l")[2].removesuffix("_reverse") == suffix]
            parameters = {kind: tuple(name for name in own if name.startswith(kind)) for kind in _KINDS}
            factors = {
                kind: weight_gain(kind, [_array(module.get_parameter(name)) for name in found], subject.dtype)
                for kind, found in parameters.items()
            }
            yield _Layer(path, parameters, factors)


def _dense_weights(subject: Subject, model: onnx.ModelProto, folder: str) -> Iterator[_Layer]:
    """Weight matrices outside of the recurrent layers that are found in the file, as they are or transposed."""
    run = subject.models.native
    for name, parameter in run.submodule("").named_parameters():
        path, _, own = name.rpartition(".")
        if path in run.sites or parameter.ndim < 2 or not parameter.is_floating_point():
            continue
        array = _array(parameter)
        factor = weight_gain(_DENSE, [array.reshape(len(array), -1)], subject.dtype)
        if factor != 1 and any(_tensors_of(array, model, folder)):
            yield _Layer(path, {_DENSE: (own,)}, {_DENSE: factor})


def _tensors_of(array: np.ndarray, model: onnx.ModelProto, folder: str) -> Iterator[onnx.TensorProto]:
    """The initializers with the numbers of a weight."""
    for tensor in model.graph.initializer:
        if sorted(tensor.dims) == sorted(array.shape):
            found = numpy_helper.to_array(tensor, folder)
            if np.array_equal(found, array) or (array.ndim == 2 and np.array_equal(found.T, array)):
                yield tensor


def _scale_dense(subject: Subject, layer: _Layer, graph: onnx.ModelProto, folder: str) -> None:
    """Scale a weight in the file, in all copies but those that were scaled already as another weight's."""
    ((name,),) = layer.parameters.values()
    array = _array(subject.models.native.submodule(layer.path).get_parameter(name))
    for tensor in list(_tensors_of(array, graph, folder)):
        scaled = numpy_helper.to_array(tensor, folder) * array.dtype.type(layer.factors[_DENSE])
        tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().numpy())


def _layer_of(subject: Subject, layers: Sequence[_Layer], edit: Edit, operator: RecurrentLayer) -> _Layer | None:
    """The layer whose weights an operator has; None for a fold, whose weights are no layer's own."""
    if any(edit.fold(operator)):
        return None
    return next((layer for layer in layers if _has_weights(subject, layer, edit, operator)), None)


def _has_weights(subject: Subject, layer: _Layer, edit: Edit, operator: RecurrentLayer) -> bool:
    """Whether an operator has the weights of a layer, in any order."""
    module = subject.models.native.submodule(layer.path)
    for kind, ports in (("weight_ih", operator.W), ("weight_hh", operator.R)):
        constants = [edit.constant(port.value) for port in ports]
        arrays = [array for array in constants if array is not None]
        parameters = [_array(module.get_parameter(name)) for name in layer.parameters[kind]]
        if len(arrays) != len(constants) or not arrays or not parameters:
            return False
        values, wanted = (np.sort(np.concatenate([np.ravel(one) for one in each])) for each in (arrays, parameters))
        if not np.array_equal(values, wanted):
            return False
    return True


@contextlib.contextmanager
def _scaled(subject: Subject, layers: list[_Layer]) -> Iterator[None]:
    """A context in which the parameters of both copies of the module are multiplied by their factors."""
    originals: dict[int, tuple[Tensor, Tensor]] = {}  # by id: tied parameters are scaled once
    try:
        with torch.no_grad():
            for run in (subject.models.native, subject.models.float64):
                for layer in layers:
                    module = run.submodule(layer.path)
                    for kind, names in layer.parameters.items():
                        for name in names:
                            parameter = module.get_parameter(name)
                            if id(parameter) not in originals:
                                originals[id(parameter)] = parameter, parameter.clone()
                                parameter.mul_(layer.factors[kind])
        yield
    finally:
        with torch.no_grad():
            for changed, original in originals.values():
                changed.copy_(original)


def _is_within_range(expected: Expected) -> bool:
    """Whether the dtype can hold numbers this large, and larger ones within a layer, which relu does not bound.

    The states count as well: what is made of them may be of any size, such as a unit vector.
    """
    most = float(np.finfo(expected.dtype).max) / _HEADROOM
    return expected.scale <= most and all(
        magnitude(array) <= most for call in expected.calls for array in call.reference.values()
    )


def _expected(subject: Subject, shapes: Sequence[tuple[int, int]]) -> list[Expected]:
    rng = np.random.default_rng([subject.seed, 4])
    cases = []
    for batch, time in shapes:
        case = subject.case(rng, batch, time)
        expected = subject.expect(replace(case, label=f"weights amplified, {case.label}"))
        if expected is not None and not expected.inconclusive and _is_within_range(expected):
            cases.append(of_some_features(expected))
    return with_largest_errors(cases)

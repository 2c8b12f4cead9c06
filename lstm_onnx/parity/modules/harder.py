"""Makes further cases for mutants that no other case rejects; the file must pass each of them.

They are made one after the other, only while mutants survive.  A half-precision file and its module are widened to
float32: half precision rounds at 1e-3, so a mistake before a layer that reacts weakly is within its rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import AttributeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ...errors import LSTMOnnxError
from ...exporter.copies.clone import clone_module
from ...input_spec import InputSpec, unbounded_inputs
from ...metadata import Metadata
from ...onnxgraph.load import entries_of
from ...onnxgraph.nodes import graphs_of
from ..criterion import magnitude
from ..expected import Expected, with_largest_errors
from ..mutants.self_test import Target, folder_of, opened
from ..replay import replay
from ..tolerances import EPSILON
from .amplify import SHAPES, amplified_target
from .sizes import of_some_features
from .subject import Subject
from .usual import usual_cases

_SHAPES = ((32, 7), (16, 2), (5, 24))
"""The (batch, time) of the cases."""
_LONGER = ((4, 112), (2, 384))
"""The same for a module whose recurrent layers get one step for many steps of its inputs."""
_LOUDER = 4.0
"""The factor of the inputs in some of the cases."""
_SMALL = 2.0**-10
"""Smaller outputs count as small: mutants of files with outputs below 2e-6 were within 32 roundings of 1."""
_LEAST_GAIN = 2.0
"""The least gain with which weights are amplified."""


def harder_targets(subject: Subject, compared: Sequence[Expected]) -> Iterator[Target]:
    """The file with other inputs and with amplified weights; of a half-precision file, also all of these in float32.

    Where outputs are small, all cases are also compared relative to them, if the file passes those that were `compared`
    that way: the criterion's floor, one rounding of 1, would let mutants pass.
    """
    usual = _relative_to_small_outputs(Target(subject.model, subject.graph, compared))
    small = usual is not None and all(replay(usual.model, case).passed for case in usual.expected)
    if usual is not None and small:
        yield usual
    for target in _harder_targets(subject):
        relative = _relative_to_small_outputs(target) if small else None
        yield from (target,) if relative is None else (relative, target)


def _relative_to_small_outputs(target: Target) -> Target | None:
    """A target with one rounding of its largest number as the floor of each small output; None if none is small."""
    largest: dict[str, float] = {}
    for case, call in ((one, call) for one in target.expected for call in one.calls):
        for name, reference in call.reference.items():
            tiny = float(np.finfo(case.dtype).tiny) / EPSILON[case.dtype]
            largest[name] = max(largest.get(name, tiny), magnitude(reference))
    scales = {name: size for name, size in largest.items() if size < _SMALL}
    if not scales:
        return None
    expected = [replace(one, scales={**one.scales, **scales}) for one in target.expected]
    return _labelled(replace(target, expected=expected), "relative to small outputs,")


def _harder_targets(subject: Subject) -> Iterator[Target]:
    for shapes in (_SHAPES, _LONGER):
        yield Target(subject.model, subject.graph, _more_cases(subject, shapes))
        own = SHAPES if shapes is _SHAPES else shapes
        for what, dense in (("recurrent", False), ("all", True)):
            amplified = amplified_target(subject, least=_LEAST_GAIN, dense=dense, complete=False, shapes=own)
            if amplified is not None:
                yield _labelled(amplified, what)
                # It was compared; mutants are made of its graph, and need its provider alone.
                amplified.model.close()
    if subject.dtype == "float16":
        widened = _widened(subject)
        if widened is not None:
            usual = map(widened.expect, usual_cases(widened))
            cases = [of_some_features(found) for found in usual if found is not None and not found.inconclusive]
            usual_target = Target(widened.model, widened.graph, cases)
            for target in itertools.chain((usual_target,), harder_targets(widened, ())):
                yield _labelled(target, "in float32,")


def _labelled(target: Target, prefix: str) -> Target:
    """The target with other labels of its cases, which a report has beside the usual ones."""
    expected = [replace(one, label=f"{prefix} {one.label}") for one in target.expected]
    return replace(target, expected=expected)


def _more_cases(subject: Subject, shapes: Sequence[tuple[int, int]]) -> list[Expected]:
    rng = np.random.default_rng([subject.seed, 5])
    inputs = unbounded_inputs(subject.specs)
    cases = []
    for batch, time in shapes:
        drawn = subject.case(rng, batch, time)
        cases.append(replace(drawn, label=f"{drawn.label}, once more"))
        if inputs:
            cases.append(drawn.multiplied("louder", dict.fromkeys(inputs, _LOUDER)))
    found = map(subject.expect, cases)
    return with_largest_errors([of_some_features(one) for one in found if one is not None and not one.inconclusive])


def _widened(subject: Subject) -> Subject | None:
    """The file and its module in float32; None where that cannot be opened or run."""
    graph = widened_graph(subject.graph, folder_of(subject.model))
    try:
        return Subject.of(
            opened(subject.model, graph),
            widened_module(subject.module),
            seed=subject.seed,
            inputs=tuple(map(widened_spec, subject.declared)),
            example_inputs=widened_inputs(subject.example_inputs),
            unsaved=graph,
        )
    except LSTMOnnxError:
        return None


_DTYPE_ATTRIBUTES = ("to", "dtype", "stash_type")
"""Attributes that name a dtype."""


def widened_graph(model: onnx.ModelProto, folder: str) -> onnx.ModelProto:
    """A copy of `model` with float32 in place of float16; its external data is in `folder`."""
    copy = deepcopy(model)
    for graph in graphs_of(copy.graph):
        _widen_values((*graph.input, *graph.output, *graph.value_info))
        for tensor in graph.initializer:
            _widen_tensor(tensor, folder)
        for node in graph.node:
            for attribute in node.attribute:
                _widen_attribute(attribute)
    metadata = Metadata.from_metadata(entries_of(copy))
    initial = {name: _widened_array(array) for name, array in metadata.initial.items()}
    entries = replace(metadata, inputs=tuple(map(widened_spec, metadata.inputs)), initial=initial).to_metadata()
    helper.set_model_props(copy, {**entries_of(copy), **entries})
    return copy


def widened_module(module: nn.Module) -> nn.Module:
    """A copy of a module in float32, in which a projected LSTM has the sum of its biases as its file has it."""
    copy = clone_module(module, torch.float32)
    for layer in copy.modules():
        if isinstance(layer, nn.LSTM) and layer.proj_size:
            _round_biases(dict(layer.named_parameters(recurse=False)))
    return copy


def _round_biases(parameters: Mapping[str, Tensor]) -> None:
    """The sum of each two biases, rounded to float16, as one of them, and zeros as the other: a Scan has one bias."""
    with torch.no_grad():
        for name, bias in parameters.items():
            other = parameters.get(name.replace("bias_ih", "bias_hh"))
            if name.startswith("bias_ih") and other is not None:
                bias.copy_((bias + other).half())
                other.zero_()


def widened_inputs(inputs: Any) -> Any:
    """Inputs, nested in any way, with float32 in place of float16."""

    def of(leaf: Any) -> Any:
        return leaf.float() if isinstance(leaf, Tensor) and leaf.dtype == torch.float16 else leaf

    return tree_map(of, inputs)


def widened_spec(spec: InputSpec) -> InputSpec:
    """The spec of an input with float32 in place of float16."""
    return replace(spec, dtype="float32") if spec.dtype == "float16" else spec


def _widen_values(values: Iterable[ValueInfoProto]) -> None:
    for value in values:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT


def _widen_attribute(attribute: AttributeProto) -> None:
    if attribute.type == AttributeProto.TENSOR:
        _widen_tensor(attribute.t, "")
    elif attribute.name in _DTYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT16:
        attribute.i = TensorProto.FLOAT


def _widen_tensor(tensor: TensorProto, folder: str) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(_widened_array(numpy_helper.to_array(tensor, folder)), tensor.name))


def _widened_array(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array

"""Compares the weights that no case uses, such as those of an expert that no step is routed to.

The other parameters of the same shape show that a file stores them as they are, or transposed.  If a file has other
numbers in place of one, the cases tell which of the two is right, unless neither has an effect on any output.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from ...errors import LSTMOnnxError
from ...onnxgraph.nodes import stored_tensors
from ..expected import Expected
from ..mutants.self_test import folder_of, opened
from ..mutants.unread import WHOLE_RUNS, same_outputs
from ..results import CaseResult
from ..tolerances import EPSILON, K
from .run import ModuleRun
from .subject import Subject

WEIGHTS = "weights that no case uses"
"""The label of the case on these weights."""
_COMPUTED = re.compile(r"(^|\.)parametrizations\.|_(g|v|orig)$")
"""Parameters from which a weight is computed, such as weight_norm's; a file stores the weight."""


def weight_problems(subject: Subject, cases: Sequence[Expected]) -> Iterator[CaseResult]:
    """A failure for each parameter that a file stores with other numbers, if no case uses them.

    Args:
        subject: the file and its module.
        cases: those of the subject.
    """
    inner = subject.models.float64.submodule("")
    own, buffers = (
        {name: one for name, one in named if one.is_floating_point() and one.numel() > 1}
        for named in (inner.named_parameters(), inner.named_buffers())
    )
    shapes = {shape for one in own.values() for shape in (tuple(one.shape), tuple(one.shape[::-1]))}
    stored = [tensor for _, tensor in stored_tensors(subject.graph) if tuple(tensor.dims) in shapes]
    contents = [_content(_stored(subject, tensor)) for tensor in stored]
    forms = {name: {_content(array), _content(array.T)} for name, array in _arrays(subject, own)}
    kept = {name for name, found in forms.items() if not found.isdisjoint(contents)}
    known = set().union(*forms.values())
    equal, copies = Counter(map(frozenset, forms.values())), Counter(contents)
    fewer = {name for name in kept if sum(copies[form] for form in forms[name]) < equal[frozenset(forms[name])]}
    merged: set[int] = set()
    for _, array in _arrays(subject, buffers):
        form = {_content(array), _content(array.T)}
        known |= form
        if form.isdisjoint(contents):
            merged.update(array.shape)  # a BatchNorm's that is merged into the layer before it
    others = [tensor for tensor, content in zip(stored, contents, strict=True) if content not in known]
    others = [tensor for tensor in others if merged.isdisjoint(tensor.dims)]
    lost: dict[str, list[onnx.TensorProto]] = {}
    unseen = {name: one for name, one in own.items() if others and (name not in kept or name in fewer)}
    for name, array in _arrays(subject, unseen):
        alike = {other for other, one in own.items() if tuple(one.shape) == array.shape}
        if 2 * len(kept & alike) < len(alike) or _COMPUTED.search(name):
            continue  # a file that stores them in another form
        near = [tensor for tensor in others if tuple(tensor.dims) in (array.shape, array.T.shape)]
        near = [tensor for tensor in near if _stored(subject, tensor).dtype.kind == "f"]
        if not near or any(_is_close(_stored(subject, tensor), array, subject.dtype) for tensor in near):
            continue
        if _has_effect(subject.models.float64, own[name], cases):
            continue
        lost[name] = near
    for tensor in others:
        names = [name for name, near in lost.items() if any(tensor is one for one in near)]
        if names and _is_unused(subject, tensor, cases):
            problem = f"the numbers of {tensor.name} are no parameter's, and the file has no {' or '.join(names)}"
            yield CaseResult(WEIGHTS, error=f"{problem}; no case uses them", kind="stored")


def _arrays(subject: Subject, parameters: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters in the file's dtype, one at a time: all may be large."""
    for name, parameter in parameters.items():
        yield name, parameter.detach().cpu().numpy().astype(subject.dtype)


def _stored(subject: Subject, tensor: onnx.TensorProto) -> np.ndarray:
    return numpy_helper.to_array(tensor, folder_of(subject.model))


def _content(array: np.ndarray) -> tuple[tuple[int, ...], str, bytes]:
    return array.shape, array.dtype.name, hashlib.sha256(np.ascontiguousarray(array).data).digest()


def _is_close(array: np.ndarray, own: np.ndarray, dtype: str) -> bool:
    least = K * EPSILON[dtype] * float(np.abs(own).max(initial=0.0))
    return any(np.allclose(form, own, rtol=0, atol=least) for form in (array, array.T) if form.shape == own.shape)


def _has_effect(run: ModuleRun, parameter: torch.Tensor, cases: Sequence[Expected]) -> bool:
    """Whether other numbers of a parameter change an output of the module in a case."""
    for call in (call for case in cases if case.kind in WHOLE_RUNS for call in case.calls):
        try:
            right = run(call.feeds)
            with _other_numbers(parameter):
                moved = run(call.feeds)
        except LSTMOnnxError:
            return True
        if not all(np.array_equal(array, moved[name], equal_nan=True) for name, array in right.items()):
            return True
    return False


@contextlib.contextmanager
def _other_numbers(parameter: torch.Tensor) -> Iterator[None]:
    own = parameter.detach().clone()
    with torch.no_grad():
        parameter.copy_(own + own.abs() + 1)  # none stays as it is
    try:
        yield
    finally:
        with torch.no_grad():
            parameter.copy_(own)


def _is_unused(subject: Subject, tensor: onnx.TensorProto, cases: Sequence[Expected]) -> bool:
    """Whether other numbers of a stored tensor leave all outputs of the file as they are."""
    own = onnx.TensorProto()
    own.CopyFrom(tensor)
    array = _stored(subject, tensor)
    try:
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(array + np.abs(array) + 1, array.dtype), tensor.name))
        return same_outputs(subject.model, [opened(subject.model, subject.graph)], cases)
    except LSTMOnnxError:
        return False
    finally:
        tensor.CopyFrom(own)

"""The tensors of a forward's result, by their names, in containers of any class."""

from __future__ import annotations

import collections
import types
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from lstm_onnx import ExportError
from lstm_onnx.exporter.functional.results import named_tensors


def test_results_are_named_by_the_keys_that_lead_to_them() -> None:
    one = torch.zeros(())
    assert [name for name, _ in named_tensors(one)] == ["output"]
    assert [name for name, _ in named_tensors((one, [one, {"a": one}], 3))] == [
        "output.0",
        "output.1.0",
        "output.1.1.a",
    ]
    assert [name for name, _ in named_tensors({"a": one, "b": (one, None)})] == ["a", "b.0"]


class _Reply(collections.OrderedDict[str, Any]):
    """As transformers returns, whose keys are attributes, too."""

    __getattr__ = collections.OrderedDict.__getitem__


class _Rows(list[Any]):
    """A list of a class of its own."""


class _Parts(NamedTuple):
    mean: Tensor
    parts: Any


class _Prediction(_Parts):
    """A subclass of a named tuple, whose instances have attributes beside their items."""

    cached: Tensor


def test_results_in_containers_of_other_classes_and_in_objects() -> None:
    one = torch.zeros(())
    reply = _Reply(logits=one, states=_Rows([one, None]), hidden=collections.UserDict(h=one))
    assert [name for name, _ in named_tensors(reply)] == ["logits", "states.0", "hidden.h"]
    plain = types.SimpleNamespace(mean=one, _cached=one, name="a")
    assert [name for name, _ in named_tensors((plain, torch.distributions.Normal(one, one + 1)))] == [
        "output.0.mean",
        "output.1.loc",
        "output.1.scale",
    ]
    assert named_tensors((torch.nn.Linear(1, 1), print, "text", torch.Size([1]))) == []
    prediction = _Prediction(one, (plain, None))
    prediction.cached = one
    assert [name for name, _ in named_tensors(prediction)] == ["mean", "parts.0.mean"]
    assert [name for name, _ in named_tensors([torch.max(one.view(1), 0), prediction])] == [
        "output.0.0",
        "output.0.1",
        "output.1.mean",
        "output.1.parts.0.mean",
    ]
    plain.itself, plain.all = plain, [plain]
    assert [name for name, _ in named_tensors(plain)] == ["mean"]


class _Slots:
    __slots__ = ("_own", "empty", "mean")

    def __init__(self, mean: Tensor) -> None:
        self.mean = self._own = mean


def test_tensors_in_views_of_dicts_arrays_and_slots() -> None:
    one = torch.zeros(())
    array = np.empty(2, object)
    array[:] = [one, None]
    found = named_tensors(({"h": one}.values(), {"h": one}.items(), array, _Slots(one), {"h": one}.keys()))
    assert [name for name, _ in found] == ["output.0.0", "output.1.0.1", "output.2.0", "output.3.mean"]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (map(torch.exp, [torch.zeros(())]), "an iterator, which is read only later"),
        ((torch.zeros(()), (item for item in [torch.zeros(())])), "an iterator, which is read only later"),
        ({"a": {torch.zeros(()), torch.ones(())}}, "a set of tensors, which has no order"),
    ],
)
def test_tensors_without_a_place_are_not_left_out_without_a_word(result: Any, reason: str) -> None:
    with pytest.raises(ExportError, match=f"forward returns {reason}; return a tuple, a list or a dict"):
        named_tensors(result)

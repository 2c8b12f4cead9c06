"""The tensors and arrays of a forward's result, by their names, in containers of any class."""

from __future__ import annotations

import collections
import types
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.make_functional import make_functional
from lstm_onnx.exporter.functional.results import named_tensors
from tests.exporter.helpers import X, made, signal


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
        (map(torch.exp, [torch.zeros(())]), "an iterator, which computes its items later"),
        ((torch.zeros(()), (item for item in [torch.zeros(())])), "an iterator, which computes its items later"),
        ({"a": {torch.zeros(()), torch.ones(())}}, "a set of tensors, which has no order"),
    ],
)
def test_tensors_without_a_place_are_not_left_out_without_a_word(result: Any, reason: str) -> None:
    with pytest.raises(ExportError, match=f"forward returns {reason}; return a tuple, a list or a dict"):
        named_tensors(result)


def test_arrays_are_results_too() -> None:
    found = named_tensors((torch.zeros(()), {"weights": np.arange(3, dtype=">f4")}, np.array(["a"]), np.float32(1)))
    assert [name for name, _ in found] == ["output.0", "output.1.weights"]
    assert torch.equal(found[1][1], torch.arange(3.0))


class _Attention(nn.Module):
    """Returns its weights as an array, to be drawn."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        y, (h, _) = self.lstm(x)
        weights = torch.softmax(torch.bmm(y, h[-1].unsqueeze(2)).squeeze(2), 1)
        return torch.bmm(y.transpose(1, 2), weights.unsqueeze(2)).squeeze(2), weights.detach().cpu().numpy()


def test_an_array_made_of_a_traced_tensor_is_an_output(tmp_path: Path) -> None:
    module = _Attention().eval()
    result = made(module, signal(2, 5), X, tmp_path)
    (x,) = signal(3, 11)
    with torch.no_grad():
        expected = module(x)
    for actual, right in zip(result.run((x,)), expected, strict=True):
        np.testing.assert_allclose(actual, np.asarray(right), atol=1e-6)


class _Each(nn.Module):
    """Returns as many tensors as there are steps."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.lstm(x)[0].unbind(1))


def test_another_number_of_results_at_other_sizes_is_refused() -> None:
    module = _Each().eval()
    functional = make_functional(module, bind_arguments(module, signal(2, 5), X))
    with pytest.raises(ExportError, match="forward returns 7 tensors, but 5 for the example"):
        functional.run({"x": signal(2, 7)[0]}, {})

"""Each output is held to its own scale, and to what rounding does in the module itself."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.functional_module import FunctionalModule, Tensors
from lstm_onnx.exporter.functional.make_functional import make_functional
from lstm_onnx.exporter.trials.agreement import first_difference
from tests.exporter.helpers import X, signal


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


@pytest.fixture(scope="module")
def functional() -> FunctionalModule:
    return make_functional(Net(), bind_arguments(Net(), signal(2, 8), X))


def judged(functional: FunctionalModule, expected: Tensor, actual: np.ndarray, *others: Tensor) -> str | None:
    """`others` are what the module gives with other roundings; itself, where there are none."""
    rest = list(others)

    def run(_: Tensors) -> Tensors:
        return {"output": rest.pop(0) if rest else expected}

    return first_difference(functional, functional.arguments.tensors, run, {"output": expected}, {"output": actual})


@pytest.mark.parametrize("scale", [1e3, 1.0, 1e-3, 1e-9])
def test_an_output_is_compared_relative_to_its_largest_number(functional: FunctionalModule, scale: float) -> None:
    expected = torch.linspace(-1, 1, 7) * scale
    right = expected.numpy() * np.float32(1 + 1e-6)
    assert judged(functional, expected, right) is None
    assert str(judged(functional, expected, right * np.float32(1.001))).startswith("output is off by ")


def test_what_rounding_does_in_the_module_is_let_through(functional: FunctionalModule) -> None:
    expected = torch.linspace(-1, 1, 7)
    actual = expected.numpy() + np.float32(0.01)
    assert judged(functional, expected, actual) == "output is off by 0.01"
    assert judged(functional, expected, actual, expected + 1e-3) is None
    assert judged(functional, expected, actual, expected + 1e-5) == "output is off by 0.01"


class RunningSums(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.cumsum(1))[0]


def test_sums_over_many_steps_may_be_added_up_in_single(functional: FunctionalModule) -> None:
    """PyTorch's cumsum adds up in double, ONNX Runtime's does not."""
    x = torch.randn(2, 2000, 3, generator=torch.Generator().manual_seed(0)) + 1
    summing = make_functional(RunningSums(), bind_arguments(RunningSums(), x, X))
    lstm = summing.stateful.inner.lstm

    def run(inputs: Tensors) -> Tensors:
        return {"output": lstm(inputs["x"].cumsum(1))[0]}

    with torch.no_grad():
        expected = run({"x": x})
        single = torch.from_numpy(np.add.accumulate(x.numpy(), axis=1))
        actual = {"output": lstm(single)[0].numpy()}
        wrong = {"output": lstm(single - x)[0].numpy()}
        assert first_difference(summing, {"x": x}, run, expected, actual) is None
        assert first_difference(summing, {"x": x}, run, expected, wrong) is not None


def test_norms_of_many_equal_numbers_may_be_nearer_to_float64(functional: FunctionalModule) -> None:
    """PyTorch's vector_norm adds up one term after another."""

    def run(inputs: Tensors) -> Tensors:
        return {"output": inputs["x"].norm(p=1)}

    x = torch.full((20_000,), 0.7)
    wanted = {"output": np.float32(x.double().norm(p=1).item())}
    assert abs(float(run({"x": x})["output"] - wanted["output"])) > 1
    assert first_difference(functional, {"x": x}, run, run({"x": x}), wanted) is None
    wrong = {"output": wanted["output"] * np.float32(0.999)}
    assert first_difference(functional, {"x": x}, run, run({"x": x}), wrong) is not None


def test_a_number_that_jumps_by_rounding_may_have_jumped(functional: FunctionalModule) -> None:
    expected = torch.arange(5.0)
    actual = expected.numpy().copy()
    actual[2] += 1
    jumped = expected.clone()
    jumped[2] += 1
    elsewhere = expected.clone()
    elsewhere[3] += 1
    same = [expected] * 3  # a last bit changes nothing, 64 of them do
    assert judged(functional, expected, actual, *same, jumped) is None
    assert judged(functional, expected, actual, *same, elsewhere) == "output is off by 1"
    assert judged(functional, expected, actual * 3, *same, jumped) == "output is off by 8"


def test_an_output_of_zeros_may_be_all_but_zero(functional: FunctionalModule) -> None:
    zeros = torch.zeros(3)
    assert judged(functional, zeros, np.full(3, 2e-7, np.float32)) is None
    assert judged(functional, zeros, np.full(3, 1e-3, np.float32)) == "output is off by 0.001"
    shut = torch.full((3,), 6e-17)
    assert judged(functional, shut, np.zeros(3, np.float32)) is None


def test_integers_are_compared_and_those_that_tip_over_let_through(functional: FunctionalModule) -> None:
    expected = torch.arange(200)
    actual = expected.numpy().copy()
    assert judged(functional, expected, actual) is None
    actual[:2] += 1
    assert judged(functional, expected, actual) is None  # one in a hundred
    actual[:3] += 1
    assert judged(functional, expected, actual) == "output differs in 3 of 200 numbers"
    tipped = expected.clone()
    tipped[0] += 5
    assert judged(functional, expected, actual, tipped) is None
    assert judged(functional, torch.tensor([True]), np.array([False])) == "output differs in 1 of 1 numbers"


def test_infinities_stand_where_the_module_has_them(functional: FunctionalModule) -> None:
    infinity = float("inf")
    expected = torch.tensor([1.0, infinity, -infinity, float("nan")])
    assert judged(functional, expected, np.array([1, infinity, -infinity, 7], np.float32)) is None
    assert judged(functional, expected, np.array([1, infinity, infinity, 7], np.float32)) == "output is off by inf"
    assert (
        judged(functional, expected, np.array([np.nan, infinity, -infinity, 7], np.float32)) == "output is off by inf"
    )


def test_shapes_and_dtypes_are_compared(functional: FunctionalModule) -> None:
    expected = torch.zeros(2, 3)
    assert judged(functional, expected, np.zeros((3, 2), np.float32)) == (
        "output has shape (3, 2) where the module gives (2, 3)"
    )
    assert judged(functional, expected, np.zeros((2, 3))) == "output has dtype float64 where the module gives float32"
    assert judged(functional, torch.arange(3), np.arange(3, dtype=np.int8)) == (
        "output has dtype int8 where the module gives int64"
    )


def test_parameters_are_changed_in_their_last_bits_and_put_back(functional: FunctionalModule) -> None:
    parameters = {name: value.detach().clone() for name, value in functional.stateful.named_parameters()}
    weights = {path: recurrent.weights for path, recurrent in functional.recurrent_modules.items()}
    seen: list[tuple[float, float]] = []

    def run(inputs: Tensors) -> Tensors:
        (x,) = inputs.values()
        now = dict(functional.stateful.named_parameters())
        error = max(float((now[name].detach() / value - 1).abs().max()) for name, value in parameters.items())
        seen.append((error, float((x / signal(2, 8)[0] - 1).abs().max())))
        return {"output": functional.run(inputs, {})[0]["output"]}

    inputs = functional.arguments.tensors
    expected = functional.run(inputs, {})[0]["output"]
    assert first_difference(functional, inputs, run, {"output": expected}, {"output": -expected.numpy()}) is not None
    assert seen
    assert all(0 < error < 1e-5 for pair in seen for error in pair)
    assert all(torch.equal(value, parameters[name]) for name, value in functional.stateful.named_parameters())
    assert {path: recurrent.weights for path, recurrent in functional.recurrent_modules.items()} == weights

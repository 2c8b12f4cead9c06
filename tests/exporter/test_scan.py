"""`lstm_onnx.scan`: a loop in PyTorch, one node in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import InputError

pytestmark = pytest.mark.sweep(3)


class Filter(nn.Module):
    """A leaky integrator over two inputs, with the batch first."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Linear(3, 4)

    def step(self, x: dict[str, Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(self.gain(x["signal"]) + 0.5 * state) * x["keep"]
        return 2 * state, state

    def forward(self, x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        return lstm_onnx.scan(self.step, {"signal": x, "keep": keep}, x.new_zeros(x.shape[0], 4), dim=1)


def test_it_is_the_loop_that_one_would_write():
    module = Filter()
    x, keep = torch.randn(2, 5, 3), torch.rand(2, 5, 1)
    state, steps = torch.zeros(2, 4), []
    for t in range(5):
        state = torch.tanh(module.gain(x[:, t]) + 0.5 * state) * keep[:, t]
        steps.append(2 * state)
    ys, last = module(x, keep)
    torch.testing.assert_close(ys, torch.stack(steps, 1))
    torch.testing.assert_close(last, state)


def test_gradients_flow_through_it():
    module = Filter()
    x = torch.randn(2, 5, 3, requires_grad=True)
    module(x, torch.ones(2, 5, 1))[0].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().min() > 0
    assert module.gain.weight.grad is not None


def test_the_file_has_one_scan(tmp_path: Path):
    module = Filter().eval()
    axes = {"x": {0: "batch", 1: "time"}, "keep": {0: "batch", 1: "time"}}
    example = (torch.randn(2, 5, 3), torch.rand(2, 5, 1))
    lstm_onnx.export(module, tmp_path / "f.onnx", example_inputs=example, dynamic_shapes=axes)
    assert [n.op_type for n in onnx.load(tmp_path / "f.onnx").graph.node].count("Scan") == 1
    model = lstm_onnx.load(tmp_path / "f.onnx", provider="cpu", threads=1)
    x, keep = torch.randn(3, 40, 3), torch.rand(3, 40, 1)
    with torch.no_grad():
        ys, last = module(x, keep)
    found = list(model.run({"x": x.numpy(), "keep": keep.numpy()}).values())
    np.testing.assert_allclose(found[0], ys.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], last.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        (None, "scan takes tensors with steps along the axis 0"),
        ([torch.zeros(3, 2), torch.zeros(4, 2)], "the same number of steps, one at least, and got 3, 4"),
        (torch.zeros(0, 2), "the same number of steps, one at least, and got 0"),
    ],
)
def test_inputs_without_steps_are_refused(inputs: object, problem: str):
    with pytest.raises(InputError, match=problem):
        lstm_onnx.scan(lambda x, s: (x, s), inputs, torch.zeros(2))


@pytest.mark.parametrize("other", [1.0, {"b": torch.zeros(2)}, (torch.zeros(2), torch.zeros(2))])
def test_steps_whose_results_differ_are_refused(other: object):
    with pytest.raises(InputError, match="returns tensors, alike in each step; in step 2 y is"):
        lstm_onnx.scan(lambda _, n: ((other if n == 2 else {"a": torch.zeros(2)}), n + 1), torch.zeros(4, 2), 0)

"""A file declares no shape of an output that the module does not give, as where a slice finds fewer steps."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.exporter.trials.run import declare_true_shapes
from tests.exporter.helpers import X, agree, eager, made, signal

pytestmark = pytest.mark.sweep(5)


class Tail(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0][:, -self.steps :]


@pytest.mark.parametrize("steps", [1, 3])
def test_the_last_steps_of_fewer(steps: int, tmp_path: Path) -> None:
    module = Tail(steps).eval()
    result = made(module, signal(2, 5), X, tmp_path)
    for time in (1, 2, 3, 7):
        agree(result.run(signal(3, time)), eager(module, signal(3, time)))
    (output,) = result.model.outputs.values()
    assert output.shape == ("batch", 1 if steps == 1 else "Min(3, time)", 4)
    report = lstm_onnx.verify(module, result.path, provider="cpu", threads=1)
    assert report, str(report)


def test_another_rank_is_not_declared() -> None:
    def model() -> helper.ModelProto:
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 3])
        return helper.make_model(helper.make_graph([], "g", [], [output]))

    same, other = model(), model()
    declare_true_shapes(same, {"y": [((2, 4, 3), {"batch": 2}), ((1, 4, 3), {"batch": 1})]})
    assert same.SerializeToString() == model().SerializeToString()
    declare_true_shapes(other, {"y": [((2, 4, 3), {"batch": 2}), ((4, 3), {"batch": 1})]})
    assert not other.graph.output[0].type.tensor_type.HasField("shape")


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0][:, -1].squeeze()


def test_an_output_without_a_fixed_number_of_axes_is_noted(tmp_path: Path) -> None:
    module = Squeezed().eval()
    result = made(module, signal(2, 5), X, tmp_path)
    agree(result.run(signal(1, 5)), eager(module, signal(1, 5)))
    assert any("output has another number of axes at other sizes" in note for note in result.exported.notes)
    report = lstm_onnx.check(result.path, provider="cpu")
    assert not report  # onnx's checker refuses it
    assert "one number of axes at all sizes" in str(report)
    shapes = {"x": {0: torch.export.Dim("batch", min=2), 1: "time"}}
    result = made(module, signal(2, 5), shapes, tmp_path)
    assert result.exported.notes == ()
    assert lstm_onnx.check(result.path, provider="cpu")


class Spans(nn.Module):
    """Masks scores whose axis of 1 it squeezes: ``(batch, batch)`` where there is one step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0].squeeze() * (x[..., 0] != 0)


def test_an_axis_that_broadcasts_at_one_step_is_not_declared_as_time(tmp_path: Path) -> None:
    module = Spans().eval()
    result = made(module, signal(2, 5), X, tmp_path)
    for batch, time in ((3, 1), (1, 4), (3, 4)):
        agree(result.run(signal(batch, time)), eager(module, signal(batch, time)))
    assert result.model.outputs["output"].shape == ("batch", "output_1")
    report = lstm_onnx.verify(module, result.path, provider="cpu", threads=1)
    assert report, str(report)

"""A file that fixes a size or drops a step is not kept."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sympy
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lstm_onnx import MissingDependencyError
from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.functional_module import FixedSizeError
from lstm_onnx.exporter.functional.make_functional import make_functional
from lstm_onnx.exporter.tracing.size_decisions import RecurrentSize, SizeFacts
from lstm_onnx.exporter.trials.axis_limits import run_shape_trial
from lstm_onnx.exporter.trials.limits import requested_limits
from lstm_onnx.exporter.trials.shape_trial import RIGHT, UNRUN, WRONG, ShapeTrial, open_for_trial
from tests.exporter.helpers import X, agree, eager, made, signal

pytestmark = pytest.mark.sweep(12)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.position = nn.Parameter(torch.randn(16, 4))


def test_constants_made_from_sizes_stay_open(tmp_path: Path) -> None:
    class Mean(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0].sum(1) / torch.tensor([x.size(1)])

    module = Mean().eval()
    result = made(module, signal(2, 4), X, tmp_path)
    agree(result.run(signal(3, 9)), eager(module, signal(3, 9)))


def test_a_module_with_a_limit_of_its_own_is_kept(tmp_path: Path) -> None:
    class Limited(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0] + self.position[: x.size(1)]

    module = Limited().eval()
    result = made(module, signal(2, 4), X, tmp_path)
    agree(result.run(signal(3, 16)), eager(module, signal(3, 16)))
    assert result.model.metadata.axis_limits == {"time": (1, 16)}
    (note,) = result.exported.notes
    assert note.startswith("time is 16 or less in the file: at batch 2, time 17 the module's forward fails at ")


def test_a_size_that_is_one_up_to_a_long_axis_stays_open(tmp_path: Path) -> None:
    """After six strides of 2 one step is left of 64, and torch takes a size of 1 for a constant."""

    class Strided(Base):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv1d(3, 3, 3, stride=2, padding=1) for _ in range(6)])

        def forward(self, x: Tensor) -> Tensor:
            y = x.transpose(1, 2)
            for conv in self.convs:
                y = conv(y).tanh()
            y = y.transpose(1, 2)
            return self.lstm(y.contiguous().view(x.size(0), y.size(1), -1))[1][0]

    module = Strided().eval()
    result = made(module, signal(2, 4), X, tmp_path)
    for time in (1, 64, 65, 300):
        agree(result.run(signal(3, time)), eager(module, signal(3, time)))


def test_a_size_that_torch_compares_with_one_in_a_line_of_the_module_stays_open(tmp_path: Path) -> None:
    """Where four strides leave one step, torch compares it with 1 in the line of the normalization."""

    class Encoder(Base):
        def __init__(self) -> None:
            super().__init__()
            kept = {"kernel_size": 3, "stride": 2, "padding": 1}
            self.convs = nn.ModuleList([nn.Conv2d(inputs, 3, **kept) for inputs in (1, 3, 3, 3)])
            self.norms = nn.ModuleList([nn.BatchNorm2d(3) for _ in self.convs])

        def forward(self, x: Tensor) -> Tensor:
            y = x.view(x.size(0), 1, -1, 3)
            for conv, norm in zip(self.convs, self.norms, strict=True):
                y = norm(conv(y)).relu()
            y = y.transpose(1, 2)
            return self.lstm(y.contiguous().view(y.size(0), y.size(1), -1))[1][0]

    module = Encoder().eval()
    result = made(module, signal(2, 3), X, tmp_path)
    for time in (1, 16, 17, 300):
        agree(result.run(signal(3, time)), eager(module, signal(3, time)))


class Plain(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(Plain(), signal(2, 4), X, tmp_path_factory.mktemp("trial")).path


def tried(path: Path, module: nn.Module | None = None) -> tuple[str, ...]:
    module = module or Plain()
    functional = make_functional(module, bind_arguments(module, signal(2, 4), X))
    trial = ShapeTrial(open_for_trial(path), functional)
    return run_shape_trial(trial, requested_limits(functional, trial.metadata, trial.facts))


def test_a_right_file_passes(good: Path) -> None:
    assert tried(good) == ()


def test_wrong_weights_fail(good: Path, tmp_path: Path) -> None:
    proto = onnx.load(good)
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("/W"):
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(-numpy_helper.to_array(tensor)), tensor.name))
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(FixedSizeError, match=r"output is off by .* at batch 3, time 6, so it was not kept; something"):
        tried(tmp_path / "wrong.onnx")


def test_a_dropped_step_fails(good: Path, tmp_path: Path) -> None:
    proto = onnx.load(good)
    last = proto.graph.node[-1]
    last.output[0] = "whole"
    for name, value in (("starts", 0), ("ends", 4), ("axes", 1)):
        proto.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    proto.graph.node.append(onnx.helper.make_node("Slice", ["whole", "starts", "ends", "axes"], ["output"]))
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(
        FixedSizeError, match=r"output has shape \(3, 4, 4\) where the module gives \(3, 6, 4\) at batch"
    ):
        tried(tmp_path / "wrong.onnx")


def test_a_fixed_size_fails(good: Path, tmp_path: Path) -> None:
    proto = onnx.load(good)
    last = proto.graph.node[-1]
    last.output[0] = "whole"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2, 4, 4]), "shape"))
    proto.graph.node.append(onnx.helper.make_node("Reshape", ["whole", "shape"], ["output"]))
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(FixedSizeError, match=r"the exported file fails at batch 3, time 6, where the module runs"):
        tried(tmp_path / "wrong.onnx")


def test_without_onnx_runtime_the_way_out_is_named(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise MissingDependencyError("no ONNX Runtime")

    monkeypatch.setattr("lstm_onnx.exporter.trials.shape_trial.load", absent)
    with pytest.raises(MissingDependencyError, match=r"check=False skips that"):
        open_for_trial(good)


def test_a_module_that_runs_at_no_size_that_is_tried_is_noted(good: Path) -> None:
    class Picky(Plain):
        """Runs until the trial begins."""

        trying = False

        def forward(self, x: Tensor) -> Tensor:
            if self.trying:
                raise ValueError("not the example")
            return super().forward(x)

    functional = make_functional(Picky(), bind_arguments(Picky(), signal(2, 4), X))
    Picky.trying = True
    trial = ShapeTrial(open_for_trial(good), functional)
    assert run_shape_trial(trial, requested_limits(functional, trial.metadata, trial.facts)) == (
        "the file was not tested at other shapes: the module itself fails at all of those tried",
    )


def test_without_check_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.exporter.trials.run.ShapeTrial", None)
    assert made(Plain(), signal(2, 4), X, tmp_path, check=False).exported.notes == ()


def test_what_was_run_is_remembered(good: Path) -> None:
    functional = make_functional(Plain(), bind_arguments(Plain(), signal(2, 4), X))
    trial = ShapeTrial(open_for_trial(good), functional)
    assert not trial.ran
    first = trial.at({"batch": 3, "time": 5})
    assert first.kind == RIGHT
    assert trial.ran
    assert trial.at({"time": 5, "batch": 3}) is first


def test_a_file_of_another_dtype_is_wrong(good: Path, tmp_path: Path) -> None:
    proto = onnx.load(good)
    proto.graph.node[-1].output[0] = "single"
    proto.graph.node.append(onnx.helper.make_node("Cast", ["single"], ["output"], to=onnx.TensorProto.DOUBLE))
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(FixedSizeError, match=r"output has dtype float64 where the module gives float32 at batch 3"):
        tried(tmp_path / "wrong.onnx")


def test_small_outputs_are_held_to_their_own_scale(good: Path, tmp_path: Path) -> None:
    class Quiet(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 1e-6

    path = made(Quiet(), signal(2, 4), X, tmp_path).path
    assert tried(path, Quiet()) == ()
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("/W"):
            array = numpy_helper.to_array(tensor) * np.float32(1.001)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(
        FixedSizeError, match=r"output is off by \S+e-\d+, where its largest number is \S+e-07 at batch 3"
    ):
        tried(tmp_path / "wrong.onnx", Quiet())


def test_no_file_is_run_with_a_recurrent_module_of_no_steps(good: Path) -> None:
    functional = make_functional(Plain(), bind_arguments(Plain(), signal(2, 4), X))
    time = sympy.Symbol("s1")
    facts = SizeFacts(recurrent=(RecurrentSize("lstm", 0, "steps", time - 2, {time: ("x", 1)}),))
    trial = ShapeTrial(open_for_trial(good), functional, facts)
    trial.model.run = None  # type: ignore[method-assign, assignment]
    outcome = trial.at({"batch": 1, "time": 2})
    assert (outcome.kind, outcome.message) == (WRONG, "the exported file gives lstm 0 steps")
    guarded = ShapeTrial(open_for_trial(good), functional, facts, [("lstm", 0)])
    assert guarded.at({"batch": 1, "time": 2}).kind == RIGHT


def test_where_the_module_does_not_run_the_file_is_not_asked(good: Path) -> None:
    class Long(Plain):
        def forward(self, x: Tensor) -> Tensor:
            if x.size(1) < 4:
                raise ValueError("too short")
            return super().forward(x)

    functional = make_functional(Long(), bind_arguments(Long(), signal(2, 4), X))
    trial = ShapeTrial(open_for_trial(good), functional)
    outcome = trial.at({"batch": 2, "time": 3})
    assert outcome.kind == UNRUN
    assert "ValueError: too short" in outcome.message
    assert trial.at({"batch": 2, "time": 4}).kind == RIGHT


@pytest.mark.parametrize("cut", [False, True])
def test_a_note_says_where_the_longest_sequence_must_fill_the_padding(tmp_path: Path, cut: bool) -> None:
    """PyTorch broadcasts the single step that is left of the output; the file has one time axis for both."""

    class Gated(Base):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            out = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
            return out if cut else x[..., :1] * out

    inputs = {"x": torch.randn(2, 6, 3), "lengths": torch.tensor([6, 3])}
    shapes = {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    notes = made(Gated().eval(), inputs, shapes, tmp_path).exported.notes
    assert [note.partition(": ")[0] for note in notes] == (
        [] if cut else ["the file is right only where the longest of lengths equals time"]
    )


def test_a_number_made_of_a_computed_size_stays_open(tmp_path: Path) -> None:
    class Padded(Base):
        def forward(self, x: Tensor) -> Tensor:
            missing = int(math.ceil(x.size(1) / 4)) * 4 - x.size(1)  # noqa: RUF046 - as people write it
            return self.lstm(nn.functional.pad(x, (0, 0, 0, missing)))[0].sum(1)

    module = Padded().eval()
    result = made(module, signal(2, 6), X, tmp_path)
    for time in (1, 4, 5, 8, 11):
        agree(result.run(signal(3, time)), eager(module, signal(3, time)))


class Padded(Base):
    """Packed and padded again, and joined with what has all steps."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        steps = (lengths * x.shape[1]).long() if lengths.is_floating_point() else lengths
        packed = pack_padded_sequence(x, steps, batch_first=True, enforce_sorted=False)
        y = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
        return y.reshape(*x.shape[:2], 4)


@pytest.mark.parametrize("lengths", [torch.tensor([3, 6]), torch.tensor([0.5, 1.0])])
def test_lengths_of_which_none_is_left_that_fills_its_axis_limit_nothing(lengths: Tensor, tmp_path: Path) -> None:
    """A batch of 1 keeps the shorter sequence, and half of one step is none."""
    axes = {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    module = Padded().eval()
    result = made(module, (signal(2, 6)[0], lengths), axes, tmp_path)
    assert result.model.metadata.axis_limits == {}
    for batch, time in ((1, 1), (1, 5), (3, 1)):
        full = torch.full((batch,), time if lengths.dtype == torch.int64 else 1.0, dtype=lengths.dtype)
        agree(result.run((signal(batch, time)[0], full)), eager(module, (signal(batch, time)[0], full)))

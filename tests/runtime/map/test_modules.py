"""Modules over sequences of any length: padded where that changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.map import map as mapping
from lstm_onnx.runtime.map.map import map_sequences
from lstm_onnx.runtime.map.sample import SequenceLayout
from tests.module_files import module_file

from ..models import accumulator, randoms
from .support import tokens_of

pytestmark = pytest.mark.sweep(3)


def frames_of(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal((rng.integers(1, 9), 5)).astype(np.float32) for _ in range(count)]


def used(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each run that the map makes, as they come."""
    rows: list[int] = []
    real = mapping._Mapping._run
    batch = SequenceLayout.of(model)

    def run(self: Any, feeds: dict[str, np.ndarray]) -> Any:
        name, info = next((name, info) for name, info in model.inputs.items() if batch.batch in info.shape)
        rows.append(feeds[name].shape[info.shape.index(batch.batch)])
        return real(self, feeds)

    monkeypatch.setattr(mapping._Mapping, "_run", run)
    return rows


@pytest.mark.sweep(4)
@pytest.mark.parametrize(
    ("name", "padded"),
    [
        ("packed_tagger", True),
        ("packed_sentiment", True),
        ("packed_time_first", True),
        ("packed_tagger_trimmed", True),  # its output's axis is one that no input has
        ("packed_sorted", True),
        ("packed_mean", True),
        ("packed_wide_padding", False),  # and this one's is "time + 3"
        ("packed_counting", False),  # no lengths
    ],
)
def test_modules_give_what_each_sequence_alone_gives(name: str, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(module_file(name), "cpu", 1)
    tokens = model.inputs[next(iter(model.inputs))].dtype == np.int64
    first = next(iter(model.inputs))
    sequences = tokens_of(40) if tokens else frames_of(40)
    at = model.inputs[first].shape.index("batch")
    expected = []
    for x in sequences:
        feeds = {first: np.expand_dims(x, at)}
        if "lengths" in model.inputs:
            feeds["lengths"] = np.array([len(x)])
        expected.append(model.run(feeds))
    rows = used(model, monkeypatch)
    found = list(map_sequences(model, ({first: x} for x in sequences), look_ahead=24, batch=4))
    assert len(found) == 40
    for result, right in zip(found, expected, strict=True):
        assert list(result) == list(right)
        for output, value in right.items():
            own = value.squeeze(model.outputs[output].shape.index("batch"))
            assert result[output].shape == own.shape
            np.testing.assert_allclose(result[output], own, rtol=0, atol=1e-5)
    assert max(rows) > 1
    if padded:
        assert sum(rows) / len(rows) > 2.5


class Smeared(torch.nn.Module):
    """Takes lengths, and then looks at the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(5, 6, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.size(1))
        return output.mean(1)


def test_a_module_whose_results_change_with_padding_is_not_padded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lstm_onnx.export(
        Smeared(),
        tmp_path / "m.onnx",
        example_inputs=(torch.randn(2, 5, 5), torch.tensor([5, 3])),
        dynamic_shapes={"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
    )
    model = load(tmp_path / "m.onnx", "cpu", 1)
    assert SequenceLayout.of(model).padded == {"time"}
    sequences = frames_of(40)
    for result, x in zip(map_sequences(model, [{"x": x} for x in sequences], batch=4), sequences, strict=True):
        right = model.run({"x": x[None], "lengths": np.array([len(x)])})["output"][0]
        np.testing.assert_allclose(result["output"], right, rtol=0, atol=1e-6)


class Loudest(torch.nn.Module):
    """The largest of all steps, those of the padding as well, which are zeros: it matters to short sequences alone."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(5, 3, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0].amax(1)


def test_padding_that_matters_to_few_sequences_is_found_before_they_come(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lstm_onnx.export(
        Loudest(),
        tmp_path / "m.onnx",
        example_inputs=(torch.randn(2, 5, 5), torch.tensor([5, 3])),
        dynamic_shapes={"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
    )
    model = load(tmp_path / "m.onnx", "cpu", 1)
    sequences = [randoms(steps, 5, seed=at) for at, steps in enumerate([*range(20, 36), *([1, 30] * 8)])]
    for result, x in zip(map_sequences(model, [{"x": x} for x in sequences], look_ahead=16), sequences, strict=True):
        right = model.run({"x": x[None], "lengths": np.array([len(x)])})["output"][0]
        np.testing.assert_allclose(result["output"], right, rtol=0, atol=1e-6)


class Mirrored(torch.nn.Module):
    """A convolution of small weights that mirrors the end, before packed steps: padding changes little."""

    def __init__(self) -> None:
        super().__init__()
        self.pad, self.conv = torch.nn.ReflectionPad1d(1), torch.nn.Conv1d(5, 4, 3)
        self.lstm = torch.nn.LSTM(4, 6, batch_first=True, bidirectional=True)
        with torch.no_grad():
            self.conv.weight.mul_(1e-3)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        y = self.conv(self.pad(x.transpose(1, 2))).transpose(1, 2)
        packed = pack_padded_sequence(y, lengths, batch_first=True, enforce_sorted=False)
        steps: torch.Tensor = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
        return steps


def test_small_changes_by_padding_are_no_rounding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Mirrored().eval(), tmp_path / "mirrored.onnx"
    shapes = {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    lstm_onnx.export(module, path, example_inputs=(torch.randn(2, 6, 5), torch.tensor([6, 4])), dynamic_shapes=shapes)
    sequences = [np.concatenate([frames] * 2) for frames in frames_of(40)]
    model = load(path, provider="cpu", threads=1)
    for sequence, output in zip(sequences, model.map({"x": x} for x in sequences), strict=True):
        alone = model.run({"x": sequence[None], "lengths": np.array([len(sequence)])})["output"][0]
        np.testing.assert_allclose(next(iter(output.values())), alone, rtol=0, atol=2e-6)


def test_equal_lengths_come_first_and_others_later() -> None:
    """What was not tried yet is not relied on: the first window has one length alone."""
    model = load(module_file("packed_wide_padding"), "cpu", 1)
    sequences = [randoms(6, 5, seed=at) for at in range(8)] + frames_of(16)
    for result, x in zip(map_sequences(model, [{"x": x} for x in sequences], look_ahead=16), sequences, strict=True):
        right = model.run({"x": x[None], "lengths": np.array([len(x)])})["output"][0]
        assert result["output"].shape == right.shape
        np.testing.assert_allclose(result["output"], right, rtol=0, atol=1e-6)


def test_an_input_without_a_batch_axis_is_shared_by_those_that_have_the_same(tmp_path: Path) -> None:
    model = load(accumulator(tmp_path / "a.onnx"), "cpu", states={"state": "stateN"})
    samples: list[dict[str, Any]] = [{"x": randoms(3, seed=at), "scale": at % 2 + 1} for at in range(9)]
    for at, result in enumerate(map_sequences(model, samples, batch=4)):
        np.testing.assert_allclose(result["y"], samples[at]["x"] * (at % 2 + 1), rtol=0, atol=1e-6)


def test_a_model_without_a_batch_axis_runs_one_at_a_time() -> None:
    model = load(module_file("tutorial_tagger"), "cpu")
    sequences = tokens_of(7)
    for result, x in zip(map_sequences(model, [{"sentence": x} for x in sequences]), sequences, strict=True):
        for name, value in model.run({"sentence": x}).items():
            np.testing.assert_array_equal(result[name], value)


def test_rows_of_a_foreign_file_that_affect_each_other_run_alone(tmp_path: Path) -> None:
    """It subtracts the batch's mean, as a batch norm that was exported in training mode does."""
    shape = ["batch", 3]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        "centred",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array([0]), "axis")],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx", "cpu")
    for result in model.map([{"x": np.full(3, index, np.float32)} for index in range(200)]):
        np.testing.assert_array_equal(result["y"], np.zeros(3, np.float32))


def test_a_batch_axis_that_is_none_is_an_error(tmp_path: Path) -> None:
    """The file declares its output batch first, and gives it time first."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "time", 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0, 2])], "g", [x], [y])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    sequences = [{"x": np.ones((3, 2), np.float32)}] * 2
    with pytest.raises(lstm_onnx.RunError, match=r"y of shape \(3, 1, 2\) for a batch of 1, and declares y"):
        list(load(tmp_path / "m.onnx", "cpu").map(sequences))


def test_an_input_of_one_number_for_each_sequence(tmp_path: Path) -> None:
    shapes = {"x": ["batch", "time", 2], "gain": ["batch"], "y": ["batch", "time", 2]}
    x, gain, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    nodes = [helper.make_node("Unsqueeze", ["gain", "axes"], ["g"]), helper.make_node("Mul", ["x", "g"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x, gain], [y], [numpy_helper.from_array(np.array([1, 2]), "axes")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx", "cpu", 1)
    given = [{"x": np.full((3, 2), number + 1, np.float32), "gain": np.float32(number)} for number in range(6)]
    for item, found in zip(given, map_sequences(model, given, batch=3), strict=True):
        np.testing.assert_array_equal(found["y"], item["x"] * item["gain"])


def test_sizes_are_told_apart_by_their_axes(tmp_path: Path) -> None:
    """The arrays of a dict may come in any order."""
    named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", name * 2]) for name in "uv"]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    sums = [helper.make_node("ReduceSum", [name, "axis"], [f"{name}_sum"]) for name in "uv"]
    both = helper.make_node("Concat", ["u_sum", "v_sum"], ["y"], axis=1)
    axis = numpy_helper.from_array(np.array([1]), "axis")
    graph = helper.make_graph([*sums, both], "sums", named, [output], [axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "m.onnx")
    few, many = np.ones(3, np.float32), np.ones(5, np.float32)
    results = load(tmp_path / "m.onnx", "cpu").map([{"u": few, "v": many}, {"v": few, "u": many}])
    assert [result["y"].tolist() for result in results] == [[3, 5], [5, 3]]

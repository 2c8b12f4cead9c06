"""Golden files: what was compared comes back as it was, and nothing else is taken for one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ConfigError, FileError
from lstm_onnx.parity.expected import Call, Expected
from lstm_onnx.parity.golden import verify_golden
from lstm_onnx.parity.golden_file import Golden, read, write

from ..module_files import module_file
from .golden_cases import exported_steps, replayed_golden, small_lstm, stored_golden, with_another_weight

pytestmark = pytest.mark.sweep(9)


@pytest.mark.sweep(9)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"bidirectional": True, "num_layers": 2, "batch_first": True},
        {"proj_size": 3},
        {"dtype": torch.float16},
        {"dtype": torch.float64, "proj_size": 3},
        {"scale": 40.0, "hidden_size": 64},
        {"scale": 1e-3},
    ],
    ids=lambda arguments: " ".join(arguments) or "plain",
)
def test_a_replay_gives_what_the_verification_gave(arguments: dict[str, Any], tmp_path: Path) -> None:
    module, path, out = small_lstm(**arguments), tmp_path / "m.onnx", tmp_path / "m.npz"
    lstm_onnx.export(module, path, lengths="bidirectional" in arguments)
    report, _ = stored_golden(module, path, out)
    again = replayed_golden(path, out)
    assert report
    assert again
    assert again.cases == tuple(case for case in report.cases if not case.label.startswith("weights amplified"))
    assert again.notes == report.notes
    assert again.versions["torch"] == torch.__version__
    assert {case.kind for case in again.cases} >= ({"whole", "steps"} if "hidden_size" in arguments else {"whole"})
    assert ({"chunks", "pool"} <= {case.kind for case in again.cases}) is not ("bidirectional" in arguments)


@pytest.mark.usefixtures("without_sweeps")
def test_modules_with_states_chunks_pools_and_integers(tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "m.npz"
    report, kept = stored_golden(exported_steps(path), path, out)
    again = replayed_golden(path, out)
    assert again, str(again)
    verified = [case for case in report.cases if not case.label.startswith("weights amplified")]
    strict = [  # in a golden file, no integer may differ that rounding does not change
        replace(case, tensors=tuple(replace(one, allowed=0.0) if one.output == "output.1" else one for one in tensors))
        for case, tensors in ((case, case.tensors) for case in verified)
    ]
    assert again.cases == tuple(strict)
    assert {case.kind for case in again.cases} >= {"whole", "chunks", "pool"}
    assert {call.feeds["tokens"].dtype for case in read(out).cases for call in case.calls} == {np.dtype(np.int64)}
    assert any(case.least for case in kept.cases)


@pytest.mark.usefixtures("without_sweeps")
def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "m.npz"
    _, kept = stored_golden(exported_steps(path), path, out)
    found = read(out)
    assert (found.source, found.digest, found.notes) == ("Steps", kept.digest, kept.notes)
    assert found.digest == lstm_onnx.load(path, provider="cpu").metadata.digest
    assert found.versions == kept.versions
    for mine, theirs in zip(found.cases, kept.cases, strict=True):
        assert replace(mine, calls=()) == replace(theirs, calls=())
        for one, other in zip(mine.calls, theirs.calls, strict=True):
            for part in ("feeds", "native", "reference"):
                ours, right = getattr(one, part), getattr(other, part)
                assert list(ours) == list(right)
                for name, array in ours.items():
                    assert array.dtype == right[name].dtype
                    np.testing.assert_array_equal(array, right[name])


def test_equal_goldens_are_equal_bytes_and_a_plain_npz(made: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = made
    write(tmp_path / "again.npz", read(out))
    assert (tmp_path / "again.npz").read_bytes() == out.read_bytes()
    with np.load(out, allow_pickle=False) as arrays:
        header = json.loads(arrays["golden"].tobytes())
        assert header["version"] == 3
        call = header["cases"][0]["calls"][0]
        assert call["feeds"]["input"] == ["float32", [1, 1, 4], [0]]
        assert call["reference"]["output"][:2] == ["float64", [1, 1, 6]]
        assert {name: arrays[name].dtype.name for name in ("float32", "float64")} == {
            "float32": "float32",
            "float64": "float64",
        }


@pytest.mark.usefixtures("without_sweeps")
def test_arrays_that_are_equal_are_kept_once(tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "m.npz"
    _, kept = stored_golden(exported_steps(path), path, out)
    pool = next(at for at, case in enumerate(kept.cases) if case.kind == "pool")
    with np.load(out) as arrays:
        cases = json.loads(arrays["golden"].tobytes())["cases"]
    # A pool's case is that of the chunks before it.
    parts = ("feeds", "own", "reference")
    assert [[call[part] for part in parts] for call in cases[pool]["calls"]] == [
        [call[part] for part in parts] for call in cases[pool - 1]["calls"]
    ]


def test_inputs_keep_their_dtype_and_outputs_come_back_as_float64(tmp_path: Path) -> None:
    """Zeros of a float64 model's state are float64, also where float16 would hold them."""
    feeds = {name: np.zeros((1, 2), dtype) for name, dtype in (("a", "f8"), ("b", "f4"), ("c", "?"), ("d", "u1"))}
    outputs = {"y": np.zeros((1, 2)), "n": np.array([[3, 4]])}
    call = Call(feeds, outputs, outputs)
    write(tmp_path / "m.npz", Golden("x", (Expected("a", (call,), "float64", 1.0),)))
    (found,) = read(tmp_path / "m.npz").cases[0].calls
    assert {name: array.dtype for name, array in found.feeds.items()} == {n: array.dtype for n, array in feeds.items()}
    assert {name: array.dtype.kind for name, array in found.native.items()} == {"y": "f", "n": "i"}
    assert found.native["y"].dtype == found.reference["y"].dtype == np.float64


def test_calls_of_a_stream_that_is_given_states_once_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((2, 1, 3)), "h": rng.standard_normal((1, 1, 4))}]
    feeds.append({"x": rng.standard_normal((5, 1, 3))})
    calls = tuple(Call(each, {"y": each["x"]}, {"y": each["x"]}) for each in feeds)
    write(tmp_path / "m.npz", Golden("x", (Expected("a", calls, "float64", 1.0, kind="chunks"),)))
    found = read(tmp_path / "m.npz").cases[0].calls
    assert [sorted(call.feeds) for call in found] == [["h", "x"], ["x"]]
    for call, each in zip(found, feeds, strict=True):
        for name, array in each.items():
            np.testing.assert_array_equal(call.feeds[name], array)
    write(tmp_path / "m.npz", Golden("x", (Expected("a", calls, "float64", 1.0),)))
    with pytest.raises(FileError, match="calls of one case differ in inputs"):
        read(tmp_path / "m.npz")


def test_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 1e300, 5e-324, -0.0]])
    call = Call({"input": values}, {"output": values}, {"output": values})
    write(tmp_path / "m.npz", Golden("x", (Expected("a", (call,), "float32", math.inf),)))
    case = read(tmp_path / "m.npz").cases[0]
    np.testing.assert_array_equal(case.calls[0].native["output"], values)
    assert np.signbit(case.calls[0].reference["output"][0, -1])
    assert case.scale == math.inf


def test_a_wrong_file_fails(made: tuple[Path, Path], tmp_path: Path) -> None:
    path, out = made
    with_another_weight(path, tmp_path / "wrong.onnx")
    report = replayed_golden(tmp_path / "wrong.onnx", out)
    assert not report
    assert report.notes == ()
    assert report.file == str(tmp_path / "wrong.onnx")
    assert report.source == f"LSTM (golden file {out})"
    assert report.location is not None
    assert (report.location.case, report.location.output) == ("batch 1, time 1, states", "output")
    assert (report.location.step, report.location.layer) == (0, None)


class _Tags(nn.Module):
    def __init__(self, wrong: int = 0) -> None:
        super().__init__()
        self.embedding, self.lstm, self.wrong = nn.Embedding(12, 3), nn.LSTM(3, 6, batch_first=True), wrong

    def forward(self, tokens: Tensor) -> Tensor:
        tags = self.lstm(self.embedding(tokens))[0].argmax(-1)
        return torch.where(torch.arange(tokens.shape[1]) == 70, (tags + self.wrong) % 6, tags)


@pytest.mark.sweep(5)
def test_an_integer_that_differs_in_each_long_call_fails(tmp_path: Path) -> None:
    right, axes = _Tags(), {"tokens": {0: "batch", 1: "time"}}
    files = {wrong: tmp_path / f"{wrong}.onnx" for wrong in (0, 1)}
    for wrong, path in files.items():
        module = _Tags(wrong)
        module.load_state_dict(right.state_dict())
        example = torch.arange(12).reshape(2, 6)
        lstm_onnx.export(module, path, example_inputs=(example,), dynamic_shapes=axes, check=False)
    _, golden = stored_golden(right, files[0], tmp_path / "m.npz")
    report = replayed_golden(files[1], tmp_path / "m.npz")
    assert " integers" in str(report)
    assert not report
    # A golden file of an older version does not say which integers rounding may change.
    calls = [tuple(replace(call, ties={}) for call in case.calls) for case in golden.cases]
    old = [replace(case, calls=each) for case, each in zip(golden.cases, calls, strict=True)]
    write(tmp_path / "m.npz", replace(golden, cases=tuple(old)))
    assert replayed_golden(files[0], tmp_path / "m.npz")
    report = replayed_golden(files[1], tmp_path / "m.npz")
    assert "differs in integers, as in " in str(report)
    assert not report


class _Where(_Tags):
    """Wrong in the fourth step of few sequences."""

    def forward(self, tokens: Tensor) -> Tensor:
        tags = self.lstm(self.embedding(tokens))[0].argmax(-1)
        rare = (torch.arange(tokens.shape[1]) == 3) & (tokens.sum(1, keepdim=True) % 41 == 0)
        return torch.where(rare, (tags + self.wrong) % 6, tags)


def test_an_integer_that_differs_in_few_calls_fails(tmp_path: Path) -> None:
    right, wrong = _Where(), _Where(1)
    wrong.load_state_dict(right.state_dict())
    for module in (right, wrong):
        example = (torch.arange(12).reshape(2, 6),)
        axes = {"tokens": {0: "batch", 1: "time"}}
        lstm_onnx.export(
            module, tmp_path / f"{module.wrong}.onnx", example_inputs=example, dynamic_shapes=axes, check=False
        )
    stored_golden(right, tmp_path / "0.onnx", tmp_path / "m.npz")
    assert replayed_golden(tmp_path / "0.onnx", tmp_path / "m.npz")
    assert not replayed_golden(tmp_path / "1.onnx", tmp_path / "m.npz")


def test_other_weights_fail_and_are_said(made: tuple[Path, Path], tmp_path: Path) -> None:
    lstm_onnx.export(small_lstm(scale=1.1), tmp_path / "other.onnx")
    report = replayed_golden(tmp_path / "other.onnx", made[1])
    assert not report
    assert any("other weights than the golden file's" in note for note in report.notes)


def test_other_sizes_fail_case_by_case(made: tuple[Path, Path], tmp_path: Path) -> None:
    lstm_onnx.export(small_lstm(hidden_size=7), tmp_path / "other.onnx")
    report = replayed_golden(tmp_path / "other.onnx", made[1])
    assert not report
    assert "axis 2 must be 7" in report.cases[0].error


def test_a_file_that_takes_or_gives_other_things_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is it this file's golden file") as caught:
        replayed_golden(module_file("sentiment_last_hidden"), made[1])
    assert "is from a model with inputs c0, h0, input and outputs cn, hn, output" in str(caught.value)
    lstm_onnx.export(small_lstm(), tmp_path / "l.onnx", lengths=True)
    stored_golden(small_lstm(), tmp_path / "l.onnx", tmp_path / "l.npz")
    with pytest.raises(ConfigError, match="inputs c0, h0, input, lengths"):
        replayed_golden(made[0], tmp_path / "l.npz")
    # The other way about, lengths are every sequence whole, as they are for a caller.
    assert replayed_golden(tmp_path / "l.onnx", made[1])


def test_a_file_whose_output_cannot_be_put_together_fails(made: tuple[Path, Path], tmp_path: Path) -> None:
    """A graph that loses the time axis of its output, which chunks and slots want to join along."""
    model = onnx.load(made[0])
    for node in model.graph.node:
        for at, name in enumerate(node.output):
            if name == "output":
                node.output[at] = "whole"
    axes = numpy_helper.from_array(np.array([0, 1, 2]), "axes")
    model.graph.initializer.append(axes)
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["whole", "axes"], ["output"], keepdims=0))
    next(o for o in model.graph.output if o.name == "output").type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "wrong.onnx")
    report = replayed_golden(tmp_path / "wrong.onnx", made[1])
    assert not any(case.passed for case in report.cases)
    assert {case.kind for case in report.cases} >= {"whole", "chunks", "pool", "sweep"}


def test_a_golden_of_one_provider_is_run_on_a_loaded_model(made: tuple[Path, Path]) -> None:
    model = lstm_onnx.load(made[0], provider="cpu", threads=1)
    report = verify_golden(model, made[1])
    assert report
    assert report.provider == "cpu"

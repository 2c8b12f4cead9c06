"""Models are called as nn.LSTM is, and by name."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx.runtime import load

from ..models import randoms
from .support import BATCH, TIME, assert_close, by_torch, drawn, flat, pair, quiet_torch

SIZES = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "bidirectional_stack": {"bidirectional": True, "num_layers": 2},
    "bidirectional_batch_first": {"bidirectional": True, "batch_first": True},
    "projected": {"proj_size": 2},
    "projected_bidirectional_stack": {"proj_size": 2, "bidirectional": True, "num_layers": 2, "batch_first": True},
    "no_bias": {"bias": False},
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("given", [True, False], ids=["states", "no_states"])
def test_calls_like_torch(tmp_path: Path, sizes: dict[str, Any], given: bool):
    model, module, spec = pair(tmp_path, **sizes)
    x, states = drawn(spec)
    states = states if given else None
    assert_close(flat(model(x, states)), by_torch(module, x, states))


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("given", [True, False], ids=["states", "no_states"])
def test_one_sequence_has_no_batch_axis(tmp_path: Path, sizes: dict[str, Any], given: bool):
    model, module, spec = pair(tmp_path, **sizes)
    _, (h0, c0) = drawn(spec, batch=1)
    x, states = randoms(TIME, spec.input_size), (h0[:, 0], c0[:, 0]) if given else None
    assert_close(flat(model(x, states)), by_torch(module, x, states))


def test_torch_s_own_export_and_module(tmp_path: Path):
    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 7, num_layers=2, dropout=0.5).eval()
    lstm_onnx.export(module, tmp_path / "m.onnx")
    x = randoms(TIME, BATCH, 3)
    assert_close(flat(load(tmp_path / "m.onnx", "cpu", 1)(x)), by_torch(module, x, None))


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("given", [True, False], ids=["states", "no_states"])
def test_lengths_are_packed_sequences(tmp_path: Path, sizes: dict[str, Any], given: bool):
    model, module, spec = pair(tmp_path, lengths=True, **sizes)
    x, states = drawn(spec)
    lengths = [2, TIME, 1]
    with quiet_torch():
        packed = pack_padded_sequence(
            torch.tensor(x), torch.tensor(lengths), batch_first=spec.batch_first, enforce_sorted=False
        )
        output, (hn, cn) = module(packed, tuple(map(torch.tensor, states)) if given else None)
        output, _ = pad_packed_sequence(output, batch_first=spec.batch_first, total_length=TIME)
    expected = [output.numpy(), hn.numpy(), cn.numpy()]
    padded = x.copy()
    for index, length in enumerate(lengths):
        (padded[index] if spec.batch_first else padded[:, index])[length:] = np.nan
    for sequences in (x, padded):
        assert_close(flat(model(sequences, states if given else None, lengths=lengths)), expected)


def test_lengths_of_any_integer_kind(tmp_path: Path):
    model, _, spec = pair(tmp_path, lengths=True)
    x, _ = drawn(spec)
    kinds = [(2, 6, 1), np.array([2, 6, 1]), np.array([2, 6, 1], np.uint8), torch.tensor([2, 6, 1])]
    expected = flat(model(x, lengths=[2, 6, 1]))
    assert expected[0][2:, 0].tolist() == np.zeros((4, 5)).tolist()
    for lengths in kinds:
        assert_close(flat(model(x, lengths=lengths)), expected, 0)
        assert_close(list(model.run({"input": x, "lengths": lengths}).values()), expected, 0)


def test_without_lengths_every_sequence_is_whole(tmp_path: Path):
    model, module, spec = pair(tmp_path, lengths=True)
    x, states = drawn(spec)
    assert_close(flat(model(x, states)), by_torch(module, x, states))
    assert_close(flat(model(x[:, 0])), by_torch(module, x[:, 0], None))


def test_torch_in_torch_out(tmp_path: Path):
    model, module, spec = pair(tmp_path, batch_first=True)
    x, states = drawn(spec)
    found = flat(model(torch.tensor(x), states))
    assert [type(tensor) for tensor in found] == [torch.Tensor] * 3
    assert_close([tensor.numpy() for tensor in found], by_torch(module, x, states))
    one = flat(model(torch.tensor(x[0])))
    assert [type(tensor) for tensor in one] == [torch.Tensor] * 3
    assert_close([tensor.numpy() for tensor in one], by_torch(module, x[0], None))


def test_numpy_in_numpy_out_whatever_the_states_are(tmp_path: Path):
    model, module, spec = pair(tmp_path)
    x, states = drawn(spec)
    found = flat(model(x, tuple(torch.tensor(array) for array in states)))
    assert [type(array) for array in found] == [np.ndarray] * 3
    assert_close(found, by_torch(module, x, states))


def test_lists_are_taken_in_the_models_dtype(tmp_path: Path):
    model, _, spec = pair(tmp_path)
    x, (h0, c0) = drawn(spec)
    found = flat(model(x.tolist(), [h0.tolist(), c0.tolist()]))
    assert [array.dtype for array in found] == [np.float32] * 3
    assert_close(found, flat(model(x, (h0, c0))), 0)


def test_any_memory_layout(tmp_path: Path):
    model, _, spec = pair(tmp_path)
    x, states = drawn(spec)
    expected = flat(model(x, states))
    backwards = np.ascontiguousarray(x[::-1])[::-1]
    locked = x.copy()
    locked.flags.writeable = False
    transposed = torch.tensor(np.ascontiguousarray(x.swapaxes(0, 1))).transpose(0, 1)
    for other in (np.asfortranarray(x), backwards, locked, transposed):
        found = [np.asarray(array) for array in flat(model(other, tuple(map(np.asfortranarray, states))))]
        assert_close(found, expected, 0)


def test_the_callers_arrays_are_not_changed(tmp_path: Path):
    model, _, spec = pair(tmp_path, lengths=True)
    x, states = drawn(spec)
    lengths = np.array([1, 2, 3])
    kept = [array.copy() for array in (x, *states, lengths)]
    feeds = {"input": x}
    model(x, states, lengths=lengths)
    model.run(feeds)
    assert list(feeds) == ["input"]
    for before, after in zip(kept, (x, *states, lengths), strict=True):
        np.testing.assert_array_equal(before, after)


def test_nan_spoils_nothing_but_its_own_sequence(tmp_path: Path):
    # ONNX Runtime's CPU gates clamp NaN to a number, so the steps after it say nothing of it.
    model, _, spec = pair(tmp_path)
    x, _ = drawn(spec)
    clean = flat(model(x))[0]
    x[3, 1, 0] = np.nan
    with pytest.warns(RuntimeWarning, match="input has a NaN"):
        found = flat(model(x))[0]
    np.testing.assert_array_equal(found[:3], clean[:3])
    np.testing.assert_array_equal(found[:, [0, 2]], clean[:, [0, 2]])
    assert (found[3:, 1] != clean[3:, 1]).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf, 3e38])
def test_infinity_is_a_value(tmp_path: Path, value: float):
    model, module, spec = pair(tmp_path)
    x, states = drawn(spec)
    x[3, 1, 0] = value
    with pytest.warns(RuntimeWarning, match="an infinity") if np.isinf(value) else contextlib.nullcontext():
        found = flat(model(x, states))
    assert_close(found, by_torch(module, x, states))


def test_run_by_name_fills_in_the_states(tmp_path: Path):
    model, module, spec = pair(tmp_path)
    x, (h0, c0) = drawn(spec)
    assert list(model.run({"input": x})) == ["output", "hn", "cn"]
    assert_close(list(model.run({"input": x}).values()), by_torch(module, x, None))
    expected = by_torch(module, x, (np.zeros_like(h0), c0))
    assert_close(list(model.run({"c0": c0, "input": x}).values()), expected)
    assert all(isinstance(tensor, torch.Tensor) for tensor in model.run({"input": torch.tensor(x)}).values())


def test_what_a_model_says_of_itself(tmp_path: Path):
    model, _, spec = pair(tmp_path, lengths=True, batch_first=True)
    assert model.spec == spec
    assert model.provider == "cpu"
    assert model.states == {"h0": "hn", "c0": "cn"}
    assert [str(info) for info in model.inputs.values()] == [
        "input float32 (batch, time, 4)",
        "h0 float32 (1, batch, 5)",
        "c0 float32 (1, batch, 5)",
        "lengths int32 (batch)",
    ]
    assert list(model.outputs) == ["output", "hn", "cn"]
    assert f"<Model {model.path} on cpu: input float32 (batch, time, 4); h0" in repr(model)


def test_many_threads_run_one_model(tmp_path: Path):
    model, _, spec = pair(tmp_path, num_layers=2)
    inputs = [randoms(TIME + index, BATCH, spec.input_size, seed=index) for index in range(6)]
    expected = [flat(model(x)) for x in inputs]

    def runs(index: int) -> list[list[np.ndarray]]:
        return [flat(model(inputs[index])) for _ in range(20)]

    with ThreadPoolExecutor(6) as pool:
        for index, results in enumerate(pool.map(runs, range(6))):
            assert len(results) == 20
            for result in results:
                assert_close(result, expected[index], 0)


def test_strings_stay_numpy_s_where_tensors_are_passed(tmp_path: Path) -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT64, ["n"])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.STRING, ["n"])
    words = onnx.numpy_helper.from_array(np.array(["no", "yes"], object), "words")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Gather", ["words", "x"], ["y"])], "g", [x], [y], [words])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), tmp_path / "m"
    )
    assert load(tmp_path / "m", "cpu", 1).run({"x": torch.tensor([1, 0])})["y"].tolist() == ["yes", "no"]

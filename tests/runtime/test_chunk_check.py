"""Files of other tools: a stream equals the whole sequence, or is refused when it is opened."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import InputError
from lstm_onnx.runtime.chunk_check import WholeSequence, difference

from .models import accumulator, centred_rows

SIZE, H = 3, 4
BOTH = {"h": "hn", "c": "cn"}


class Voice(nn.Module):
    """As sherpa-onnx and silero export theirs: states as arguments, and whatever `step` does around the LSTM."""

    def __init__(self, step: Callable[..., Any], core: type[nn.RNNBase] = nn.LSTM, **options: Any) -> None:
        super().__init__()
        self.rnn = core(SIZE, H, **options)
        self.second = nn.LSTM(H, H)
        self.conv = nn.Conv1d(SIZE, SIZE, 3, padding=1)
        self.step = step

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        return self.step(self, x, *states)


def lstm(m: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    y, (hn, cn) = m.rnn(x, (h, c))
    return y, hn, cn


def gru(m: nn.Module, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return m.rnn(x, h)


def convolved(m: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return lstm(m, m.conv(x.permute(1, 2, 0)).permute(2, 0, 1), h, c)


def centred(m: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return lstm(m, x - x.mean(0, keepdim=True), h, c)


def stacked(m: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    y, hn, cn = lstm(m, x, h, c)
    return m.second(y)[0], hn, cn


def exchanged(m: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    y, hn, cn = lstm(m, x, h, c)
    return y, cn, hn


def turned(m: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return lstm(m, x.flip(0), h, c)


RIGHT: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "lstm": (lstm, {}),
    "three layers": (lstm, {"num_layers": 3}),
    "gru": (gru, {"core": nn.GRU}),
    "rnn": (gru, {"core": nn.RNN}),
}
WRONG: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "a convolution": (convolved, {}),
    "a mean over time": (centred, {}),
    "a second lstm without states": (stacked, {}),
    "h and c exchanged": (exchanged, {}),
    "turned around": (turned, {}),
    "both directions": (lstm, {"bidirectional": True}),
}


def by_torch(
    step: Callable[..., Any], path: Path, options: dict[str, Any], names: dict[str, Any]
) -> tuple[nn.Module, dict[str, str]]:
    """A file by torch's TorchScript exporter, under the axis names that its user gave, or none."""
    torch.manual_seed(0)
    module = Voice(step, **options).eval()
    rows = module.rnn.num_layers * (1 + module.rnn.bidirectional)
    pairs = BOTH if isinstance(module.rnn, nn.LSTM) else {"h": "hn"}
    states = [torch.zeros(rows, 2, H) for _ in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(8, 2, SIZE), *states),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["x", *pairs],
            output_names=["y", *pairs.values()],
            dynamic_axes=names,
        )
    return module, pairs


NAMED = {"x": {0: "frames", 1: "n"}, "y": {0: "frames", 1: "n"}} | {name: {1: "n"} for name in ("h", "c", "hn", "cn")}
UNNAMED = {name: [0, 1] if name in "xy" else [1] for name in ("x", "y", "h", "c", "hn", "cn")}


@pytest.mark.parametrize("names", [NAMED, UNNAMED], ids=["named", "unnamed"])
@pytest.mark.parametrize("case", RIGHT)
def test_right_files_stream(case: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, options = RIGHT[case]
    compared: list[str] = []

    def recorded(*arguments: Any) -> str:
        found = difference(*arguments)
        compared.append(found)
        return found

    monkeypatch.setattr("lstm_onnx.runtime.compared_chunks.difference", recorded)
    module, pairs = by_torch(step, tmp_path / "m.onnx", options, {k: v for k, v in names.items() if _has(k, options)})
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", states=pairs)
    stream = model.stream(batch=3)
    assert compared == [""]
    model.pool()
    assert compared == [""]  # once for all streams
    x = torch.randn(7, 3, SIZE)
    with torch.no_grad():
        whole = module(x, *(torch.zeros(module.rnn.num_layers, 3, H) for _ in pairs))[0]
    for chunking in ((1,) * 7, (3, 1, 3)):
        stream.reset()
        ends = np.cumsum(chunking)
        parts = [stream(x.numpy()[end - size : end]) for end, size in zip(ends, chunking, strict=True)]
        parts.append(stream.flush())  # no step, whatever the time axis is called
        np.testing.assert_allclose(np.concatenate(parts), whole.numpy(), rtol=0, atol=2e-6)


def _has(name: str, options: dict[str, Any]) -> bool:
    return name not in ("c", "cn") or options.get("core", nn.LSTM) is nn.LSTM


@pytest.mark.parametrize("names", [NAMED, UNNAMED], ids=["named", "unnamed"])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_refused_when_a_stream_is_opened(case: str, names: dict[str, Any], tmp_path: Path) -> None:
    step, options = WRONG[case]
    _, pairs = by_torch(step, tmp_path / "m.onnx", options, names)
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", states=pairs)
    for opened in (model.stream, model.pool, lambda: lstm_onnx.Batcher(model)):
        with pytest.raises(InputError, match=r"cannot be streamed: 6 steps in chunks of .*check=False"):
            opened()
    assert model.stream(check=False).batch == 1


def test_what_runs_at_one_size_alone_is_a_step_whatever_its_size(tmp_path: Path) -> None:
    """As silero-vad: its axes have no sizes in the file, and it takes 8 samples and nothing else."""
    rng = np.random.default_rng(0)
    arrays = {
        "W": rng.standard_normal((1, 4 * H, 2)).astype(np.float32),
        "R": rng.standard_normal((1, 4 * H, H)).astype(np.float32),
        "frames": np.array([4, -1, 2]),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "frames"], ["parts"]),
        helper.make_node("LSTM", ["parts", "W", "R", "", "", "h", "c"], ["y", "hn", "cn"], hidden_size=H),
        helper.make_node("ReduceMean", ["y"], ["p"], axes=[0, 1, 3], keepdims=0),
    ]
    state = (1, None, H)
    values = {"x": (None, None), "h": state, "c": state}, {"p": (None,), "hn": state, "cn": state}
    infos = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in group.items()] for group in values]
    graph = helper.make_graph(nodes, "g", *infos, [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", states=BOTH)
    x = rng.standard_normal((2, 1, 8)).astype(np.float32)
    stream = model.stream()
    first, second = stream.run({"x": x[0]}), stream.run({"x": x[1]})
    zeros = np.zeros((1, 1, H), np.float32)
    states = model.run({"x": x[0], "h": zeros, "c": zeros})
    again = model.run({"x": x[1], "h": states["hn"], "c": states["cn"]})
    np.testing.assert_array_equal(first["p"], states["p"])
    np.testing.assert_array_equal(second["p"], again["p"])


def reaching(m: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    """Eight steps back, which are zeros before the first step of each call."""
    before = nn.functional.conv1d(nn.functional.pad(x.permute(1, 2, 0), (8, 0)), m.conv.weight[..., :2], dilation=8)
    return lstm(m, before.permute(2, 0, 1), h, c)


def test_a_window_of_more_than_six_steps_is_refused(tmp_path: Path) -> None:
    by_torch(reaching, tmp_path / "m.onnx", {}, NAMED)
    with pytest.raises(InputError, match=r"cannot be streamed: 48 steps in chunks of 1\+30\+17 give a different y"):
        lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", states=BOTH).stream()


def strided(stride: int) -> Callable[..., Any]:
    def step(m: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        return lstm(m, nn.functional.conv1d(x.permute(1, 2, 0), m.conv.weight, stride=stride).permute(2, 0, 1), h, c)

    return step


def framed(m: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return lstm(m, x.reshape(-1, 4, x.size(1), SIZE).mean(1), h, c)


@pytest.mark.parametrize(("stride", "cut"), [(2, "8+8+8+8+8+8"), (4, "9+15+24")], ids=["overlapping", "left over"])
def test_files_that_take_no_single_steps_are_compared_in_longer_chunks(stride: int, cut: str, tmp_path: Path) -> None:
    """A convolution without padding: a chunk of one step fails, and longer ones would give other numbers silently."""
    by_torch(strided(stride), tmp_path / "m.onnx", {}, NAMED)
    with pytest.raises(
        InputError, match=rf"cannot be streamed: 48 steps in chunks of {re.escape(cut)} give a different y"
    ):
        lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", states=BOTH).stream()


def test_files_that_take_whole_frames_stream(tmp_path: Path) -> None:
    """A chunk that is no multiple of the frame fails aloud, and frames give what the whole gives."""
    module, pairs = by_torch(framed, tmp_path / "m.onnx", {}, NAMED)
    stream = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", states=pairs).stream(batch=2)
    x = torch.randn(12, 2, SIZE)
    with torch.no_grad():
        whole = module(x, *(torch.zeros(1, 2, H) for _ in pairs))[0].numpy()
    parts = [stream(x.numpy()[:8]), stream(x.numpy()[8:])]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=2e-6)
    with pytest.raises(lstm_onnx.RunError, match="cannot be reshaped"):
        stream(x.numpy()[:7])


def test_our_own_files_are_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(*_: object) -> str:
        raise AssertionError

    monkeypatch.setattr("lstm_onnx.runtime.compared_chunks.compared_chunks", tried)
    lstm_onnx.export(nn.LSTM(SIZE, H), tmp_path / "m.onnx")
    assert lstm_onnx.load(tmp_path / "m.onnx", provider="cpu").stream().batch == 1
    with pytest.raises(AssertionError):
        lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", states={"h0": "hn"}).stream()


def _counting(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Steps counted from the first on, by a state."""
    n, x = feeds["n"], feeds["x"]
    return {"y": x + n + np.arange(len(x), dtype=np.float32), "m": n + len(x)}


def test_small_outputs_are_compared_by_their_own_size() -> None:
    x = np.random.default_rng(0).standard_normal(6).astype(np.float32)
    sequence = WholeSequence({"x": x}, {"x": 0}, {"n": np.zeros((), np.float32)})
    assert difference(_counting, sequence, {"n": "m"}, [(1, 2, 3)]) == ""

    def scaled(factor: float, forget: bool) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
        def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            found = _counting({**feeds, "n": feeds["n"] * (0 if forget else 1)})
            return {"y": found["y"] * np.float32(factor), "m": found["m"]}

        return run

    for factor in (1.0, 1e-6, 1e-20, 1e12):
        assert difference(scaled(factor, forget=False), sequence, {"n": "m"}, [(1, 2, 3)]) == ""
        assert "give a different y" in difference(scaled(factor, forget=True), sequence, {"n": "m"}, [(1, 2, 3)])


def test_streams_are_stepped_together_only_if_their_rows_are_separate(tmp_path: Path) -> None:
    with lstm_onnx.load(centred_rows(tmp_path / "m.onnx"), "cpu") as model:
        for opened in (model.pool, lambda: lstm_onnx.Batcher(model)):
            with pytest.raises(InputError, match="cannot be stepped together: y of one sequence depends on the other"):
                opened()
        assert len(model.pool(2, check=False)) == 0
        np.testing.assert_array_equal(model.stream()(np.ones((1, 3), np.float32)), np.zeros((1, 3)))
    with lstm_onnx.load(accumulator(tmp_path / "separate.onnx"), "cpu", states={"state": "stateN"}) as model:
        assert len(model.pool(2)) == 0

"""Steps with the states on a device: the same code on the CPU's memory here, and on CUDA where there is a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import lstm_onnx
from lstm_onnx import InputError
from lstm_onnx.runtime import device as device_module
from lstm_onnx.runtime.device import DeviceSteps, device_of, run_on_device

from ..streaming.test_convert import conv_lstm, saved
from .models import exported

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def _model(folder: Path, device: str, **sizes: object) -> lstm_onnx.Model:
    exported(folder / "m.onnx", **sizes)
    return lstm_onnx.load(folder / "m.onnx", provider=device)


def _start(model: lstm_onnx.Model) -> dict[str, np.ndarray]:
    return {name: np.zeros((2, 1, 5), np.float32) for name in model.states}


@pytest.mark.parametrize("device", DEVICES)
def test_steps_are_the_whole_sequence(device: str, tmp_path: Path) -> None:
    model = _model(tmp_path, device, num_layers=2)
    x = np.random.default_rng(0).standard_normal((60, 1, 4)).astype(np.float32)
    whole, (hn, cn) = model(x)
    steps = DeviceSteps(model, _start(model), device=device)
    sizes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 1, 2, 3, 8]
    pieces = [steps.step({"input": piece})["output"] for piece in np.split(x, np.cumsum(sizes)[:-1])]
    assert np.allclose(np.concatenate(pieces), whole, atol=1e-5)
    assert np.allclose(steps.state["h0"], hn, atol=1e-5)
    assert np.allclose(steps.state["c0"], cn, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_states_are_set_and_read_bit_for_bit(device: str, tmp_path: Path) -> None:
    model = _model(tmp_path, device, num_layers=2)
    steps = DeviceSteps(model, _start(model), device=device)
    step = {"input": np.ones((1, 1, 4), np.float32)}
    steps.step(step)
    saved = steps.state
    first = steps.step(step)
    steps.state = saved
    assert all(np.array_equal(steps.state[name], saved[name]) for name in saved)
    assert np.array_equal(steps.step(step)["output"], first["output"])


def test_an_output_that_is_an_input_is_not_the_callers_memory(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    named = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", named[:1], named)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), tmp_path / "m"
    )
    x = torch.ones(3)
    found = run_on_device(lstm_onnx.load(tmp_path / "m", "cpu"), {"x": x}, device="cpu")
    x.zero_()
    assert (found["x"].tolist(), found["y"].tolist()) == ([1, 1, 1], [-1, -1, -1])


def test_a_wrong_chunk_changes_nothing(tmp_path: Path) -> None:
    model = _model(tmp_path, "cpu", num_layers=2)
    steps = DeviceSteps(model, _start(model), device="cpu")
    steps.step({"input": np.ones((1, 1, 4), np.float32)})
    saved = steps.state
    with pytest.raises(InputError, match="input has shape"):
        steps.step({"input": np.ones((1, 1, 3), np.float32)})
    assert all(np.array_equal(steps.state[name], saved[name]) for name in saved)


@pytest.mark.parametrize("device", DEVICES)
def test_tensors_stay_where_they_are(device: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = _model(tmp_path, device, num_layers=2)
    x = torch.randn(7, 3, 4, device=device)
    assert device_of(x) == device
    assert device_of(x.cpu().numpy()) is None
    results = run_on_device(model, {"input": x}, device=device)
    assert all(value.device.type == device for value in results.values())
    expected = model.run({"input": x.cpu().numpy()})
    assert all(np.allclose(results[name].cpu().numpy(), expected[name], atol=1e-5) for name in expected)
    with pytest.raises(InputError, match="axis 2 must be 4"):
        run_on_device(model, {"input": torch.randn(7, 3, 5, device=device)}, device=device)
    with pytest.raises(InputError, match="cannot be used on its device"):
        run_on_device(model, {"input": torch.randn(7, 4, 3, device=device).transpose(1, 2)}, device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_tensors_of_a_file_for_whole_chunks(device: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    source = saved(conv_lstm((0, 0), stride=3), tmp_path / "whole.onnx")
    lstm_onnx.make_streaming(source, tmp_path / "m.onnx", time={"x": 2}, chunk=3, trial=False)
    model = lstm_onnx.load(tmp_path / "m.onnx", provider=device)
    assert run_on_device(model, {"x": torch.ones(1, 4, 9, device=device)}, device=device)["y"].shape[0] == 3
    with pytest.raises(InputError, match="x has 8 steps, but the file takes multiples of 3"):
        run_on_device(model, {"x": torch.ones(1, 4, 8, device=device)}, device=device)


def test_each_binding_has_a_graph_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one session: one for each chunk shape and direction of each stream, and then none."""
    monkeypatch.setattr(device_module, "MAX_CUDA_GRAPHS", 44)
    model = _model(tmp_path, "cpu", num_layers=2)
    numbers = []
    for _ in range(2):
        steps = DeviceSteps(model, _start(model), device="cpu", graphs=True)
        for size in range(1, 13):
            steps.step({"input": np.ones((size, 1, 4), np.float32)})
            options = list(steps._bound.values())[-1].options
            numbers += [int(option.get_run_config_entry("gpu_graph_id")) for option in options]
    assert numbers == [*range(1, 45), -1, -1, -1, -1]


@pytest.mark.cuda
def test_a_graph_replays_the_step(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx", num_layers=2)
    plain = lstm_onnx.load(tmp_path / "m.onnx", provider="cuda").stream()
    graphs = lstm_onnx.load(tmp_path / "m.onnx", provider="cuda", cuda_graph=True).stream()
    x = np.random.default_rng(0).standard_normal((20, 1, 1, 4)).astype(np.float32)
    for step in x:
        assert np.allclose(graphs(step), plain(step), atol=1e-5)


@pytest.mark.cuda
def test_graphs_of_several_streams_and_plain_runs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    exported(tmp_path / "m.onnx", num_layers=2)
    plain = lstm_onnx.load(tmp_path / "m.onnx", provider="cuda")
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cuda", cuda_graph=True)
    rng = np.random.default_rng(0)
    pairs = [(model.stream(), plain.stream()) for _ in range(3)]
    for size in [*range(1, 12), 1, 2, 3] * 3:
        x = rng.standard_normal((size, 1, 4)).astype(np.float32)
        for stream, other in pairs:
            assert np.allclose(stream(x), other(x), atol=1e-5)
        for given in (x, torch.from_numpy(x).cuda()):
            results, expected = (one.run({"input": given})["output"] for one in (model, plain))
            assert np.allclose(*(np.asarray(torch.as_tensor(one).cpu()) for one in (results, expected)), atol=1e-5)

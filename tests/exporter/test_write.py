from __future__ import annotations

import errno
import itertools
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx import ExportOptions, FileError, LSTMSpec
from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.onnxgraph import write

pytestmark = pytest.mark.sweep(18)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _data(folder: Path) -> Path:
    """The only data file in `folder`."""
    (found,) = folder.glob("m.onnx.*.data")
    assert len(found.name) == len("m.onnx.01234567.data")
    return found


@pytest.fixture
def low_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "EXTERNAL_DATA_THRESHOLD", 100)


def test_small_weights_stay_in_the_file(tmp_path: Path) -> None:
    exported = lstm_onnx.export(nn.LSTM(4, 3), tmp_path / "m.onnx")
    assert exported.external_data is None
    assert _names(tmp_path) == ["m.onnx"]


@pytest.mark.usefixtures("low_threshold")
@pytest.mark.parametrize("arguments", [{}, {"num_layers": 2, "bidirectional": True, "proj_size": 2}])
def test_large_weights_go_beside_it(arguments: dict[str, object], tmp_path: Path) -> None:
    module, path = nn.LSTM(40, 60, **arguments), tmp_path / "m.onnx"
    exported = lstm_onnx.export(module, path)
    data = _data(tmp_path)
    assert exported.external_data == str(data)
    assert _names(tmp_path) == ["m.onnx", data.name]
    assert exported.num_bytes == path.stat().st_size + data.stat().st_size
    onnx.checker.check_model(path, full_check=True)
    assert lstm_onnx.verify(module, path, provider="cpu", threads=1)


@pytest.mark.usefixtures("low_threshold")
def test_names_of_any_length_have_data_of_their_own(tmp_path: Path) -> None:
    names = [f"{'n' * 250}.onnx", f"{'n' * 249}m.onnx"[:-5], "ü" * 120]
    made = {}
    for name in names:
        exported = lstm_onnx.export(nn.LSTM(40, 60), tmp_path / name)
        assert exported.external_data is not None
        made[name] = Path(exported.external_data)
        onnx.checker.check_model(tmp_path / name, full_check=True)
    assert len(set(made.values())) == 3
    again = lstm_onnx.export(nn.LSTM(40, 61), tmp_path / names[0])  # whose earlier data nobody needs any more
    left = {path.name for path in tmp_path.glob("*.data")}
    assert left == {Path(str(again.external_data)).name, made[names[1]].name, made[names[2]].name}


@pytest.mark.usefixtures("low_threshold")
def test_external_tensors_are_aligned_and_whole(tmp_path: Path) -> None:
    lstm_onnx.export(nn.LSTM(40, 60), tmp_path / "m.onnx")
    size = _data(tmp_path).stat().st_size
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    spans = []
    for tensor in model.graph.initializer:
        if tensor.name.startswith("ints/"):
            # Read by shape inference, which has to find it in the model.
            assert tensor.data_location == onnx.TensorProto.DEFAULT
            continue
        entries = {item.key: item.value for item in tensor.external_data}
        assert tensor.data_location == onnx.TensorProto.EXTERNAL
        assert entries["location"] == _data(tmp_path).name  # relative: the two files move together
        offset, length = int(entries["offset"]), int(entries["length"])
        assert offset % 4096 == 0
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        assert length == int(np.prod(tensor.dims)) * kind.itemsize
        spans.append((offset, offset + length))
    spans.sort()
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    assert spans[-1][1] <= size
    assert len(spans) == 3


@pytest.mark.usefixtures("low_threshold")
def test_the_pair_can_be_moved_together(tmp_path: Path) -> None:
    module = nn.LSTM(40, 60)
    lstm_onnx.export(module, tmp_path / "m.onnx")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in _names(tmp_path):
        if name == "elsewhere":
            continue
        os.replace(tmp_path / name, moved / name)
    assert lstm_onnx.verify(module, moved / "m.onnx", provider="cpu", threads=1)


@pytest.mark.usefixtures("low_threshold")
@pytest.mark.skipif(os.name != "posix", reason="Windows has no locks for folders")
def test_writers_of_one_path_leave_a_model_with_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one writes all of its own, and removes what is stale, between the first one's data and model."""
    write_proto = write._write_proto
    writers: list[threading.Thread] = []

    def exported(seed: int) -> None:
        drawn = {name: np.full(array.shape, seed, np.float32) for name, array in nn.LSTM(4, 3).state_dict().items()}
        export_lstm(LSTMSpec(4, 3), ExportOptions(), drawn, tmp_path / "m.onnx")

    def interrupted(*arguments: Any) -> int:
        if not writers:
            writers.append(threading.Thread(target=exported, args=(2,)))
            writers[0].start()
            writers[0].join(0.3)
        return write_proto(*arguments)

    monkeypatch.setattr(write, "_write_proto", interrupted)
    exported(1)
    writers[0].join()
    assert _names(tmp_path) == ["m.onnx", _data(tmp_path).name]
    lstm_onnx.load(tmp_path / "m.onnx", "cpu")


@pytest.mark.usefixtures("low_threshold")
def test_a_failure_leaves_neither_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise FileError("m.onnx: no")

    monkeypatch.setattr(write, "_write_proto", fail)
    with pytest.raises(FileError, match="no"):
        lstm_onnx.export(nn.LSTM(40, 60), tmp_path / "m.onnx")
    assert _names(tmp_path) == []


@pytest.mark.usefixtures("low_threshold")
def test_a_model_that_cannot_be_written_takes_its_data_with_it(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(FileError, match="is a directory"):
        lstm_onnx.export(nn.LSTM(40, 60), tmp_path / "m.onnx")
    assert _names(tmp_path) == ["m.onnx"]
    assert _names(tmp_path / "m.onnx") == []


@pytest.mark.usefixtures("low_threshold")
def test_two_exports_are_the_same_bytes(tmp_path: Path) -> None:
    module = nn.LSTM(40, 60)
    seen = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        lstm_onnx.export(module, tmp_path / folder / "m.onnx")
        seen.append([(tmp_path / folder / name).read_bytes() for name in _names(tmp_path / folder)])
    assert len(seen[0]) == 2
    assert seen[0] == seen[1]


@pytest.mark.usefixtures("low_threshold")
def test_a_new_export_replaces_the_pair_and_leaves_others_alone(tmp_path: Path) -> None:
    other = tmp_path / "n.onnx.01234567.data"
    other.write_bytes(b"x")
    first, second = nn.LSTM(40, 60), nn.LSTM(40, 60)
    lstm_onnx.export(first, tmp_path / "m.onnx")
    old = _data(tmp_path)
    lstm_onnx.export(second, tmp_path / "m.onnx")
    assert _data(tmp_path) != old
    assert lstm_onnx.verify(second, tmp_path / "m.onnx", provider="cpu", threads=1)
    assert other.exists()


@pytest.mark.usefixtures("low_threshold")
@pytest.mark.parametrize("failing", [1, 2])
def test_a_disk_that_fills_up_leaves_the_old_pair_whole(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = nn.LSTM(40, 60)
    lstm_onnx.export(old, tmp_path / "m.onnx")
    before, calls, sync = _names(tmp_path), [], os.fsync

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left"):
        lstm_onnx.export(nn.LSTM(40, 60), tmp_path / "m.onnx")
    assert len(calls) == failing
    assert _names(tmp_path) == before
    assert lstm_onnx.verify(old, tmp_path / "m.onnx", provider="cpu", threads=1)


@pytest.mark.usefixtures("low_threshold")
def test_a_link_to_a_model_with_data_beside_it_opens(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "real" / "m.onnx")
    module = nn.LSTM(40, 60)
    lstm_onnx.export(module, tmp_path / "link.onnx")
    assert _data(tmp_path / "real").exists()
    assert lstm_onnx.verify(module, tmp_path / "link.onnx", provider="cpu", threads=1)


@pytest.mark.slow
def test_over_two_gigabytes_for_real(tmp_path: Path) -> None:
    hidden, width = 11_700, 4
    spec = LSTMSpec(width, hidden)
    assert spec.num_bytes > 2**31
    rng = np.random.default_rng(0)
    state = {name: np.zeros(shape, np.float32) for name, shape in spec.parameter_shapes().items()}
    # A few rows of R, one of them at the far end of the file, and all of W.
    rows = np.array([0, 1, hidden, 2 * hidden + 5, 4 * hidden - 1])
    state["weight_hh_l0"][rows] = rng.uniform(-0.01, 0.01, (len(rows), hidden))
    state["weight_ih_l0"][:] = rng.uniform(-0.5, 0.5, (4 * hidden, width))
    state["bias_hh_l0"][:] = rng.uniform(-0.5, 0.5, 4 * hidden)
    path = tmp_path / "m.onnx"
    try:
        exported = export_lstm(spec, ExportOptions(), state, path)
        assert exported.external_data == str(_data(tmp_path))
        assert exported.num_bytes > 2**31
        x = rng.standard_normal((1, 1, width)).astype(np.float32)
        h0, c0 = (rng.standard_normal((1, 1, hidden)).astype(np.float32) for _ in range(2))
        model = lstm_onnx.load(path, provider="cpu", threads=1)
        output, (hn, cn) = model(x, (h0, c0))
        del model
    finally:
        for file in tmp_path.iterdir():
            file.unlink()
    gates = state["weight_ih_l0"].astype(np.float64) @ x[0, 0] + state["bias_hh_l0"]
    gates[rows] += state["weight_hh_l0"][rows].astype(np.float64) @ h0[0, 0]
    i, f, g, o = np.split(gates, 4)
    i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
    c = f * c0[0, 0] + i * np.tanh(g)
    np.testing.assert_allclose(cn[0, 0], c, atol=1e-5)
    np.testing.assert_allclose(hn[0, 0], o * np.tanh(c), atol=1e-5)
    np.testing.assert_array_equal(output, hn)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_note_names_weights_that_are_nan(kind: type[nn.LSTM | nn.GRU], tmp_path: Path) -> None:
    module = kind(4, 3, num_layers=2)
    with torch.no_grad():
        module.weight_hh_l1[0, 0] = float("nan")
    axes = {"input": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}
    more = {} if kind is nn.LSTM else {"example_inputs": torch.zeros(5, 2, 4), "dynamic_shapes": axes}
    exported = lstm_onnx.export(module, tmp_path / "m.onnx", **more)
    (note,) = [note for note in exported.notes if "NaN" in note]
    assert note.startswith("NaN among the weights ")
    assert "l1/R: " in note

"""Models from elsewhere, of other dtypes, damaged, or none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lstm_onnx.errors import FileError, InputError, ModelError, ProviderError
from lstm_onnx.runtime import load
from lstm_onnx.spec import ExportOptions

from ..models import accumulator, exported, model_of, randoms
from .support import BATCH, TIME, assert_close, by_torch, drawn, flat, pair


def test_a_third_party_model_with_named_states(tmp_path: Path):
    model = load(accumulator(tmp_path / "a.onnx"), "cpu", states={"state": "stateN"})
    x, state = randoms(2, 3), randoms(2, 3, seed=2)
    assert model.spec is None
    np.testing.assert_array_equal(model.run({"x": x, "scale": 2})["y"], 2 * x)
    np.testing.assert_array_equal(model.run({"x": x, "scale": np.int64(3), "state": state})["y"], 3 * x + state)
    with pytest.raises(InputError, match=r"a\.onnx: is not a bare LSTM; call run\(.*x, state, scale"):
        model(x)
    with pytest.raises(InputError, match=r"^scale holds values of dtype float64"):
        model.run({"x": x, "scale": 2.5})
    with pytest.raises(InputError, match=r"^scale has shape \(1,\); the model takes 0 axes"):
        model.run({"x": x, "scale": [2]})


def test_without_names_nothing_is_filled_in(tmp_path: Path):
    model = load(accumulator(tmp_path / "a.onnx"), "cpu")
    assert model.states == {}
    with pytest.raises(InputError, match=r"^missing input: state float32 \(batch, 3\)$"):
        model.run({"x": randoms(2, 3), "scale": 2})


def test_a_state_of_unknown_size_must_be_given(tmp_path: Path):
    model = load(accumulator(tmp_path / "a.onnx", axis=None), "cpu", states={"state": "stateN"})
    with pytest.raises(InputError, match=r"^missing input: state float32 \(\?, 3\); pass a value: its size does not "):
        model.run({"x": randoms(2, 3), "scale": 2})


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({"h": "stateN"}, "the state input 'h' does not exist; its inputs are x, state, scale"),
        ({"state": "hn"}, "the state output 'hn' does not exist; its outputs are y, stateN"),
        ({"stateN": "state"}, "the state input 'stateN' does not exist"),
    ],
)
def test_states_that_are_not_there(tmp_path: Path, states: dict[str, str], message: str):
    with pytest.raises(ModelError, match=rf"a\.onnx: {message}"):
        load(accumulator(tmp_path / "a.onnx"), "cpu", states=states)


GOOD_SPEC = json.dumps({"input_size": 4, "hidden_size": 5})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"lstm_onnx.spec": "{"}, "damaged"),
        ({"lstm_onnx.spec": "[]"}, "damaged"),
        ({"lstm_onnx.spec": json.dumps({"input_size": 4})}, "damaged"),
        ({"lstm_onnx.spec": json.dumps({"input_size": 4, "hidden_size": 5, "gates": 3})}, "damaged"),
        ({"lstm_onnx.spec": json.dumps({"input_size": 0, "hidden_size": 5})}, "input_size = 0 is not possible"),
        ({"lstm_onnx.export": json.dumps({"opset": 3})}, "opset = 3 is not possible"),
        ({"lstm_onnx.states": "null"}, "damaged"),
        ({"lstm_onnx.weights": "[1]"}, "weights, .* must be strings"),
        ({"lstm_onnx.states": json.dumps({"state": 1})}, "must map names to names"),
        ({"lstm_onnx.states": json.dumps({"h0": "hn"})}, "the state input 'h0' does not exist"),
        ({"lstm_onnx.states": "[" * 100_000}, "damaged"),
        ({"lstm_onnx.spec": GOOD_SPEC}, "describes a bare LSTM, but it has no input, h0, c0, output, hn, cn"),
    ],
)
def test_damaged_metadata(tmp_path: Path, metadata: dict[str, str], message: str):
    path = accumulator(tmp_path / "a.onnx", metadata=metadata)
    with pytest.raises(ModelError, match=rf"a\.onnx: .*{message}"):
        load(path, "cpu")


def test_the_metadata_of_others_is_not_ours(tmp_path: Path):
    path = accumulator(tmp_path / "a.onnx", metadata={"author": "{", "lstm": "x"})
    assert load(path, "cpu").metadata.spec is None


def test_not_a_file(tmp_path: Path):
    (tmp_path / "empty.onnx").touch()
    for name, message in (
        ("empty.onnx", "is empty"),
        ("gone.onnx", "No such file or directory"),
        (".", "is a directory"),
    ):
        with pytest.raises(FileError, match=f"{message}; expected an .onnx file"):
            load(tmp_path / name, "cpu")


def test_not_a_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    path = tmp_path / "noise.onnx"
    rng = np.random.default_rng(0)
    contents = [rng.bytes(size) for size in (1, 2, 16, 300, 5000)]
    contents += [b"\0" * 100, b"words\n", b'{"json": 1}', b"\xff" * 64]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"noise\.onnx: ONNX Runtime cannot open it: ."):
            load(path, "cpu")
    assert capfd.readouterr() == ("", "")


def test_a_truncated_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    path = tmp_path / "model.onnx"
    exported(path)
    content = path.read_bytes()
    for keep in sorted({1, 2, 3, 10, len(content) - 1, *range(0, len(content), len(content) // 23)} - {0}):
        path.write_bytes(content[:keep])
        with pytest.raises(ModelError, match=r"model\.onnx: "):
            load(path, "cpu")
    assert capfd.readouterr() == ("", "")
    path.write_bytes(content)
    assert load(path, "cpu").spec is not None


@pytest.mark.parametrize("sizes", [{}, {"proj_size": 2}], ids=["plain", "fold"])
def test_float64_needs_an_operator_that_the_cpu_has_not(tmp_path: Path, sizes: dict[str, int]):
    with pytest.raises(ProviderError, match=r"model\.onnx: is float64, .* export it as float32 or, .* or use provider"):
        model_of(tmp_path, options=ExportOptions(projection="fold"), dtype="float64", **sizes)


def test_a_projected_float64_scan_runs(tmp_path: Path):
    model, module, spec = pair(tmp_path, dtype="float64", proj_size=2, num_layers=2, bidirectional=True)
    x, states = (array.astype(np.float64) if isinstance(array, np.ndarray) else array for array in drawn(spec))
    states = tuple(array.astype(np.float64) for array in states)
    found = flat(model(x, states))
    assert [array.dtype for array in found] == [np.float64] * 3
    assert_close(found, by_torch(module, x, states), 1e-14)
    assert_close(flat(model(x)), by_torch(module, x, None), 1e-14)


@pytest.mark.parametrize("sizes", [{}, {"proj_size": 2}], ids=["plain", "scan"])
def test_float16_runs(tmp_path: Path, sizes: dict[str, int]):
    model, module, spec = pair(tmp_path, dtype="float16", **sizes)
    x, _ = drawn(spec)
    found = flat(model(x.astype(np.float16)))
    assert [array.dtype for array in found] == [np.float16] * 3
    expected = by_torch(module.float(), x.astype(np.float16).astype(np.float32), None)
    assert_close([array.astype(np.float32) for array in found], expected, 3e-3)
    assert np.abs(expected[0]).max() > 0.05


def test_name_that_is_not_utf8(tmp_path: Path):
    path = tmp_path / "model.onnx"
    exported(path)
    content = path.read_bytes()
    assert content.count(b"batch") > 1
    path.write_bytes(content.replace(b"batch", b"b\xfftch"))
    with pytest.raises(ModelError, match="UTF-8"):
        load(path, provider="cpu")


def test_the_path_of_a_message_is_that_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("none.onnx").write_text("none")
    with pytest.raises(ModelError, match=r"^none\.onnx: ONNX Runtime cannot open it: it is not an ONNX model"):
        load("none.onnx", provider="cpu")
    named = Path("\udcff.onnx")
    named.write_text("none")
    with pytest.raises(FileError, match=r"^\S+\.onnx: its name is not UTF-8, which ONNX Runtime requires; rename it$"):
        load(named, provider="cpu")


def test_lazily_negated_tensors_keep_their_sign(tmp_path: Path):
    model = model_of(tmp_path)
    x = torch.from_numpy(randoms(TIME, BATCH, model.spec.input_size))
    negated = torch.complex(x, -x).conj().imag
    assert negated.is_neg()
    torch.testing.assert_close(model(negated)[0], model(x)[0], rtol=0, atol=0)

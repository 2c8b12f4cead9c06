"""Loaded models: nn.LSTM's calling convention, by name, and refusals before ONNX Runtime sees anything."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx.errors import FileError, InputError, ModelError, ProviderError, RunError
from lstm_onnx.exporter.torch_lstm import module_of
from lstm_onnx.runtime import Model, load
from lstm_onnx.spec import ExportOptions, LSTMSpec

from .models import Unreachable, accumulator, exported, model_of, randoms

TIME, BATCH = 6, 3
LENGTHS = ExportOptions(lengths=True)
SIZES = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "bidirectional_stack": {"bidirectional": True, "num_layers": 2},
    "bidirectional_batch_first": {"bidirectional": True, "batch_first": True},
    "projected": {"proj_size": 2},
    "projected_bidirectional_stack": {"proj_size": 2, "bidirectional": True, "num_layers": 2, "batch_first": True},
    "no_bias": {"bias": False},
}


def pair(folder: Path, **sizes: Any) -> tuple[Model, torch.nn.LSTM, LSTMSpec]:
    """The same LSTM in ONNX Runtime and in torch."""
    options = ExportOptions(lengths=sizes.pop("lengths", False))
    spec, state = exported(folder / "model.onnx", options=options, **sizes)
    return load(folder / "model.onnx", provider="cpu"), module_of(spec, state), spec


def drawn(spec: LSTMSpec, batch: int = BATCH, time: int = TIME) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    x = randoms(*spec.sequence_shape(batch, time, spec.input_size))
    return x, (randoms(*spec.h_shape(batch), seed=2), randoms(*spec.c_shape(batch), seed=3))


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """No gradients, and no remark on which of its kernels torch takes for projections."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")
        yield


def by_torch(module: torch.nn.LSTM, x: np.ndarray, states: tuple[np.ndarray, ...] | None) -> list[np.ndarray]:
    with quiet_torch():
        given = None if states is None else tuple(torch.tensor(array) for array in states)
        output, (hn, cn) = module(torch.tensor(x), given)
    return [output.numpy(), hn.numpy(), cn.numpy()]


def flat(result: tuple[Any, tuple[Any, Any]]) -> list[Any]:
    output, (hn, cn) = result
    return [output, hn, cn]


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 2e-6) -> None:
    for name, one, other in zip(("output", "hn", "cn"), found, expected, strict=True):
        assert one.shape == other.shape, name
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance, err_msg=name)


# --- nn.LSTM's calling convention -------------------------------------------------------------


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
    found = flat(model(x))[0]
    np.testing.assert_array_equal(found[:3], clean[:3])
    np.testing.assert_array_equal(found[:, [0, 2]], clean[:, [0, 2]])
    assert (found[3:, 1] != clean[3:, 1]).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf, 3e38])
def test_infinity_is_a_value(tmp_path: Path, value: float):
    model, module, spec = pair(tmp_path)
    x, states = drawn(spec)
    x[3, 1, 0] = value
    assert_close(flat(model(x, states)), by_torch(module, x, states))


# --- by name ------------------------------------------------------------------------------------


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


# --- refusals -----------------------------------------------------------------------------------


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model with lengths whose ONNX Runtime must not be reached."""
    model = model_of(tmp_path, options=LENGTHS)
    monkeypatch.setattr(model, "session", Unreachable())
    return model


X = np.zeros((TIME, BATCH, 4), np.float32)
H = np.zeros((1, BATCH, 5), np.float32)


def test_a_sealed_model_would_tell(sealed: Model):
    with pytest.raises(AssertionError, match="was reached"):
        sealed(X, (H, H), lengths=[1, 2, 3])


@pytest.mark.parametrize(
    ("x", "states", "lengths", "message"),
    [
        (X[:, :0], None, None, r"^input has shape \(6, 0, 4\): nothing along batch"),
        (X[:, :0], (H[:, :0], H[:, :0]), None, "^input has shape .* nothing along batch"),
        (X[:, :0], None, [], "lengths"),
        (X[:0], None, None, r"^input has shape \(0, 3, 4\): nothing along time"),
        (X[:0], (H, H), None, "^input has shape .* nothing along time"),
        (X[:0, 0], None, None, "^input has shape .* nothing along time"),
        (X[None], None, None, r"^input has shape \(1, 6, 3, 4\); the model takes 3 axes"),
        (X[None], (H, H), [1, 2, 3], "^input has shape"),
        (X[0, 0], None, None, r"^input has shape \(4,\); the model takes 3 axes"),
        (X.astype(np.float64), None, None, "^input has dtype float64; the model takes float32"),
        (X.astype(np.int64), None, None, "^input has dtype int64"),
        (X[..., :3], None, None, r"^input has shape \(6, 3, 3\); axis 2 must be 4"),
        (X, (H[..., :4], H), None, r"^h0 has shape \(1, 3, 4\); axis 2 must be 5"),
        (X, (H, np.repeat(H, 2, 0)), None, r"^c0 has shape \(2, 3, 5\); axis 0 must be 1"),
        (X, (H[:, :2], H), None, "^h0 has shape .* so batch is 2, and input says that batch is 3"),
        (X, (H, H[:, :1]), None, "^c0 has shape .* so batch is 1, and input says that batch is 3"),
        (X, (H[:, 0], H[:, 0]), None, r"^h0 has shape \(1, 5\); the model takes 3 axes"),
        (X[:, 0], (H[:, :1], H[:, :1]), None, r"^h0 has shape \(1, 1, 5\); beside one sequence"),
        (X, (H.astype(np.float16), H), None, "^h0 has dtype float16"),
        (X, H, None, r"^states must be the pair \(h0, c0\)"),
        (X, (H,), None, r"^states must be the pair \(h0, c0\)"),
        (X, (H, None), None, "^c0 holds values of dtype object"),
        (X, None, [1, 2, 7], r"^lengths\[2\] is 7; it must be from 1 to time, 6"),
        (X, None, [0, 2, 3], r"^lengths\[0\] is 0"),
        (X, None, [1, -2, 3], r"^lengths\[1\] is -2"),
        (X, None, [2**32 + 1, 1, 1], r"^lengths\[0\] is 4294967297"),
        (X, None, [1.0, 2.0, 3.0], "^lengths has dtype float64; it must be integers"),
        (X, None, [1, 2], r"^lengths has shape \(2,\); it must be \(3,\)"),
        (X, None, [[1, 2, 3]], r"^lengths has shape \(1, 3\)"),
        (X, None, 4, r"^lengths has shape \(\)"),
        (X[:, 0], None, [4], "^lengths go with a batch"),
        (torch.tensor(X).requires_grad_(), None, None, r"^input cannot be read .*\.detach\(\)"),
        (X, (torch.tensor(H).requires_grad_(), H), None, r"^h0 cannot be read .*\.detach\(\)"),
        ("words", None, None, "^input is not an array of numbers"),
    ],
)
def test_refused_before_onnx_runtime_sees_it(sealed: Model, x: Any, states: Any, lengths: Any, message: str):
    with pytest.raises(InputError, match=message):
        sealed(x, states, lengths=lengths)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"input": X, "hidden": H}, "^hidden is not an input of the model; its inputs are input, h0, c0, lengths"),
        ({"h0": H, "c0": H}, "^missing input: input float32"),
        ({}, "^missing input: input float32"),
        ({"input": X, "h0": H[:, :0]}, "^h0 has shape .* nothing along batch"),
        ({"input": X, "lengths": [1.5, 2, 3]}, "^lengths holds values of dtype float64"),
        ({"input": X, "lengths": np.array([1.5, 2, 3])}, "^lengths has dtype float64"),
    ],
)
def test_run_refuses_too(sealed: Model, feeds: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        sealed.run(feeds)


def test_lengths_need_a_model_with_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = model_of(tmp_path)
    monkeypatch.setattr(model, "session", Unreachable())
    with pytest.raises(InputError, match=r"model\.onnx: was exported without lengths; .* lengths = true"):
        model(X, lengths=[1, 2, 3])


def test_an_input_error_is_a_value_error(sealed: Model):
    with pytest.raises(ValueError, match="nothing along batch"):
        sealed(X[:, :0])


def test_a_failure_of_onnx_runtime_is_mapped(tmp_path: Path):
    graph = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[n] x, int64[k] shape) => (float[m] y) { y = Reshape(x, shape) }
    """)
    onnx.save(graph, tmp_path / "reshape.onnx")
    model = load(tmp_path / "reshape.onnx", "cpu")
    assert model.run({"x": [1, 2], "shape": [-1]})["y"].tolist() == [1, 2]
    with pytest.raises(RunError, match=r"reshape\.onnx: ONNX Runtime failed while running: .*Reshape") as caught:
        model.run({"x": [1, 2], "shape": [3]})
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_out_of_memory_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Exhausted:
        def run(self, *_: Any) -> None:
            raise MemoryError("std::bad_alloc")

    model = model_of(tmp_path)
    monkeypatch.setattr(model, "session", Exhausted())
    with pytest.raises(RunError, match=r"model\.onnx: ran out of memory while running"):
        model(X)


# --- models from elsewhere ----------------------------------------------------------------------


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
    with pytest.raises(InputError, match=r"^missing input: state float32 \(\?, 3\)$"):
        model.run({"x": randoms(2, 3), "scale": 2})


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({"h": "stateN"}, "the state input 'h' is not there; its inputs are x, state, scale"),
        ({"state": "hn"}, "the state output 'hn' is not there; its outputs are y, stateN"),
        ({"stateN": "state"}, "the state input 'stateN' is not there"),
    ],
)
def test_states_that_are_not_there(tmp_path: Path, states: dict[str, str], message: str):
    with pytest.raises(ModelError, match=rf"a\.onnx: {message}"):
        load(accumulator(tmp_path / "a.onnx"), "cpu", states=states)


# --- what is no model, or a damaged one ---------------------------------------------------------

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
        ({"lstm_onnx.weights": "[1]"}, "digest"),
        ({"lstm_onnx.states": json.dumps({"state": 1})}, "must map names to names"),
        ({"lstm_onnx.states": json.dumps({"h0": "hn"})}, "the state input 'h0' is not there"),
        ({"lstm_onnx.states": "[" * 100_000}, "damaged"),
        ({"lstm_onnx.spec": GOOD_SPEC}, "says a bare LSTM, and input, h0, c0, output, hn, cn is not there"),
    ],
)
def test_damaged_metadata(tmp_path: Path, metadata: dict[str, str], message: str):
    path = accumulator(tmp_path / "a.onnx", metadata=metadata)
    with pytest.raises(ModelError, match=rf"a\.onnx: .*{message}"):
        load(path, "cpu")


def test_the_metadata_of_others_is_not_ours(tmp_path: Path):
    path = accumulator(tmp_path / "a.onnx", metadata={"author": "{", "lstm": "x"})
    assert load(path, "cpu").story.spec is None


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


# --- other dtypes -------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [{}, {"proj_size": 2}], ids=["plain", "fold"])
def test_float64_needs_an_operator_that_the_cpu_has_not(tmp_path: Path, sizes: dict[str, int]):
    with pytest.raises(ProviderError, match=r"model\.onnx: is float64, .* export it as float32, or use provider"):
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


def test_lazily_negated_tensors_keep_their_sign(tmp_path: Path):
    model = model_of(tmp_path)
    x = torch.from_numpy(randoms(TIME, BATCH, model.spec.input_size))
    negated = torch.complex(x, -x).conj().imag
    assert negated.is_neg()
    torch.testing.assert_close(model(negated)[0], model(x)[0], rtol=0, atol=0)

from __future__ import annotations

import numpy as np
import pytest

from lstm_onnx import LSTMSpec, WeightsError
from lstm_onnx.exporter.weights import (
    MAX_CONDITION,
    fold_projection,
    layer_weights,
    state_dict_problems,
    validate_state_dict,
)
from lstm_onnx.onnxgraph.write import digest
from lstm_onnx.spec import GRUSpec, RecurrentSpec, RNNSpec

SPEC = LSTMSpec(3, 2, num_layers=2, bidirectional=True)


def _state(spec: RecurrentSpec, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(spec.dtype) for name, shape in spec.parameter_shapes().items()}


def test_gates_come_in_the_operators_order() -> None:
    spec = LSTMSpec(1, 2)
    rows = np.array([[10], [11], [20], [21], [30], [31], [40], [41]], np.float32)  # torch: i f g o
    state = {
        "weight_ih_l0": rows,
        "weight_hh_l0": np.repeat(rows, 2, axis=1) + 0.5,
        "bias_ih_l0": rows[:, 0] + 100,
        "bias_hh_l0": rows[:, 0] + 200,
    }
    weights = layer_weights(spec, state, 0)
    iofc = np.array([10, 11, 40, 41, 20, 21, 30, 31], np.float32)
    np.testing.assert_array_equal(weights.W, iofc.reshape(1, 8, 1))
    np.testing.assert_array_equal(weights.R, np.stack([iofc, iofc], axis=1)[np.newaxis] + 0.5)
    np.testing.assert_array_equal(weights.B, np.concatenate([iofc + 100, iofc + 200])[np.newaxis])
    assert weights.W_hr is None


def test_a_grus_gates_come_in_the_operators_order() -> None:
    rows = np.array([[10], [11], [20], [21], [30], [31]], np.float32)  # torch: r z n
    state = {
        "weight_ih_l0": rows,
        "weight_hh_l0": np.repeat(rows, 2, axis=1) + 0.5,
        "bias_ih_l0": rows[:, 0] + 100,
        "bias_hh_l0": rows[:, 0] + 200,
    }
    weights = layer_weights(GRUSpec(1, 2), state, 0)
    zrh = np.array([20, 21, 10, 11, 30, 31], np.float32)
    np.testing.assert_array_equal(weights.W, zrh.reshape(1, 6, 1))
    np.testing.assert_array_equal(weights.R, np.stack([zrh, zrh], axis=1)[np.newaxis] + 0.5)
    np.testing.assert_array_equal(weights.B, np.concatenate([zrh + 100, zrh + 200])[np.newaxis])
    assert weights.W_hr is None


@pytest.mark.parametrize("bias", [True, False])
def test_an_rnns_rows_stay_as_they_are(bias: bool) -> None:
    spec = RNNSpec(3, 2, num_layers=2, bidirectional=True, bias=bias)
    state = _state(spec)
    weights = layer_weights(spec, state, 1)
    np.testing.assert_array_equal(weights.W, [state["weight_ih_l1"], state["weight_ih_l1_reverse"]])
    np.testing.assert_array_equal(weights.R, [state["weight_hh_l1"], state["weight_hh_l1_reverse"]])
    assert (weights.B is None) is not bias
    if weights.B is not None:
        assert weights.B.shape == (2, 4)
        np.testing.assert_array_equal(weights.B[1, 2:], state["bias_hh_l1_reverse"])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("proj_size", [0, 1])
def test_directions_are_stacked_forward_first(bias: bool, proj_size: int) -> None:
    spec = LSTMSpec(3, 2, num_layers=2, bidirectional=True, bias=bias, proj_size=proj_size)
    state = _state(spec)
    weights = layer_weights(spec, state, 1)
    assert weights.W.shape == (2, 8, spec.output_size)
    assert weights.R.shape == (2, 8, spec.state_size)
    # The input gate's rows are first in both orders.
    np.testing.assert_array_equal(weights.W[0, :2], state["weight_ih_l1"][:2])
    np.testing.assert_array_equal(weights.W[1, :2], state["weight_ih_l1_reverse"][:2])
    np.testing.assert_array_equal(weights.R[1, 2:4], state["weight_hh_l1_reverse"][6:8])
    assert (weights.B is None) is not bias
    if weights.B is not None:
        assert weights.B.shape == (2, 16)
        np.testing.assert_array_equal(weights.B[1, 8:10], state["bias_hh_l1_reverse"][:2])
    if proj_size:
        np.testing.assert_array_equal(weights.W_hr[1], state["weight_hr_l1_reverse"])


def test_the_fold_is_exact() -> None:
    rng = np.random.default_rng(0)
    recurrent, project = rng.standard_normal((2, 16, 3)), rng.standard_normal((2, 3, 4))
    folded = fold_projection(recurrent, project, layer=0)
    h0 = rng.standard_normal((2, 5, 3))
    lifted = h0 @ folded.P_in
    assert lifted.shape == (2, 5, 4)
    np.testing.assert_allclose(lifted @ folded.P_out, h0, atol=1e-13)
    np.testing.assert_allclose(lifted @ np.swapaxes(folded.R, 1, 2), h0 @ np.swapaxes(recurrent, 1, 2), atol=1e-12)


def _conditioned(condition: float, dtype: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    left, _ = np.linalg.qr(rng.standard_normal((2, 2)))
    right, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return (left @ np.diag([1.0, 1 / condition]) @ right[:2]).astype(dtype)[np.newaxis]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_fold_is_refused_past_the_bound(dtype: str) -> None:
    recurrent = np.ones((1, 12, 2), dtype)
    folded = fold_projection(recurrent, _conditioned(MAX_CONDITION * 0.7, dtype), layer=0)
    assert folded.R.dtype == folded.P_in.dtype == folded.P_out.dtype == dtype
    with pytest.raises(WeightsError, match=r'layer 3, direction 0: W_hr has condition number .* projection = "scan"'):
        fold_projection(recurrent, _conditioned(MAX_CONDITION * 1.5, dtype), layer=3)


@pytest.mark.parametrize(
    "matrix", [np.zeros((2, 3)), np.ones((2, 3)), np.full((2, 3), np.nan), np.full((2, 3), np.inf)]
)
def test_a_projection_without_full_rank_is_refused(matrix: np.ndarray) -> None:
    good = np.eye(2, 3)
    with pytest.raises(WeightsError, match="layer 0, direction 1"):
        fold_projection(np.ones((2, 12, 2)), np.stack([good, matrix]), layer=0)


def test_weights_that_fit_come_in_torchs_order_and_the_specs_dtype() -> None:
    state = _state(SPEC)
    shuffled = {name: state[name].astype(np.float64) for name in reversed(state)}
    result = validate_state_dict(SPEC, shuffled, where="here")
    assert list(result) == list(SPEC.parameter_shapes())
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in result.values())
    for name, array in result.items():
        np.testing.assert_array_equal(array, state[name])


def test_weights_are_made_contiguous() -> None:
    state = {name: np.asfortranarray(array) for name, array in _state(SPEC).items()}
    assert all(array.flags.c_contiguous for array in validate_state_dict(SPEC, state, where="here").values())


def test_everything_that_does_not_fit_is_named() -> None:
    state = _state(SPEC)
    del state["bias_hh_l1"]
    state["colour"] = np.zeros(3)
    state["weight_ih_l0"] = state["weight_ih_l0"].T
    state["bias_ih_l0"] = np.zeros(8, np.int64)
    with pytest.raises(WeightsError) as caught:
        validate_state_dict(SPEC, state, where="net.safetensors")
    message = str(caught.value)
    assert message.startswith("net.safetensors: ")
    assert "missing bias_hh_l1 (8,)" in message
    assert "unexpected colour (3,)" in message
    assert "weight_ih_l0 is (3, 8) where the model has (8, 3)" in message
    assert "bias_ih_l0 is of dtype int64" in message


@pytest.mark.parametrize("spec", [GRUSpec(3, 2), RNNSpec(3, 2, dtype="float64")])
def test_a_gru_and_an_rnn_are_validated_alike(spec: RecurrentSpec) -> None:
    state = _state(LSTMSpec(3, 2))
    with pytest.raises(WeightsError, match=r"net: the weights do not fit the model: weight_ih_l0 is \(8, 3\) where"):
        validate_state_dict(spec, state, where="net")
    result = validate_state_dict(spec, _state(spec), where="net")
    assert list(result) == list(spec.parameter_shapes())
    assert {array.dtype for array in result.values()} == {np.dtype(spec.dtype)}


def test_a_long_list_of_problems_is_cut() -> None:
    with pytest.raises(WeightsError, match=r"missing 16 tensors: weight_ih_l0, .* and 8 more$"):
        validate_state_dict(SPEC, {}, where="x")


def test_the_digest_sees_every_change() -> None:
    state = _state(SPEC)
    original = digest(state)
    assert original == digest(dict(reversed(state.items())))
    assert original == digest({name: np.asfortranarray(array) for name, array in state.items()})
    one = dict(state)
    one["weight_ih_l0"] = state["weight_ih_l0"].copy()
    one["weight_ih_l0"][0, 0] = np.nextafter(one["weight_ih_l0"][0, 0], np.float32(9))
    swapped = {**state, "bias_ih_l0": state["bias_hh_l0"], "bias_hh_l0": state["bias_ih_l0"]}
    reshaped = {**state, "weight_ih_l0": state["weight_ih_l0"].reshape(3, 8)}
    negative_zero = {"a": np.array([-0.0])}
    others = [digest(changed) for changed in (one, swapped, reshaped, {**state, "more": np.zeros(1)})]
    assert original not in others
    assert len(set(others)) == len(others)
    assert digest(negative_zero) != digest({"a": np.array([0.0])})


def test_numbers_too_large_for_the_dtype_are_named() -> None:
    spec = LSTMSpec(4, 3, dtype="float16")
    state = {name: np.zeros(shape, np.float32) for name, shape in spec.parameter_shapes().items()}
    state["weight_hh_l0"][0, 0] = 1e6
    with pytest.raises(WeightsError, match="weight_hh_l0 holds numbers too large for float16"):
        validate_state_dict(spec, state, where="net")


def test_many_tensors_are_grouped_by_their_modules() -> None:
    expected = {f"encoder.{i}.{name}": (2,) for i in range(4) for name in ("a", "b", "c")}
    actual = {f"model.{name}": shape for name, shape in expected.items()}
    missing, unexpected = state_dict_problems(expected, actual)
    assert missing == "missing 12 tensors: encoder.0.* (3), encoder.1.* (3), encoder.2.* (3), encoder.3.* (3)"
    assert unexpected.startswith("unexpected 12 tensors: model.encoder.0.* (3), model.encoder.1.* (3), model.enc")
    many = {f"model.encoder.{i}.weight": (2,) for i in range(300)}
    assert state_dict_problems({}, many) == ["unexpected 300 tensors: model.* (300)"]

"""The yardstick itself, beside PyTorch in float64 and the onnx package's own activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from .onnx_lstm import ACTIVATIONS, lstm

T, B, SIZE, H = 5, 3, 4, 2


def drawn(directions: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {
        "x": (T, B, SIZE),
        "w": (directions, 4 * H, SIZE),
        "r": (directions, 4 * H, H),
        "b": (directions, 8 * H),
        "initial_h": (directions, B, H),
        "initial_c": (directions, B, H),
    }
    return {name: rng.normal(0, 0.6, shape) for name, shape in shapes.items()}


def by_torch(
    given: dict[str, Any], *, bidirectional: bool, lengths: list[int] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    module = torch.nn.LSTM(SIZE, H, bidirectional=bidirectional, dtype=torch.float64)
    order = [0, 2, 3, 1]  # i, o, f, c as i, f, g, o
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for d, suffix in enumerate(["", "_reverse"][: 1 + bidirectional]):
            biases = given["b"][d].reshape(2, 4, H)[:, order].reshape(2, -1)
            values = (given["w"][d].reshape(4, H, SIZE)[order], given["r"][d].reshape(4, H, H)[order], *biases)
            for name, value in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), values, strict=True):
                parameter = parameters[f"{name}_l0{suffix}"]
                parameter.copy_(torch.from_numpy(value).reshape(parameter.shape))
        x: Any = torch.from_numpy(given["x"])
        if lengths is not None:
            x = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        states = torch.from_numpy(given["initial_h"]), torch.from_numpy(given["initial_c"])
        y, (hn, cn) = module(x, states)
        if lengths is not None:
            y, _ = pad_packed_sequence(y, total_length=T)
    # Y is (time, D, batch, H) where torch's output is (time, batch, D * H).
    return y.numpy().reshape(T, B, -1, H).swapaxes(1, 2), hn.numpy(), cn.numpy()


@pytest.mark.parametrize("lengths", [None, [5, 1, 3]])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_it_is_torchs_lstm(bidirectional, lengths):
    given = drawn(1 + bidirectional)
    direction = "bidirectional" if bidirectional else "forward"
    ours = lstm(**given, direction=direction, sequence_lens=None if lengths is None else np.array(lengths))
    for actual, expected in zip(ours, by_torch(given, bidirectional=bidirectional, lengths=lengths), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)


def test_reverse_is_the_second_direction():
    given = drawn(2)
    both = lstm(**given, direction="bidirectional")
    second = {name: value if name == "x" else value[1:] for name, value in given.items()}
    for one, two in zip(lstm(**second, direction="reverse"), both, strict=True):
        np.testing.assert_array_equal(one, two[:, 1:] if two.ndim == 4 else two[1:])


def test_layout_1_is_batch_first():
    given = drawn(2)
    first = {name: given[name].swapaxes(0, 1) for name in ("x", "initial_h", "initial_c")}
    y, y_h, y_c = lstm(**{**given, **first}, direction="bidirectional", layout=1)
    plain = lstm(**given, direction="bidirectional")
    assert y.shape == (B, T, 2, H)
    np.testing.assert_array_equal(y.transpose(1, 2, 0, 3), plain.y)
    np.testing.assert_array_equal(y_h.swapaxes(0, 1), plain.y_h)
    np.testing.assert_array_equal(y_c.swapaxes(0, 1), plain.y_c)


@pytest.mark.parametrize("name", ["Relu", "Sigmoid", "Tanh", "Softsign", "Softplus", "LeakyRelu", "ThresholdedRelu",
                                  "Elu", "HardSigmoid"])  # fmt: skip
@pytest.mark.parametrize("arguments", [{}, {"alpha": 0.3, "beta": 0.4}])
def test_activations_are_those_of_the_operators(name, arguments):
    function = ACTIVATIONS[name.lower()]
    defaults = {"alpha": function.alpha, "beta": function.beta}
    given = {key: value for key, value in arguments.items() if defaults[key] is not None}
    ends = [helper.make_tensor_value_info(key, TensorProto.DOUBLE, [None]) for key in "xy"]
    graph = helper.make_graph([helper.make_node(name, ["x"], ["y"], **given)], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
    x = np.linspace(-4, 4, 42)  # not 1, where the operator ThresholdedRelu is 0 and the LSTM one 1
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    alpha, beta = (given.get(key, default if default is not None else np.nan) for key, default in defaults.items())
    # The operators' arguments are float32.
    np.testing.assert_allclose(function.apply(x, alpha, beta), expected, rtol=0, atol=1e-7)


def test_the_specification_knows_these_activations():
    assert len(ACTIVATIONS) == 11
    said = onnx.defs.get_schema("LSTM", 22).doc.lower().replace(" ", "")
    assert all(f"{name}(" in said for name in ACTIVATIONS)


def test_clip_input_forget_and_peepholes_by_hand():
    """One step of one unit, where each of them can be reckoned on paper."""
    one = {"x": np.ones((1, 1, 1)), "w": np.array([[[1.0], [2.0], [3.0], [4.0]]]), "r": np.zeros((1, 4, 1))}
    start = {"initial_h": np.zeros((1, 1, 1)), "initial_c": np.full((1, 1, 1), 2.0)}
    p = np.array([[0.1, 0.2, 0.3]])  # of i, o, f

    def s(x: float) -> float:
        return 1 / (1 + np.exp(-x))

    c = s(3 + 0.3 * 2) * 2 + s(1 + 0.1 * 2) * np.tanh(4)
    _, y_h, y_c = lstm(**one, **start, p=p)
    np.testing.assert_allclose([y_c[0, 0, 0], y_h[0, 0, 0]], [c, s(2 + 0.2 * c) * np.tanh(c)], rtol=1e-15)
    c = (1 - s(1)) * 2 + s(1) * np.tanh(4)
    _, y_h, y_c = lstm(**one, **start, input_forget=1)
    np.testing.assert_allclose([y_c[0, 0, 0], y_h[0, 0, 0]], [c, s(2) * np.tanh(c)], rtol=1e-15)
    c = s(0.5) * 2 + s(0.5) * np.tanh(0.5)
    for clip_cell, reached in ((True, 0.5), (False, c)):
        _, y_h, y_c = lstm(**one, **start, clip=0.5, clip_cell=clip_cell)
        np.testing.assert_allclose([y_c[0, 0, 0], y_h[0, 0, 0]], [c, s(0.5) * np.tanh(reached)], rtol=1e-15)


def test_alphas_go_to_the_functions_that_take_them():
    given = drawn(1)
    mixed = lstm(
        **given,
        activations=["HardSigmoid", "Tanh", "LeakyRelu"],
        activation_alpha=[0.25, 0.1],
        activation_beta=[0.4],
    )
    swapped = lstm(
        **given,
        activations=["HardSigmoid", "Tanh", "LeakyRelu"],
        activation_alpha=[0.1, 0.25],
        activation_beta=[0.4],
    )
    assert np.abs(mixed.y - swapped.y).max() > 1e-3
    # A hard sigmoid of 0 alpha is its beta: every gate is 0.4.
    flat = lstm(**given, activations=["HardSigmoid", "Tanh", "Tanh"], activation_alpha=[0.0], activation_beta=[0.4])
    np.testing.assert_allclose(flat.y_h, 0.4 * np.tanh(flat.y_c), rtol=1e-15)
    with pytest.raises(ValueError, match="left over"):
        lstm(**given, activation_alpha=[0.1])

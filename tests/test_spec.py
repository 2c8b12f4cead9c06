from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given

from lstm_onnx import ConfigError, ExportOptions, LSTMSpec
from lstm_onnx.spec import MAX_OPSET, MIN_OPSET, allowed_values

from .strategies import specs


def test_defaults_are_those_of_nn_lstm() -> None:
    spec = LSTMSpec(4, 3)
    assert dataclasses.asdict(spec) == {
        "input_size": 4,
        "hidden_size": 3,
        "num_layers": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
        "proj_size": 0,
        "dtype": "float32",
    }


def test_shapes_follow_nn_lstm() -> None:
    spec = LSTMSpec(5, 8, num_layers=2, bidirectional=True, proj_size=3)
    assert spec.h_shape("batch") == (4, "batch", 3)
    assert spec.c_shape(7) == (4, 7, 8)
    assert spec.sequence_shape("batch", "time", 5) == ("time", "batch", 5)
    assert dataclasses.replace(spec, batch_first=True).sequence_shape(2, 9, 5) == (2, 9, 5)
    assert (spec.num_directions, spec.state_size, spec.output_size) == (2, 3, 6)
    assert [spec.layer_input_size(layer) for layer in range(2)] == [5, 6]


@given(specs())
def test_parameters_are_those_of_nn_lstm(spec: LSTMSpec) -> None:
    import torch

    arguments = {name: value for name, value in dataclasses.asdict(spec).items() if name != "dtype"}
    module = torch.nn.LSTM(**arguments, device="meta")
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert spec.parameter_shapes() == shapes
    assert list(spec.parameter_shapes()) == list(shapes)
    assert spec.num_parameters == sum(parameter.numel() for parameter in module.parameters())
    assert spec.num_bytes == 4 * spec.num_parameters


def test_the_largest_sizes_are_counted_without_overflow() -> None:
    spec = LSTMSpec(2**31 - 1, 2**31 - 1, dtype="float64")
    gates = 4 * (2**31 - 1)
    assert spec.num_parameters == gates * (2 * (2**31 - 1) + 2)
    assert spec.num_bytes == 8 * spec.num_parameters


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_size", 0),
        ("input_size", -1),
        ("input_size", 2**31),
        ("input_size", 4.0),
        ("input_size", "4"),
        ("input_size", True),
        ("input_size", float("nan")),
        ("hidden_size", 0),
        ("num_layers", 0),
        ("num_layers", None),
        ("bias", 1),
        ("batch_first", "yes"),
        ("dropout", -0.1),
        ("dropout", 1.1),
        ("dropout", float("nan")),
        ("dropout", True),
        ("bidirectional", 2),
        ("proj_size", -1),
        ("proj_size", 3),
        ("dtype", "bfloat16"),
        ("dtype", None),
    ],
)
def test_impossible_values_are_named_with_what_is_allowed(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        LSTMSpec(**{"input_size": 4, "hidden_size": 3, field: value})
    message = str(caught.value)
    assert message.startswith(f"{field} = {value!r} is not possible; it must be ")
    if (field, value) == ("proj_size", 3):
        assert "smaller than hidden_size = 3" in message
    else:
        assert allowed_values(LSTMSpec)[field] in message


def test_an_integer_is_a_fine_dropout() -> None:
    assert LSTMSpec(4, 3, dropout=1).dropout == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lengths", 1),
        ("projection", "Scan"),
        ("projection", 0),
        ("opset", MIN_OPSET - 1),
        ("opset", MAX_OPSET + 1),
        ("opset", 18.0),
        ("opset", True),
    ],
)
def test_impossible_options_are_named_with_what_is_allowed(field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        ExportOptions(**{field: value})
    assert (
        str(caught.value) == f"{field} = {value!r} is not possible; it must be {allowed_values(ExportOptions)[field]}"
    )

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given

from lstm_onnx import ConfigError, ExportOptions, LSTMSpec
from lstm_onnx.spec import MAX_OPSET, MIN_OPSET, GRUSpec, RecurrentSpec, RNNSpec, allowed_values

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


def test_the_order_of_the_arguments_is_part_of_the_contract() -> None:
    spec = LSTMSpec(4, 3, 2, False, True, 0.5, True, 1, "float64")
    assert dataclasses.astuple(spec) == (4, 3, 2, False, True, 0.5, True, 1, "float64")
    assert list(allowed_values(LSTMSpec))[-3:] == ["bidirectional", "proj_size", "dtype"]
    assert list(LSTMSpec.__dataclass_fields__) == list(allowed_values(LSTMSpec))


def test_a_gru_and_an_rnn_have_their_own_arguments() -> None:
    common: dict[str, object] = {"input_size": 4, "hidden_size": 3, "num_layers": 1, "bias": True, "batch_first": False}
    common |= {"dropout": 0.0, "bidirectional": False, "dtype": "float32"}
    assert dataclasses.asdict(GRUSpec(4, 3)) == common
    assert dataclasses.asdict(RNNSpec(4, 3)) == {**common, "nonlinearity": "tanh"}


def test_kinds_know_their_operator() -> None:
    kinds = (LSTMSpec(4, 3), GRUSpec(4, 3), RNNSpec(4, 3))
    assert [(k.op_type, k.gates, k.has_cell) for k in kinds] == [
        ("LSTM", 4, True),
        ("GRU", 3, False),
        ("RNN", 1, False),
    ]
    assert GRUSpec(4, 3) != RNNSpec(4, 3)
    assert len({*kinds, GRUSpec(4, 3)}) == 3


@pytest.mark.parametrize("kind", [GRUSpec, RNNSpec])
def test_parameters_are_those_of_torch(kind: type[RecurrentSpec]) -> None:
    import torch

    for layers, bias, bidirectional in itertools.product((1, 3), (True, False), (True, False)):
        spec = kind(5, 3, num_layers=layers, bias=bias, bidirectional=bidirectional)
        arguments = {name: value for name, value in dataclasses.asdict(spec).items() if name != "dtype"}
        module = getattr(torch.nn, spec.op_type)(**arguments, device="meta")
        shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
        assert list(spec.parameter_shapes().items()) == list(shapes.items())
        assert spec.h_shape("batch") == (layers * (1 + bidirectional), "batch", 3)
        assert spec.output_size == 3 * (1 + bidirectional)
        assert spec.num_bytes == 4 * sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (GRUSpec, "hidden_size", 0),
        (GRUSpec, "dtype", "bfloat16"),
        (RNNSpec, "nonlinearity", "sigmoid"),
        (RNNSpec, "nonlinearity", None),
        (RNNSpec, "dropout", 2.0),
    ],
)
def test_every_kind_refuses_what_is_impossible(kind: type[RecurrentSpec], field: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**{"input_size": 4, "hidden_size": 3, field: value})
    assert str(caught.value) == f"{field} = {value!r} is not possible; it must be {allowed_values(kind)[field]}"


@pytest.mark.parametrize("kind", [GRUSpec, RNNSpec])
def test_only_an_lstm_is_projected(kind: type[RecurrentSpec]) -> None:
    with pytest.raises(TypeError, match="proj_size"):
        kind(4, 3, proj_size=1)
    assert not hasattr(kind(4, 3), "c_shape")


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


def test_a_number_of_layers_that_no_memory_holds_is_counted_at_once():
    spec = LSTMSpec(input_size=3, hidden_size=2, num_layers=2**31 - 1, bidirectional=True)
    few = LSTMSpec(input_size=3, hidden_size=2, num_layers=3, bidirectional=True)
    one = LSTMSpec(input_size=3, hidden_size=2, num_layers=2, bidirectional=True)
    assert few.num_parameters == sum(math.prod(shape) for shape in few.parameter_shapes().values())
    each = few.num_parameters - one.num_parameters
    assert spec.num_parameters == few.num_parameters + (2**31 - 4) * each

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import lstm_onnx
from lstm_onnx import ConfigError, ExportError, LSTMSpec
from lstm_onnx.exporter.sources.torch_lstm import check_sizes, is_bare_lstm, module_of, seeded_state, spec_of, state_of


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_layers": 3, "dropout": 0.5},
        {"bias": False, "batch_first": True},
        {"bidirectional": True, "proj_size": 2},
        {"dtype": "float64"},
        {"dtype": "float16"},
    ],
)
def test_there_and_back(arguments: dict[str, object]) -> None:
    spec = LSTMSpec(4, 3, **arguments)
    state = seeded_state(spec, 0)
    module = module_of(spec, state)
    assert not module.training
    assert spec_of(module) == spec
    again = state_of(module, spec)
    assert list(again) == list(state)
    for name, array in again.items():
        assert array.dtype == spec.dtype
        assert array.tobytes() == state[name].tobytes()


def test_the_module_has_parameters_of_its_own() -> None:
    spec = LSTMSpec(4, 3)
    state = seeded_state(spec, 0)
    before = copy.deepcopy(state)
    module = module_of(spec, state)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    for name, array in state.items():
        np.testing.assert_array_equal(array, before[name])


def test_weight_norm_exports_the_weight_that_it_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(4, 3)
    plain = module.weight_hh_l0.detach().clone()
    weight_norm(module, "weight_hh_l0")
    with torch.no_grad():
        module.parametrizations.weight_hh_l0.original0.mul_(3.0)
    state = state_of(module, spec_of(module))
    np.testing.assert_array_equal(state["weight_hh_l0"], module.weight_hh_l0.detach().numpy())
    np.testing.assert_allclose(state["weight_hh_l0"], 3 * plain.numpy(), rtol=1e-5)
    path = tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    x = torch.randn(5, 2, 4)
    with torch.no_grad():
        expected, _ = module(x)
    output, _ = lstm_onnx.load(path, provider="cpu", threads=1)(x.numpy())
    np.testing.assert_allclose(output, expected.numpy(), atol=1e-6)


def test_weights_that_a_call_takes_instead_of_the_parameters_are_traced() -> None:
    module = nn.LSTM(4, 3)
    module._flat_weights = [weight.detach().clone() for weight in module._flat_weights]
    assert is_bare_lstm(module)
    module._flat_weights[1] *= 2
    with pytest.raises(ExportError, match=r"_flat_weights that are not its parameters.*pass example_inputs"):
        spec_of(module)


class _OwnForward(nn.LSTM):
    def forward(self, *arguments: object) -> object:
        return super().forward(*arguments)


class _OwnCall(nn.LSTM):
    def __call__(self, input: torch.Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        return super().__call__(2 * input, hx)


class _OwnWeights(nn.LSTM):
    @property
    def _flat_weights(self) -> list[torch.Tensor]:  # type: ignore[override]
        return [2 * weight for weight in vars(self)["_own"]]

    @_flat_weights.setter
    def _flat_weights(self, weights: list[torch.Tensor]) -> None:
        vars(self)["_own"] = weights


@pytest.mark.parametrize("cls", [_OwnCall, _OwnWeights])
def test_a_subclass_that_changes_another_part_of_a_call_is_traced(cls: type[nn.LSTM], tmp_path: Path) -> None:
    module = cls(4, 3).eval()
    with pytest.raises(ExportError, match=rf"{cls.__name__} is more than an nn\.LSTM"):
        lstm_onnx.export(module, tmp_path / "m.onnx")
    x = torch.randn(5, 2, 4)
    axes = {"input": {0: "time", 1: "batch"}}
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=x, dynamic_shapes=axes)
    with torch.no_grad():
        expected, _ = module(x)
    result = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", threads=1).run({"input": x.numpy()})
    np.testing.assert_allclose(result["output.0"], expected.numpy(), atol=1e-6)


class _OwnName(nn.LSTM):
    pass


def test_a_subclass_with_its_own_forward_asks_for_an_example(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"_OwnForward is more than an nn\.LSTM"):
        lstm_onnx.export(_OwnForward(4, 3), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_subclass_that_computes_the_same_is_exported(tmp_path: Path) -> None:
    module = _OwnName(4, 3)
    lstm_onnx.export(module, tmp_path / "m.onnx")
    assert lstm_onnx.verify(module, tmp_path / "m.onnx", provider="cpu", threads=1)


def test_bfloat16_is_refused_with_the_way_round(tmp_path: Path) -> None:
    module = nn.LSTM(4, 3, dtype=torch.bfloat16)
    with pytest.raises(ExportError, match=r"dtype is bfloat16.*module\.float\(\)"):
        lstm_onnx.export(module, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    lstm_onnx.export(module.float(), tmp_path / "m.onnx")


@pytest.mark.parametrize("module", [nn.GRU(4, 3), nn.LSTMCell(4, 3), nn.Sequential(nn.LSTM(4, 3))])
def test_what_is_more_than_an_lstm_asks_for_an_example(module: nn.Module, tmp_path: Path) -> None:
    name = type(module).__name__
    with pytest.raises(ExportError, match=rf"^{name} is more than an nn\.LSTM.*example_inputs"):
        lstm_onnx.export(module, tmp_path / "m.onnx")
    with pytest.raises(ExportError, match=rf"^{name} is not an nn\.LSTM"):
        spec_of(module)


def test_flags_and_sizes_are_taken_as_torch_takes_them(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"bidirectional": 1, "dropout": 0}
    module = nn.LSTM(4, 3, **flags)
    module.num_layers = np.int64(1)  # type: ignore[assignment]
    assert spec_of(module) == LSTMSpec(4, 3, bidirectional=True)
    plain = nn.LSTM(4, 3, bidirectional=True)
    plain.load_state_dict(module.state_dict())
    lstm_onnx.export(module, tmp_path / "m.onnx")
    assert lstm_onnx.verify(plain, tmp_path / "m.onnx", provider="cpu", threads=1)
    module.batch_first = None  # type: ignore[assignment]
    assert not spec_of(module).batch_first


@pytest.mark.parametrize("wrong", [{"states": "zero"}, {"output_names": ["y"]}])
def test_what_a_bare_lstm_has_no_choice_in(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bare nn\.LSTM"):
        lstm_onnx.export(nn.LSTM(4, 3), tmp_path / "m.onnx", **wrong)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_need_gradients_are_read(tmp_path: Path) -> None:
    module = nn.LSTM(4, 3)
    assert all(parameter.requires_grad for parameter in module.parameters())
    state = state_of(module, spec_of(module))
    assert set(state) == set(module.state_dict())


def test_sizes_that_cannot_be_built() -> None:
    check_sizes(LSTMSpec(4, 3, num_layers=1000))
    with pytest.raises(ConfigError, match="use smaller sizes"):
        check_sizes(LSTMSpec(4, 2**31 - 1))
    with pytest.raises(ConfigError, match="num_layers = 1001 is more than 1000"):
        check_sizes(LSTMSpec(4, 3, num_layers=1001))


@pytest.mark.parametrize(
    ("said", "raised"),
    [
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes", ConfigError),
        ("else", RuntimeError),
    ],
)
def test_memory_that_torch_does_not_get(said: str, raised: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(torch.nn, "LSTM", refuses)
    with pytest.raises(raised, match=r"do not fit into memory; use smaller sizes|else"):
        seeded_state(LSTMSpec(4, 3), 0)


def test_hooks_are_refused() -> None:
    module = torch.nn.LSTM(4, 3)
    module.register_forward_pre_hook(lambda *_: None)
    with pytest.raises(ExportError, match="hooks"):
        spec_of(module)
    module = torch.nn.LSTM(4, 3)
    module.forward = lambda x: x
    with pytest.raises(ExportError, match="forward of its own"):
        spec_of(module)
    module = torch.nn.LSTM(4, 3)
    module._call_impl = lambda *_: None
    with pytest.raises(ExportError, match="another method that a call runs"):
        spec_of(module)


def test_meta_device_is_refused() -> None:
    with pytest.raises(ExportError, match="meta device"):
        spec_of(torch.nn.LSTM(4, 3, device="meta"))


def test_spectral_norm_is_read_and_not_stepped() -> None:
    module = torch.nn.LSTM(4, 3)
    torch.nn.utils.parametrizations.spectral_norm(module, "weight_hh_l0")
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    spec = spec_of(module)
    first, second = state_of(module, spec), state_of(module, spec)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("changed", [{"bias": False}, {"num_layers": 3}, {"bidirectional": True}, {"proj_size": 2}])
def test_attributes_set_by_hand_that_do_not_fit_the_weights_are_refused(changed: dict[str, Any]) -> None:
    module = nn.LSTM(4, 4, num_layers=2)
    vars(module).update(changed)
    with pytest.raises(ExportError, match=r"LSTM: its bias, .* was changed after it was made: it has"):
        spec_of(module)

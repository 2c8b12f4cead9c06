"""Checkpoints of LSTMs whose weights torch computes, against the weights that torch computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import register_parametrization

from lstm_onnx import WeightsError
from lstm_onnx.exporter.sources.checkpoint import load_state_dict

NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def _older(name: str, *names: str, **options: object) -> Callable[[nn.LSTM], object]:
    def change(module: nn.LSTM) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            for weight in names:
                getattr(nn.utils, name)(module, weight, **options)

    return change


def _both(change: Callable[..., object]) -> Callable[[nn.LSTM], object]:
    return lambda module: [change(module, name) for name in NAMES[:2]]


CHANGES: dict[str, Callable[[nn.LSTM], object]] = {
    "older weight_norm": _older("weight_norm", *NAMES[:2]),
    "older weight_norm of the whole": _older("weight_norm", "weight_hh_l0", dim=None),
    "older weight_norm of columns": _older("weight_norm", "weight_hh_l0", dim=1),
    "weight_norm": _both(parametrizations.weight_norm),
    "older spectral_norm": _older("spectral_norm", "weight_hh_l0"),
    "spectral_norm": _both(parametrizations.spectral_norm),
    "pruning": lambda module: prune.l1_unstructured(module, "weight_hh_l0", 0.5),
}


@pytest.mark.parametrize("prefix", ["", "net.encoder."])
@pytest.mark.parametrize("change", CHANGES)
def test_the_weights_are_those_that_torch_computes(change: str, prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(4, 3)
    CHANGES[change](module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    module.eval()
    with torch.no_grad():
        module(torch.randn(2, 1, 4))  # the older functions compute the weights here
    torch.save({prefix + name: value for name, value in module.state_dict().items()}, tmp_path / "net.pt")
    found = load_state_dict(tmp_path / "net.pt", prefix)
    assert set(found) == set(NAMES)
    for name in NAMES:
        np.testing.assert_allclose(found[name], getattr(module, name).detach().numpy(), rtol=1e-5)
    changed = [name for name in NAMES if name not in module.state_dict()]
    assert changed  # else the file had plain weights


class _Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


class _Sum(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    def right_inverse(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x / 2, x / 2


@pytest.mark.parametrize(
    "change",
    [
        lambda module: register_parametrization(module, "weight_hh_l0", _Doubled()),
        lambda module: register_parametrization(module, "weight_hh_l0", _Sum()),
        lambda module: parametrizations.orthogonal(module, "weight_hh_l0"),
    ],
)
def test_what_no_name_tells_is_refused(change: Callable[[nn.LSTM], object], tmp_path: Path) -> None:
    module = nn.LSTM(4, 4)
    change(module)
    torch.save(module.state_dict(), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=r"weight_hh_l0 is computed by a parametrization .*remove_parametrizations"):
        load_state_dict(tmp_path / "net.pt")


def test_a_square_spectral_norm_is_refused(tmp_path: Path) -> None:
    module = nn.RNN(4, 4)
    parametrizations.spectral_norm(module, "weight_hh_l0")
    torch.save(module.state_dict(), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="weight_hh_l0 is computed by a parametrization"):
        load_state_dict(tmp_path / "net.pt")


def test_a_module_without_the_norm_gets_the_weight_and_one_with_it_its_parts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    normed, plain, newer = (nn.ModuleDict({"lstm": nn.LSTM(4, 3)}) for _ in range(3))
    CHANGES["older weight_norm"](normed["lstm"])  # type: ignore[arg-type]
    CHANGES["weight_norm"](newer["lstm"])  # type: ignore[arg-type]
    torch.save(normed.state_dict(), tmp_path / "net.pt")
    for module in (plain, newer, normed):
        names = module.state_dict()
        found = load_state_dict(tmp_path / "net.pt", module_names=names)
        assert set(found) == set(names)
        module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in found.items()})
    x = torch.randn(3, 2, 4)
    with torch.no_grad():
        for module in (plain, newer):
            torch.testing.assert_close(module["lstm"](x)[0], normed["lstm"](x)[0])


def test_a_parameter_that_only_ends_alike_stays(tmp_path: Path) -> None:
    names = ["lstm.weight_ih_l0", "attention_g", "attention_v", "bias", "bias_mask", "w", "w_u", "w_v", "k", "k_raw"]
    state = {name: torch.ones(4, 1) for name in names}
    torch.save(state, tmp_path / "net.pt")
    assert set(load_state_dict(tmp_path / "net.pt", module_names=state)) == set(state)

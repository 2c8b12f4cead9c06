"""Calls as of torch.onnx.export: the error says how they are written here."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx import ConfigError
from lstm_onnx.exporter.torch_names import _NAMES

X = torch.zeros(3, 2, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"args": (X,)}, "args is an argument of torch.onnx.export; pass example_inputs, the arguments of forward"),
        ({"dummy_input": X}, "dummy_input is an argument of torch.onnx.export; pass example_inputs"),
        ({"opset_version": 17}, "opset_version is an argument of torch.onnx.export; pass opset"),
        ({"input_names": ["x"]}, "leave it out: inputs have the names of forward's arguments"),
        (
            {"dynamo": True, "verbose": False},
            "dynamo, verbose are arguments of .* dynamo: leave it out; verbose: leave",
        ),
        ({"f": "m.onnx", "args": X}, "f: pass the path of the file as the second argument; args: pass example_inputs"),
    ],
)
def test_names_are_translated(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = () if "f" in given else (tmp_path / "m.onnx",)
    with pytest.raises(ConfigError, match=message):
        lstm_onnx.export(nn.LSTM(4, 3), *path, **given)
    assert not list(tmp_path.iterdir())


def test_the_order_is_translated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the path is the second argument; write export\(module, path, example_in"):
        lstm_onnx.export(nn.LSTM(4, 3), (X,), str(tmp_path / "m.onnx"))  # type: ignore[misc, arg-type]


def test_every_argument_of_torch_is_known_here_or_translated() -> None:
    theirs = set(inspect.signature(torch.onnx.export).parameters)
    ours = set(inspect.signature(lstm_onnx.export).parameters)
    assert theirs - ours <= set(_NAMES) | {"deprecated_kwargs", "_"}
    assert not ours & set(_NAMES)


def test_other_names_are_pythons_own_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no_such"):
        lstm_onnx.export(nn.LSTM(4, 3), tmp_path / "m.onnx", no_such=1)  # type: ignore[call-arg]

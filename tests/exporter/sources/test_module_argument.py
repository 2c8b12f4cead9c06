"""What is passed in the place of a module, and what the error says of it."""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import lstm_onnx
from lstm_onnx import ConfigError, ExportError
from lstm_onnx.exporter.sources.module_argument import construction, is_unknown, unwrap_module
from lstm_onnx.testing import assert_parity


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0])  # type: ignore[no-any-return]


class Sized(Net):
    def __init__(self, vocabulary: int, *, width: int, depth: int = 1) -> None:
        super().__init__()
        self.sizes = vocabulary, width, depth


class Held:
    """As a trainer holds its model."""

    def __init__(self) -> None:
        self.rate = 0.1
        self.model = Net()


class Average(nn.Module):
    """As timm's ModelEmaV2: a module with another in it, and no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.module = Net()


class Wrapped(Tensor):
    """A tensor that holds another, as torchao's quantized ones."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapped:
        made = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined]
        made.inner = inner
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return Wrapped(args[0].inner)
        return func(*tree_map(lambda item: item.inner if isinstance(item, Wrapped) else item, args), **(kwargs or {}))


X = torch.zeros(5, 2, 3)


def _wrapped_weight() -> nn.Module:
    net = Net()
    net.out.weight = nn.Parameter(Wrapped(net.out.weight.detach()), requires_grad=False)
    return net


def _program() -> torch.export.ExportedProgram:
    return torch.export.export(Net().eval(), (X,))


def _loaded(folder: Path) -> Any:
    torch.jit.script(Net()).save(folder / "net.pt")
    return torch.jit.load(folder / "net.pt")


KINDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "None": (lambda _: None, "None is not an nn.Module; a function that makes the module must return it"),
    "class": (lambda _: Net, "Net is a class; pass an instance, Net()"),
    "class with arguments": (lambda _: Sized, "Sized is a class; pass an instance, Sized(vocabulary, width)"),
    "torch's class": (lambda _: nn.LSTM, "LSTM is a class; pass an instance, LSTM(...)"),
    "other class": (lambda _: dict, "dict is a class, and not one of nn.Module"),
    "Python module": (lambda _: nn, "torch.nn is a Python module; pass an nn.Module"),
    "function": (lambda _: lambda x: x, "'<lambda>' is a function; pass an nn.Module that has the recurrent modules"),
    "method": (lambda _: Net().forward, "forward is a method of Net; pass the module itself"),
    "partial": (lambda _: functools.partial(Net), "this is a functools.partial; pass the nn.Module that it makes"),
    "state dict": (lambda _: Net().state_dict(), "this is a state dict; load it into the module first"),
    "checkpoint": (
        lambda _: {"state_dict": Net().state_dict(), "epoch": 3},
        "this is a dict, such as a checkpoint; load its state dict into the module first",
    ),
    "dict of modules": (lambda _: {"net": Net()}, "this is a dict that holds modules ('net'); pass one of them"),
    "dict": (lambda _: {"epoch": 3}, "dict is not an nn.Module"),
    "list": (lambda _: [Net(), Net()], "this is a list that holds modules; pass one nn.Module, whose forward calls"),
    "pair": (lambda _: (Net(), X), "this is a tuple; pass the module alone, and the arguments of its forward as"),
    "optimizer": (lambda _: torch.optim.Adam(Net().parameters()), "Adam is an optimizer; pass the module"),
    "tensor": (lambda _: X, "Tensor is data and no nn.Module; pass the module first, and data as example_inputs"),
    "array": (lambda _: np.zeros(3), "ndarray is data and no nn.Module"),
    "packed": (lambda _: nn.utils.rnn.pack_sequence([X[0]]), "PackedSequence is data and no nn.Module"),
    "number": (lambda _: 3, "int is not an nn.Module"),
    "holder": (lambda _: Held(), "Held is not an nn.Module; pass one that it holds (.model)"),
    "ModuleList": (lambda _: nn.ModuleList([Net()]), "ModuleList has no forward; pass one of its submodules (0), or a"),
    "no forward": (lambda _: Average(), "Average has no forward; pass one of its submodules (module), or a module"),
    "scripted": (lambda _: torch.jit.script(Net()), "Net is TorchScript, which keeps the weights and no Python code"),
    "scripted LSTM": (lambda _: torch.jit.script(nn.LSTM(3, 4)), "LSTM is TorchScript, which keeps the weights and"),
    "traced": (lambda _: torch.jit.trace(Net(), X), "Net is TorchScript, which keeps the weights and no Python code"),
    "loaded script": (_loaded, "Net is TorchScript, which keeps the weights and no Python code to trace"),
    "scripted part": (
        lambda _: nn.Sequential(torch.jit.script(Net())),
        "0 is TorchScript, which keeps the weights and no Python code to trace; pass the nn.Module that it was made",
    ),
    "class with a script method": (
        lambda _: _script_class()(),
        "Part is TorchScript, which keeps the weights and no Python code to trace; derive Part from nn.Module, and",
    ),
    "scripted function": (lambda _: torch.jit.script(_relu), "this is a function of TorchScript, which keeps the"),
    "program": (lambda _: _program(), "this is an ExportedProgram, in which torch.export has already replaced the"),
    "program's module": (lambda _: _program().module(), "GraphModule comes from torch.export, which has already"),
    "program in a part": (
        lambda _: nn.Sequential(_program().module()),
        "0 (GraphModule) comes from torch.export, which has already replaced the recurrent modules",
    ),
    "unflattened": (lambda _: torch.export.unflatten(_program()), "UnflattenedModule comes from torch.export, which"),
    "dynamic int8": (
        lambda _: torch.ao.quantization.quantize_dynamic(Net(), {nn.LSTM}),
        "lstm is torch.ao.nn.quantized.dynamic.modules.rnn.LSTM, of PyTorch's own quantization, which ONNX has no",
    ),
    "rounding part": (
        lambda _: nn.Sequential(Net(), torch.ao.quantization.default_fake_quant()),
        "1 (FakeQuantize) rounds numbers as a quantized module does, and the smallest difference before it can tip a",
    ),
    "other tensors": (lambda _: _wrapped_weight(), "out.weight is a Wrapped, a tensor of another kind than"),
}


def _script_class() -> Any:
    class Part(torch.jit.ScriptModule):
        @torch.jit.script_method
        def forward(self, x: Tensor) -> Tensor:
            return x.relu()

    return Part


def _relu(x: Tensor) -> Tensor:
    return x.relu()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "net.onnx"
    lstm_onnx.export(nn.LSTM(3, 4), path)
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_what_it_is_and_what_to_pass(kind: str, file: Path, tmp_path: Path) -> None:
    make, message = KINDS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = make(tmp_path)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: lstm_onnx.export(value, tmp_path / "m.onnx", example_inputs=(X,)),
        lambda: lstm_onnx.export(value, tmp_path / "m.onnx"),
        lambda: lstm_onnx.verify(value, file),
        lambda: assert_parity(value, file),
    )
    for call in calls:
        with pytest.raises(ExportError, match=f"^{re.escape(message)}") as caught:
            call()
        assert "\n" not in str(caught.value)
        assert " at 0x" not in str(caught.value)
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("path", ["net.pt", Path("net.onnx"), "models/net.toml"])
def test_a_path_in_the_place_of_a_module(path: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"is not an nn\.Module; pass the module itself, with its weights loaded"):
        lstm_onnx.export(path, tmp_path / "m.onnx")


def test_an_onnx_file_in_the_place_of_a_module(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^Model is an ONNX model already; pass the nn\.Module"):
        lstm_onnx.export(lstm_onnx.load(file), tmp_path / "m.onnx")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"is an \.onnx file, which cannot be exported; give the int8 or float16"):
        lstm_onnx.verify(str(file))


def test_what_computes_in_float_is_no_quantized_module() -> None:
    parts = nn.LSTM(3, 4), torch.ao.nn.quantizable.LSTM(3, 4), torch.ao.nn.quantized.FloatFunctional()
    net = nn.Sequential(torch.ao.quantization.QuantStub(), *parts)
    assert unwrap_module(net) is net


@pytest.mark.skipif(os.name == "nt", reason="gloo's file store is for POSIX")
def test_sharded_parameters(group: None, tmp_path: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor

    net = Net()
    mesh = init_device_mesh("cpu", (1,))
    net.out.weight = nn.Parameter(distribute_tensor(net.out.weight.detach(), mesh, [Replicate()]))
    with pytest.raises(ExportError, match=r"^out\.weight is a DTensor, in shards over devices; gather them"):
        lstm_onnx.export(net, tmp_path / "m.onnx", example_inputs=(X,))


def test_what_there_is_nothing_to_say_of() -> None:
    assert is_unknown(3)
    assert not is_unknown(None)
    assert not is_unknown(Net())


def test_how_a_class_is_called() -> None:
    assert construction(Net) == "Net()"
    assert construction(Sized) == "Sized(vocabulary, width)"
    assert construction(nn.GRU) == "GRU(...)"

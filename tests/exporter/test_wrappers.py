"""Modules in torch's wrappers: the file is that of the module within, and the wrappers stay on the caller's module."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import lstm_onnx
from lstm_onnx.exporter.wrappers import is_wrapper, uncompiled, wrapped_module
from tests.exporter.helpers import agree, eager, signal

pytestmark = [
    pytest.mark.sweep(12),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.LSTM(3, 4, batch_first=True)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])  # type: ignore[no-any-return]


class Outer(nn.Module):
    """Calls `inner`, and reads an attribute of it."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        width = self.inner.out.out_features if hasattr(self.inner, "out") else 2
        return self.inner(x) * self.scale / width  # type: ignore[no-any-return]


class Reaching(nn.Module):
    """Calls a part of what a wrapper holds."""

    def __init__(self, inner: Any, name: str) -> None:
        super().__init__()
        self.inner, self.name = inner, name

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.inner, self.name).rnn(x)[0]  # type: ignore[no-any-return]


class Decorated(Net):
    @torch.compile(backend="eager")
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0].view(len(x), -1, 4))  # type: ignore[no-any-return]


@torch.compile(backend="eager")
def _scaled(y: Tensor) -> Tensor:
    return 2 * y.view(len(y), -1, 2)


class Helped(Net):
    def forward(self, x: Tensor) -> Tensor:
        return _scaled(super().forward(x))


def _compiled(module: Any) -> Any:
    return torch.compile(module, backend="eager")


def _set(module: Any, name: str, change: Callable[[Any], Any]) -> Any:
    owner, _, last = name.rpartition(".")
    target = module.get_submodule(owner)
    setattr(target, last, change(getattr(target, last)))
    return module


def _in_place(module: Any, part: str = "") -> Any:
    module.get_submodule(part).compile(backend="eager")
    return module


def _hooked(wrapper: Any) -> Any:
    wrapper.register_forward_hook(lambda _module, _args, result: 2 * result)
    wrapper.register_forward_pre_hook(lambda _module, args: (args[0] + 1,))
    return wrapper


KINDS: dict[str, Callable[[], nn.Module]] = {
    "compiled": lambda: _compiled(Net()),
    "compiled in place": lambda: _in_place(Net()),
    "a part compiled": lambda: _set(Net(), "rnn", _compiled),
    "a part compiled in place": lambda: _in_place(Net(), "rnn"),
    "its forward compiled": lambda: _set(Net(), "forward", _compiled),
    "a part's forward compiled": lambda: _set(Net(), "rnn.forward", _compiled),
    "its forward not to be compiled": lambda: _set(Net(), "forward", torch.compiler.disable),
    "a decorated forward": Decorated,
    "a decorated function": Helped,
    "DataParallel": lambda: nn.DataParallel(Net()),
    "DataParallel of compiled": lambda: nn.DataParallel(_compiled(nn.DataParallel(Net()))),
    "compiled within": lambda: Outer(_compiled(Net())),
    "DataParallel within": lambda: Outer(nn.DataParallel(_in_place(Net()))),
    "all at once": lambda: _in_place(Outer(nn.DataParallel(_compiled(_in_place(Net(), "rnn"))))),
    "reached through DataParallel": lambda: Reaching(nn.DataParallel(Net()), "module"),
    "reached through compiled": lambda: Reaching(_compiled(Net()), "_orig_mod"),
    "hooks on DataParallel within": lambda: Outer(_hooked(nn.DataParallel(Net()))),
    "hooks on compiled within": lambda: Outer(_hooked(_compiled(Net()))),
    "hooks on compiled": lambda: _hooked(_compiled(Net())),
    "averaged": lambda: AveragedModel(Net()),
    "averaged of compiled": lambda: AveragedModel(_compiled(Net())),
    "symbolically traced": lambda: torch.fx.symbolic_trace(Net()),
    "symbolically traced within": lambda: Outer(torch.fx.symbolic_trace(Net())),
}


def _seen(module: nn.Module) -> dict[str, Any]:
    """All that an export could change in a module."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        found[path] = (id(part), type(part), {name: id(value) for name, value in part.__dict__.items()})
        for table in (part._parameters, part._buffers, part._forward_hooks, part._forward_pre_hooks):
            found[path] += ({name: id(value) for name, value in table.items()},)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        found[f"{name} "] = (tensor.detach().clone().numpy().tobytes(), tensor._version)
    return found


@pytest.mark.sweep(9)
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_the_wrapped_modules(kind: str, tmp_path: Path) -> None:
    module = KINDS[kind]().eval()
    before = _seen(module)
    path = tmp_path / "m.onnx"
    lstm_onnx.export(module, path, example_inputs=signal(2, 4))
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    for batch, time in ((1, 1), (3, 7)):
        (x,) = signal(batch, time)
        agree([model.run({next(iter(model.inputs)): x.numpy()})["output"]], eager(module, (x,)))
    assert not any("_orig_mod" in name or name.startswith("module.") for name in model.outputs)
    assert _seen(module) == before


@pytest.mark.parametrize("kind", ["all at once", "a decorated function", "hooks on compiled within"])
def test_verify_compares_with_the_wrapped_module(kind: str, tmp_path: Path) -> None:
    module = KINDS[kind]().eval()
    path = tmp_path / "m.onnx"
    lstm_onnx.export(module, path, example_inputs=signal(2, 4))
    before = _seen(module)
    assert lstm_onnx.verify(module, path, provider="cpu", threads=1)
    assert _seen(module) == before
    for name, parameter in module.named_parameters():
        if name.endswith("rnn.weight_hh_l0"):
            with torch.no_grad():
                parameter.add_(0.1)
    assert not lstm_onnx.verify(module, path, provider="cpu", threads=1)


def test_states_have_the_names_that_they_have_without_wrappers(tmp_path: Path) -> None:
    names = []
    for module in (Outer(Net()), Outer(_compiled(Net())), Outer(nn.DataParallel(Net()))):
        lstm_onnx.export(module.eval(), tmp_path / "m.onnx", example_inputs=signal(2, 4), states="explicit")
        names.append(set(lstm_onnx.load(tmp_path / "m.onnx").inputs))
    assert names == [{"x", "inner.rnn.h0", "inner.rnn.c0"}] * 3


@pytest.mark.parametrize("wrap", [_compiled, _in_place, nn.DataParallel])
def test_a_bare_lstm_needs_no_example(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    lstm = nn.LSTM(3, 4)
    lstm_onnx.export(wrap(copy.deepcopy(lstm)), tmp_path / "m.onnx")
    assert lstm_onnx.verify(lstm, tmp_path / "m.onnx", provider="cpu", threads=1)


@pytest.mark.skipif(os.name == "nt", reason="gloo's file store is for POSIX")
def test_distributed_data_parallel(group: None, tmp_path: Path) -> None:
    for module in (nn.parallel.DistributedDataParallel(Net()), Outer(nn.parallel.DistributedDataParallel(Net()))):
        lstm_onnx.export(module.eval(), tmp_path / "m.onnx", example_inputs=signal(2, 4))
        model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", threads=1)
        (x,) = signal(3, 7)
        agree([model.run({"x": x.numpy()})["output"]], eager(module, (x,)))


def test_wrappers_are_told_from_modules() -> None:
    net = Net()
    assert wrapped_module(nn.DataParallel(net)) is net
    assert wrapped_module(net) is None
    assert not is_wrapper(net)
    hooked = _hooked(nn.DataParallel(net))
    assert is_wrapper(hooked)
    assert wrapped_module(hooked) is None


class _Louder(nn.Module):
    """Calls the module that it holds as torch.compile's wrapper does, and does more."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module

    def forward(self, x: Tensor) -> Any:
        return 2 * self._orig_mod(x)


class _LouderParallel(nn.DataParallel[Any]):
    def forward(self, x: Tensor) -> Any:
        return 2 * super().forward(x)


@pytest.mark.parametrize("kind", [_Louder, _LouderParallel])
def test_what_only_looks_like_a_wrapper_is_exported_as_it_is(kind: Any, tmp_path: Path) -> None:
    module = kind(Net()).eval()
    assert wrapped_module(module) is None
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=signal(2, 4))
    (x,) = signal(3, 7)
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", threads=1)
    agree([model.run({"x": x.numpy()})["output"]], eager(module, (x,)))


def test_the_function_that_was_compiled() -> None:
    net = Net()
    assert uncompiled(torch.compile(_plain)) is _plain
    assert uncompiled(torch.compiler.disable(_plain)) is _plain
    assert uncompiled(torch.compile(net.forward)) == net.forward
    assert uncompiled(_plain) is _plain
    assert uncompiled(3) == 3


def _plain(x: np.ndarray) -> np.ndarray:
    return x

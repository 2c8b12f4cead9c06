"""Whole modules to files: what goes in, what comes out, and that nothing else is touched."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import logging
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import rnn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

import lstm_onnx
from lstm_onnx import ConfigError, ExportError
from lstm_onnx.exporter.module_options import ModuleOptions
from lstm_onnx.exporter.sources.source import ModuleSource
from lstm_onnx.input_spec import InputSpec
from lstm_onnx.spec import ExportOptions
from tests.exporter.helpers import X_LENGTHS, X, agree, eager, made, right, signal, with_lengths

pytestmark = pytest.mark.sweep(18)


class Packer(nn.Module):
    """Holds a bit of everything."""

    def __init__(self, seed: int = 0, hidden: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.lstm = nn.LSTM(3, hidden, batch_first=True, dropout=0.0)
        self.norm = nn.BatchNorm1d(hidden)
        self.drop = nn.Dropout(0.5)
        self.hidden: Any = None
        self.calls = torch.zeros(())
        self.norm.weight.requires_grad_(False)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        packed, self.hidden = self.lstm(packed, self.hidden)
        self.calls += 1
        self.norm.running_mean.add_(0.5)  # type: ignore[union-attr, operator]
        return self.drop(self.norm(pad_packed_sequence(packed, batch_first=True)[0].transpose(1, 2)))


def traces(module: nn.Module) -> dict[str, Any]:
    """What can be seen of a module, tensors by identity and by value."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        found[path] = (type(part), part.training, "forward" in vars(part), set(vars(part)))
        for name, value in {**vars(part), **part._parameters, **part._buffers}.items():
            leaves = pytree.tree_leaves(value)
            found[f"{path}.{name}"] = [
                (id(leaf), leaf.requires_grad, leaf.detach().clone().tolist(), leaf._version)
                if isinstance(leaf, Tensor)
                else id(leaf)
                for leaf in leaves
            ]
    return found


def surroundings() -> tuple[Any, ...]:
    kinds = ("pack_padded", "pad_packed", "unpad", "pack", "unpack")
    functions = [getattr(rnn, f"{kind}_sequence") for kind in kinds]
    names = ["", "torch.onnx", "torch.fx.experimental.symbolic_shapes", "torch.export._trace", "onnxscript", "onnx_ir"]
    loggers = [logging.getLogger(name) for name in names]
    return (
        [function.__code__ for function in functions],
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_rng_state().tolist(),
        [(logger.level, list(logger.filters), list(logger.handlers), logger.propagate) for logger in loggers],
        list(warnings.filters),
        list(sys.path),
        nn.LSTM.forward,
        torch.get_num_threads(),
    )


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    # what torch.onnx imports at its first export adds warning filters of its own
    made(Packer().eval(), with_lengths(2, 4), X_LENGTHS, tmp_path_factory.mktemp("warm"))


def _zeros() -> tuple[Tensor, Tensor]:
    return torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)


@pytest.mark.parametrize("fails", ["", "in the forward", "in the trace", "in the trial"])
def test_the_module_and_torch_are_as_they_were(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Packer):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            out = super().forward(x, lengths)
            if fails == "in the forward":
                raise KeyError(fails)
            while fails == "in the trace" and out.sum() > 0:
                out = out - 1
            return out

    module = Failing().train()
    module.drop.eval()
    module.hidden = _zeros()
    module.lstm.register_forward_hook(lambda *_: None)
    if fails == "in the trial":
        monkeypatch.setattr("lstm_onnx.exporter.trials.shape_trial.first_difference", lambda *_: "output is wrong")
    target = tmp_path / "made.onnx"
    target.write_bytes(b"there before")
    torch.set_grad_enabled(True)
    before, around = traces(module), surroundings()
    if fails:
        with pytest.raises(ExportError):
            lstm_onnx.export(module, target, example_inputs=with_lengths(2, 4), dynamic_shapes=X_LENGTHS)
        assert target.read_bytes() == b"there before"
    else:
        lstm_onnx.export(module, target, example_inputs=with_lengths(2, 4), dynamic_shapes=X_LENGTHS)
        assert target.read_bytes() != b"there before"
    assert traces(module) == before
    assert surroundings() == around
    assert [path.name for path in tmp_path.iterdir()] == ["made.onnx"]


def test_threads_do_not_mix(tmp_path: Path) -> None:
    modules = [Stateless(seed).eval() for seed in range(2)]
    x, lengths = with_lengths(3, 6)
    bystander = Stateless(7).eval()
    expected = eager(bystander, (x, lengths))
    stop = threading.Event()
    problems: list[BaseException] = []
    runs = 0

    def run() -> None:
        nonlocal runs
        try:
            while not stop.is_set():
                agree(eager(bystander, (x, lengths)), expected, 0.0)
                runs += 1
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            problems.append(error)

    def export(index: int) -> None:
        try:
            folder = tmp_path / str(index)
            folder.mkdir()
            result = made(modules[index], with_lengths(2, 4), X_LENGTHS, folder)
            agree(result.run((x, lengths)), eager(modules[index], (x, lengths)))
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            problems.append(error)

    threads = [threading.Thread(target=export, args=(index,)) for index in range(2)]
    other = threading.Thread(target=run)
    for thread in (other, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    other.join()
    assert not problems
    assert runs > 3


class Stateless(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]


class Plain(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


def test_what_is_told_of_a_file(tmp_path: Path) -> None:
    exported = made(Plain(), signal(2, 4), X, tmp_path).exported
    assert exported.spec is None
    assert exported.parameters == 4 * 4 * (3 + 4 + 2) + 4 * 2 + 2
    assert exported.num_bytes == (tmp_path / "made.onnx").stat().st_size
    assert exported.notes == ()
    assert dict(exported.states) == {}
    assert exported.inputs == ("x",)
    assert exported.external_data is None


def test_float16_runs(tmp_path: Path) -> None:
    def inputs(batch: int, time: int) -> tuple[Tensor]:
        return (signal(batch, time)[0].half(),)

    right(Plain(torch.float16), inputs, X, tmp_path, tolerance=5e-3)


def test_operators_of_float64_are_exported_and_not_tried_out(tmp_path: Path) -> None:
    path = tmp_path / "made.onnx"
    (x,) = signal(2, 4)
    exported = lstm_onnx.export(
        Plain(torch.float64).eval(), path, example_inputs=x.double(), dynamic_shapes=X, projection="fold"
    )
    assert path.exists()
    assert len(exported.notes) == 1
    assert exported.notes[0].startswith("the file was not tested: ONNX Runtime's CPU provider has no float64 LSTM, so")


def test_unknown_states_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'states = "some" is not possible; it must be "zero" or "explicit"|some'):
        ModuleOptions(ExportOptions(), states="some")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(lstm_onnx.FileError, match="does not exist"):
        lstm_onnx.export(Plain(), tmp_path / "no" / "made.onnx", example_inputs=signal(2, 4), dynamic_shapes=X)


def test_numbers_alone_are_no_output(tmp_path: Path) -> None:
    class Counting(Plain):
        def forward(self, x: Tensor) -> int:  # type: ignore[override]
            return x.size(1)

    with pytest.raises(ExportError, match=r"Counting.forward returns no tensor"):
        made(Counting(), signal(2, 4), X, tmp_path)


def test_numpy_examples_and_a_lone_tensor(tmp_path: Path) -> None:
    (x,) = signal(2, 4)
    one = made(Plain(), x, X, tmp_path).path.read_bytes()
    assert made(Plain(), {"x": x.numpy()}, X, tmp_path).path.read_bytes() == one
    assert np.isfinite(x.numpy()).all()


class _Strided(nn.Module):
    """At four steps its kernel leaves one, which torch takes for a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, kernel_size=3, stride=2)
        self.lstm = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.conv(x.transpose(1, 2)).transpose(1, 2))
        return hidden


def test_a_size_that_comes_down_to_one_stays_open_without_the_trial(tmp_path: Path) -> None:
    module, path = _Strided().eval(), tmp_path / "m.onnx"
    axes = {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 4, 3), dynamic_shapes=axes, check=False)
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    x = torch.randn(3, 11, 3)
    with torch.no_grad():
        np.testing.assert_allclose(model.run({"x": x.numpy()})["output"], module(x).numpy(), atol=1e-5)


class _Halved(nn.Module):
    """A layer of another dtype than the input, which the code names."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True).half()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x.half())[0].float()


def test_a_forward_that_fails_in_the_dtype_of_a_precision_alone(tmp_path: Path) -> None:
    made(_Halved(), signal(2, 4), X, tmp_path)
    text = r'precision = "int8" is computed in float32, where the module\'s forward fails at test_module.py:.*half\(\)'
    with pytest.raises(ExportError, match=rf"{text}.*; where the code names a dtype, .* write x\.to\(weight\.dtype\)"):
        made(_Halved(), signal(2, 4), X, tmp_path, precision="int8")
    inputs = (InputSpec("x", ("batch", "time", 3)),)
    source = ModuleSource("net", _Halved().eval(), inputs, ModuleOptions(ExportOptions(precision="float32")))
    with pytest.raises(ExportError, match=text.replace("int8", "float32")):
        source.export(tmp_path / "m.onnx")

"""What a source says that the file does not have: other names, other options, other axes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ConfigError, ExportError
from lstm_onnx.exporter.sources.source import ModuleSource, load_source
from lstm_onnx.generation_spec import Generation
from lstm_onnx.input_spec import InputSpec
from lstm_onnx.parity.source_changes import inputs_with_axes_of, interface_problems

pytestmark = pytest.mark.sweep(5)

CODE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x):
        return {"y": self.lstm(x)[0]}
"""
CONFIG = """
[module]
factory = "net.py:Net"
outputs = ["y"]
[inputs.x]
shape = ["batch", "time", 4]
"""


class Gauss(nn.Module):
    """A mean and a deviation, by name."""

    def __init__(self, *, names: tuple[str, str] = ("mean", "std")) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.names = names

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.lstm(x)[0]
        return dict(zip(self.names, (y, y.abs()), strict=True))


class Reversed(Gauss):
    """The same dict in another order."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return dict(reversed(super().forward(x).items()))


class Pair(nn.Module):
    """Two sequences of their own lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.lstm(a)[0], self.lstm(b)[0]


def _gauss(cls: type[Gauss], **options: tuple[str, str]) -> Gauss:
    torch.manual_seed(0)
    return cls(**options).eval()


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.py and its export, net.onnx."""
    folder = tmp_path_factory.mktemp("configured")
    (folder / "net.py").write_text(CODE)
    (folder / "net.toml").write_text(CONFIG)
    load_source(str(folder / "net.toml")).export(folder / "net.onnx", check=False)
    return folder


@pytest.fixture(scope="module")
def gauss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gauss") / "gauss.onnx"
    shapes = {"x": {0: "batch", 1: "time"}}
    module = _gauss(Gauss)
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 3, 4), dynamic_shapes=shapes, check=False)
    return path


def _verified(folder: Path, config: str) -> lstm_onnx.ParityReport:
    source = folder / "changed.toml"
    source.write_text(config)
    return lstm_onnx.verify(source, folder / "net.onnx", provider="cpu", mutants="none")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (CONFIG, ""),
        (CONFIG.replace('"time"', '"frames"'), "the axis time of the file is named frames in "),
        (CONFIG + '[export]\nprecision = "int8"\nopset = 20\n', ' has opset = 20 and precision = "int8", but the file'),
        (
            CONFIG + '[export]\ntarget = "openvino"\n',
            ' has target = "openvino", but the file was exported with other options',
        ),
        (CONFIG.replace("outputs", 'states = "explicit"\noutputs'), ' has states = "explicit", and the file'),
    ],
    ids=["nothing", "an axis", "precision", "target", "states"],
)
def test_a_source_that_was_changed_is_noted(configured: Path, config: str, said: str) -> None:
    report = _verified(configured, config)
    assert report, str(report)
    assert [note for note in report.notes if said in note] == list(report.notes)
    assert bool(report.notes) == bool(said)


def test_outputs_that_a_source_names_otherwise_fail(configured: Path) -> None:
    report = _verified(configured, CONFIG.replace('["y"]', '["z"]'))
    assert not report
    assert "names the outputs z, but the file y" in str(report)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"choose": None}, []),
        ({"stop_token": 3}, ["stop_token (3,), but the file with (2,)"]),
        ({"stop_token": ()}, ["stop_token (), but the file with (2,)"]),
        ({"pad": 9}, ["padding 9, but the file with 0"]),
        ({"choose": "sample"}, ["choose sample, but the file with greedy"]),
    ],
)
def test_a_source_that_generates_otherwise_fails(changed: dict[str, Any], said: list[str]) -> None:
    written = Generation("x", "y", "greedy", stop_token=(2,), pad=0)
    asked = replace(written, **changed)
    source = SimpleNamespace(name="net.toml", options=SimpleNamespace(generation=asked))
    metadata = SimpleNamespace(versions={"lstm_onnx": "0"}, generation=SimpleNamespace(generation=written))
    problems = interface_problems(source, SimpleNamespace(metadata=metadata))  # type: ignore[arg-type]
    assert problems == [f"net.toml generates with {each}" for each in said]


def test_outputs_are_compared_by_the_names_of_a_dict(gauss: Path) -> None:
    assert lstm_onnx.verify(_gauss(Reversed), gauss, provider="cpu", mutants="none")
    exchanged = _gauss(Gauss, names=("std", "mean"))
    report = lstm_onnx.verify(exchanged, gauss, provider="cpu", mutants="none")
    assert not report
    report = lstm_onnx.verify(_gauss(Gauss, names=("mu", "std")), gauss, provider="cpu", mutants="none")
    assert report
    assert "compared in order: mu is mean" in str(report)
    with pytest.raises(ConfigError, match=r"gives mean, std, and the module std, spread; is the file this module's\?"):
        lstm_onnx.verify(_gauss(Gauss, names=("std", "spread")), gauss, provider="cpu", mutants="none")


def test_axes_that_only_the_source_ties_are_refused(tmp_path: Path) -> None:
    pair = tmp_path / "pair.onnx"
    module = Pair().eval()
    shapes = {"a": {1: "steps"}, "b": {1: "others"}}
    example = (torch.randn(2, 3, 4), torch.randn(2, 5, 4))
    lstm_onnx.export(module, pair, example_inputs=example, dynamic_shapes=shapes, check=False)
    inputs = tuple(InputSpec(name, (2, "time", 4)) for name in ("a", "b"))
    with lstm_onnx.load(pair, provider="cpu") as model, pytest.raises(ConfigError, match="export the file again"):
        inputs_with_axes_of(ModuleSource("pair.toml", module, inputs), model)


def test_names_that_forward_gives_to_other_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="output_names calls mean 'std', which forward calls another output"):
        lstm_onnx.export(
            _gauss(Gauss),
            tmp_path / "m.onnx",
            example_inputs=torch.randn(2, 3, 4),
            dynamic_shapes={"x": {1: "time"}},
            output_names=["std", "mean"],
        )

"""What `export` says before, beside and instead of a file."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ConfigError, ExportError, FileError, MissingDependencyError


class Net(nn.Module):
    def __init__(self, core: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.core = core(3, 4, batch_first=True)
        self.scale = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(self.core(x)[0]) * 0.5 + 1.0


X = torch.randn(2, 5, 3)


@pytest.mark.parametrize(
    ("path", "message"),
    [("nowhere/m.onnx", r"the folder .*nowhere does not exist; make it first"), ("-", "is not written to stdout")],
)
def test_a_path_that_cannot_be_written_is_refused_before_the_module_is_run(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unrunnable(Net):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError(f"it was run on {x}")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=message):
        lstm_onnx.export(Unrunnable(), path, example_inputs=X)
    with pytest.raises(FileError, match=message):
        lstm_onnx.export(nn.LSTM(3, 4), path)
    assert list(tmp_path.iterdir()) == []


def test_parameters_are_counted_as_by_pytorch(tmp_path: Path) -> None:
    module = Net().eval()
    result = lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=X, check=False)
    assert result.parameters == sum(parameter.numel() for parameter in module.parameters()) == 149


def test_training_mode_is_noted(tmp_path: Path) -> None:
    module = Net()
    shapes = {"x": {0: "batch", 1: "time"}}
    result = lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=X, dynamic_shapes=shapes, check=False)
    assert [note for note in result.notes if "training mode" in note] == list(result.notes)[-1:]
    assert module.training
    module.eval()
    result = lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=X, dynamic_shapes=shapes, check=False)
    assert result.notes == ()
    dropout = nn.LSTM(3, 4, num_layers=2, dropout=0.1)
    assert "training mode" in lstm_onnx.export(dropout, tmp_path / "m.onnx").notes[0]
    assert lstm_onnx.export(nn.LSTM(3, 4), tmp_path / "m.onnx").notes == ()  # which computes the same in both modes


@pytest.mark.sweep(3)
@pytest.mark.parametrize("core", [nn.LSTM, nn.GRU, nn.RNN])
def test_float64_runs_on_the_cpu(core: type[nn.RNNBase], tmp_path: Path) -> None:
    module, path = Net(core).eval().double(), tmp_path / "m.onnx"
    shapes = {"x": {0: "batch", 1: "time"}}
    assert lstm_onnx.export(module, path, example_inputs=X.double(), dynamic_shapes=shapes).notes == ()
    assert lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="quick")
    assert lstm_onnx.inspect(path).lstms[0].kind == "Scan"


@pytest.mark.sweep(3)
@pytest.mark.parametrize("form", [{"num_layers": 2, "bidirectional": True}, {"batch_first": True}, {"proj_size": 2}])
def test_a_bare_lstm_of_float64_runs_on_the_cpu(form: dict[str, Any], tmp_path: Path) -> None:
    module, path = nn.LSTM(3, 4, **form).double().eval(), tmp_path / "m.onnx"
    assert lstm_onnx.export(module, path).notes == ()
    assert lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="quick")


@pytest.mark.sweep(3)
@pytest.mark.parametrize("core", [nn.LSTM, nn.GRU, nn.RNN])
def test_operators_of_float64_are_noted_where_the_cpu_cannot_run_them(core: type[nn.RNNBase], tmp_path: Path) -> None:
    module = Net(core).eval().double()
    options: dict[str, Any] = {"dynamic_shapes": {"x": {0: "batch", 1: "time"}}, "projection": "fold"}
    (note,) = lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=X.double(), **options).notes
    assert note.startswith(
        f"the file was not tested: ONNX Runtime's CPU provider has no float64 {core.__name__}, so the file runs"
    )
    with pytest.raises(lstm_onnx.LSTMOnnxError, match="float32"):
        lstm_onnx.load(tmp_path / "m.onnx", provider="cpu")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"x": {0: "batch", 1: "time"}}, r"pass dynamic_shapes=\{'x': \{0: 'batch', 1: 'time'\}\}$"),
        ({"x": [0, 1], "output": [0]}, r"=\{'x': \{0: 'x_0', 1: 'x_1'\}\} \(output left out: outputs need no entry\)$"),
        ({"input": {0: "batch"}}, r"by the arguments of forward \(x\): input is not one of them$"),
        ({"x": 1}, r"pass dynamic_shapes=\{'x': \{1: 'x_1'\}\}$"),
        (True, r"pass dynamic_shapes, such as \{\"x\": \{0: \"batch\"\}\}$"),
    ],
)
def test_dynamic_axes_are_translated(axes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^dynamic_axes is torch.onnx.export's older form; .*{message}"):
        lstm_onnx.export(Net(), tmp_path / "m.onnx", example_inputs=X, dynamic_axes=axes)


class WithState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, g: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        y, state = self.lstm(x, state)
        return y + g.unsqueeze(1), state


@pytest.mark.parametrize("batch", [1, 2])
def test_axes_left_out_of_dynamic_shapes_are_named(batch: int, tmp_path: Path) -> None:
    state = (torch.zeros(1, batch, 4), torch.zeros(1, batch, 4))
    inputs = (torch.randn(batch, 6, 3), torch.randn(batch, 4), state)
    shapes: dict[str, Any] = {"x": {0: "batch", 1: "time"}, "g": {0: "batch"}}
    with pytest.raises(ExportError, match=r"only with axis 1 of state\.0 and axis 1 of state\.1 of the same size, w"):
        lstm_onnx.export(WithState().eval(), tmp_path / "m.onnx", example_inputs=inputs, dynamic_shapes=shapes)
    shapes["state"] = ({1: "batch"}, {1: "batch"})
    lstm_onnx.export(WithState().eval(), tmp_path / "m.onnx", example_inputs=inputs, dynamic_shapes=shapes)


def test_without_onnxscript_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"onnxscript is not installed, .* install 'lstm-onnx\[torch\]'"):
        lstm_onnx.export(Net(), tmp_path / "m.onnx", example_inputs=X)
    lstm_onnx.export(nn.LSTM(3, 4), tmp_path / "m.onnx")  # which needs none

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx import ConfigError, ExportOptions, FileError, LSTMSpec
from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.exporter.sources.torch_lstm import seeded_state
from lstm_onnx.metadata import Metadata
from lstm_onnx.onnxgraph.write import digest


def test_what_was_written_is_told(tmp_path: Path) -> None:
    spec, options, path = LSTMSpec(4, 3, num_layers=2), ExportOptions(lengths=True), tmp_path / "m.onnx"
    state = seeded_state(spec, 2)
    exported = export_lstm(spec, options, state, path)
    assert exported.path == str(path)
    assert exported.spec == spec
    assert exported.options == options
    assert exported.nodes == len(onnx.load(path).graph.node)
    assert exported.parameters == spec.num_parameters
    assert exported.num_bytes == path.stat().st_size
    assert exported.digest == digest(state)
    assert exported.external_data is None
    table = json.loads(json.dumps(exported.to_dict(), allow_nan=False))
    assert table["spec"]["num_layers"] == 2
    assert table["options"]["lengths"] is True


def test_the_file_carries_its_story(tmp_path: Path) -> None:
    spec, options, path = LSTMSpec(4, 3, proj_size=2), ExportOptions(projection="fold", opset=21), tmp_path / "m.onnx"
    state = {name: np.asarray(value) for name, value in seeded_state(spec, 1).items()}
    export_lstm(spec, options, state, path)
    model = onnx.load(path)
    metadata = Metadata.from_metadata({item.key: item.value for item in model.metadata_props})
    assert metadata.spec == spec
    assert metadata.options == options
    assert metadata.states == {"h0": "hn", "c0": "cn"}
    assert metadata.versions == {"lstm_onnx": lstm_onnx.__version__, "onnx": onnx.__version__}
    assert metadata.digest == digest(state)
    assert model.producer_name == "lstm-onnx"
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 21)]


@pytest.mark.parametrize("opset", range(14, 24))
def test_every_opset_in_the_oldest_format_that_has_it(opset: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = nn.LSTM(4, 3)
    lstm_onnx.export(module, path, opset=opset)
    model = onnx.load(path)
    assert model.opset_import[0].version == opset
    assert model.ir_version == onnx.helper.find_min_ir_version_for(list(model.opset_import))
    x = np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32)
    output, _ = lstm_onnx.load(path, provider="cpu", threads=1)(x)
    with torch.no_grad():
        expected, _ = module(torch.from_numpy(x))
    np.testing.assert_allclose(output, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"opset": 13}, "opset = 13"),
        ({"projection": "none"}, "projection = 'none'"),
        ({"lengths": 1}, "lengths = 1"),
        ({"dynamic_shapes": {"input": {}}}, "leave out output_names and dynamic_shapes"),
        ({"output_names": ["y", "h", "c"]}, "leave out output_names and dynamic_shapes"),
    ],
)
def test_an_impossible_option_writes_nothing(options: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        lstm_onnx.export(nn.LSTM(4, 3), tmp_path / "m.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        lstm_onnx.export(nn.LSTM(4, 3), tmp_path / "no" / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_module_in_training_with_dropout_exports_as_at_inference(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(4, 3, num_layers=2, dropout=0.9).train()
    lstm_onnx.export(module, tmp_path / "m.onnx")
    assert module.training
    x = torch.ones(5, 1, 4)
    with torch.no_grad():
        expected, _ = module.eval()(x)
    output, _ = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", threads=1)(x.numpy())
    np.testing.assert_allclose(output, expected.numpy(), atol=1e-6)

"""Files for one engine: the form of their layers, refusals by the engine's rules, and one word for it everywhere."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx.check.examine import target_findings
from lstm_onnx.cli.check import check
from lstm_onnx.cli.export import export
from lstm_onnx.cli.main import main
from lstm_onnx.errors import ConfigError, ExportError
from lstm_onnx.exporter.sources.source import load_source
from lstm_onnx.metadata import Metadata
from lstm_onnx.onnxgraph import nodes_of
from lstm_onnx.spec import TARGETS, ExportOptions
from tests.runtime.models import exported

RECURRENT = {"LSTM", "GRU", "RNN", "Scan"}


def layers(path: Path) -> set[str]:
    return {node.op_type for node in nodes_of(onnx.load(path).graph.node)} & RECURRENT


class Packed(nn.Module):
    """A GRU over padded sequences, without states: OpenVINO ignores its lengths, and tract refuses them."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])
        return output


@pytest.mark.parametrize(
    ("target", "sizes", "lengths", "expected"),
    [
        ("openvino", {}, False, "LSTM"),
        ("openvino", {}, True, "Scan"),
        ("openvino", {"proj_size": 2}, True, "Scan"),
        ("tract", {}, False, "Scan"),
        ("tract", {"bidirectional": True}, True, "Scan"),
        ("web", {}, True, "LSTM"),
        ("web", {"dtype": "float64"}, True, "Scan"),
        ("webgpu", {}, False, "LSTM"),
        ("coreml", {}, False, "LSTM"),
        ("qnn", {"proj_size": 2}, False, "LSTM"),
        ("tensorrt", {}, True, "LSTM"),
        ("triton", {}, False, "LSTM"),
    ],
)
def test_each_target_gets_a_form_that_its_rules_allow_and_the_same_numbers(
    target: str, sizes: dict[str, Any], lengths: bool, expected: str, tmp_path: Path
) -> None:
    plain, fitted = tmp_path / "plain.onnx", tmp_path / "fitted.onnx"
    exported(plain, options=ExportOptions(lengths=lengths), num_layers=2, **{**sizes, "dtype": "float32"})
    exported(fitted, options=ExportOptions(lengths=lengths, target=target), num_layers=2, **sizes)
    assert layers(fitted) == {expected}
    assert not any(finding.failed for finding in target_findings(fitted, target))
    with lstm_onnx.load(plain, "cpu") as one, lstm_onnx.load(fitted, "cpu") as other:
        x = np.random.default_rng(1).standard_normal((6, 3, 4)).astype(np.float32)
        more = {"lengths": np.array([6, 2, 4], np.int32)} if lengths else {}
        found = other.run({"input": x.astype(sizes.get("dtype", "float32")), **more})
        for name, array in one.run({"input": x, **more}).items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=2e-6)


def test_the_metadata_has_the_target_and_no_other_file_changes(tmp_path: Path) -> None:
    exported(tmp_path / "plain.onnx")
    exported(tmp_path / "web.onnx", options=ExportOptions(target="web"))
    plain, web = (onnx.load(tmp_path / f"{name}.onnx") for name in ("plain", "web"))
    options = Metadata.from_metadata({item.key: item.value for item in web.metadata_props}).options
    assert options == ExportOptions(target="web")
    assert "target" not in ExportOptions().to_dict()
    assert plain.graph == web.graph


@pytest.mark.parametrize(
    ("target", "options", "sizes", "sentence"),
    [
        ("openvino", {}, {"dtype": "float64"}, r"LO603 openvino-float64: l0/LSTM: .* in float32; export it as float32"),
        ("openvino", {"lengths": True, "projection": "fold"}, {"proj_size": 2}, r"LO601 openvino-lengths: l0/LSTM"),
        ("tensorrt", {"opset": 22}, {}, r"LO651 tensorrt-operator: opset 22.*at opset 20 or below"),
    ],
)
def test_what_no_form_mends_is_refused_with_the_rules_sentence(
    target: str, options: dict[str, Any], sizes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"kept")
    with pytest.raises(ExportError, match=f"no form of this model gives right results on {target}: {sentence}"):
        exported(path, options=ExportOptions(target=target, **options), **sizes)
    assert path.read_bytes() == b"kept"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def test_a_warning_of_a_rule_is_one_note(tmp_path: Path) -> None:
    torch.manual_seed(0)
    result = lstm_onnx.export(nn.LSTM(3, 4, num_layers=2), tmp_path / "m.onnx", target="triton")
    (note,) = result.notes
    assert note.startswith("triton: LO661 triton-batch: input: its axis 1 is the batch; lstm-onnx deploy triton")
    assert Path(result.path) == tmp_path / "m.onnx"
    assert result.num_bytes == (tmp_path / "m.onnx").stat().st_size


def test_a_module_with_lengths_runs_on_openvino_and_tract_by_scans(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Packed().eval()
    example = (torch.randn(3, 7, 3), torch.tensor([7, 2, 4]))
    shapes = {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    for target, integers in (("openvino", {"INT32"}), ("tract", {"INT64"})):
        path = tmp_path / f"{target}.onnx"
        lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=shapes, target=target)
        nodes = list(nodes_of(onnx.load(path).graph.node))
        assert layers(path) == {"Scan"}
        assert ("Sigmoid" in {node.op_type for node in nodes}) is (target == "openvino")
        casts = {onnx.TensorProto.DataType.Name(node.attribute[0].i) for node in nodes if node.op_type == "Cast"}
        assert casts == integers
        with lstm_onnx.load(path, "cpu") as model:
            x, lengths = torch.randn(5, 9, 3), torch.tensor([9, 1, 5, 9, 3])
            with torch.no_grad():
                wanted = module(x, lengths).numpy()
            found = model.run({"x": x.numpy(), "lengths": lengths.numpy()})["output"]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


def test_toml_python_and_the_command_line_take_one_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def run(*words: object) -> str:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        assert left.value.code == 0
        return capfd.readouterr().out

    source = tmp_path / "m.toml"
    source.write_text(
        '[lstm]\ninput_size = 3\nhidden_size = 4\n[weights]\nseed = 1\n[export]\nlengths = true\ntarget = "openvino"\n'
    )
    assert load_source(str(source)).options.target == "openvino"
    run("export", source, "-o", tmp_path / "a.onnx")
    assert layers(tmp_path / "a.onnx") == {"Scan"}
    told = run("export", source, "-o", tmp_path / "b.onnx", "--target", "web", "--json")
    assert json.loads(told)["options"]["target"] == "web"
    assert layers(tmp_path / "b.onnx") == {"LSTM"}
    source.write_text(source.read_text().replace("openvino", "openvin"))
    with pytest.raises(ConfigError, match=f'target = .openvin. is not possible; it must be one of "{TARGETS[0]}"'):
        load_source(str(source))


def test_every_target_is_a_choice_of_both_commands() -> None:
    for command in (check, export):
        (option,) = [item for item in command.params if "--target" in item.opts]
        assert tuple(option.type.choices) == TARGETS
    assert dataclasses.asdict(ExportOptions())["target"] is None

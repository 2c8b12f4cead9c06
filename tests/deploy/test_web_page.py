"""The page of a deployed folder, in Chromium: it proves the model, shows what is wrong, and hears the microphone."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from lstm_onnx.deploy.web import deploy_web

from ..docs.blocks import ROOT
from ..parity_files import parity_files

NODE_MODULES = ROOT / ".ci/node_modules"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; .ci/run does that where it may"),
    pytest.mark.skipif(
        not all((NODE_MODULES / name).exists() for name in ("playwright-core", "onnxruntime-web")),
        reason="playwright-core and onnxruntime-web are not installed; .ci/run does that",
    ),
]


def loudness(path: Path) -> Path:
    """A model of sound: the absolute value of each sample, and the sum of all so far."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Abs", ["audio"], ["level"]),
            helper.make_node("ReduceSum", ["level", "one"], ["sum"], keepdims=1),
            helper.make_node("Add", ["sum", "total"], ["total_next"]),
        ],
        "loudness",
        [info("audio", TensorProto.FLOAT, ["batch", "time"]), info("total", TensorProto.FLOAT, ["batch", 1])],
        [info("level", TensorProto.FLOAT, ["batch", "time"]), info("total_next", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor("one", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    states = {"lstm_onnx.states": '{"total": "total_next"}', "lstm_onnx.not_streamable": '""'}
    helper.set_model_props(model, {**states, "lstm_onnx.time_axes": '["time"]'})
    onnx.save(model, path)
    return path


def test_the_page_proves_the_model_and_shows_a_wrong_one(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = site
    ort = NODE_MODULES / "onnxruntime-web"
    result = deploy_web(parity_files() / "net.onnx", folder / "right", golden=parity_files() / "net.npz", ort=ort)
    assert result.onnxruntime_web == "onnxruntime-web 1.30.0, which is in the folder"
    shutil.copytree(folder / "right", folder / "wrong")
    shutil.copy(parity_files() / "wrong.onnx", folder / "wrong" / "model.onnx")
    shutil.copytree(folder / "right", folder / "cut")
    golden = (folder / "cut" / "golden.bin").read_bytes()
    (folder / "cut" / "golden.bin").write_bytes(golden[:-8])
    sound = deploy_web(loudness(tmp_path / "loudness.onnx"), folder / "sound", ort=ort)
    assert sound.microphone == 16_000
    urls = [f"{address}/{name}/" for name in ("right", "wrong", "cut", "sound")]
    done = subprocess.run(
        ["node", Path(__file__).parent / "node" / "page.mjs", NODE_MODULES, str(CHROMIUM), tmp_path / "profile", *urls],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    right, wrong, cut, heard = json.loads(done.stdout)
    assert right["verdict"] == "pass", right["text"]
    assert set(right["rows"]) == {"pass"}
    assert len(right["rows"]) > 20
    assert right["title"].startswith("PASS")
    assert "PyTorch 2" in right["text"]
    assert right["heard"] is None
    assert wrong["verdict"] == "fail"
    assert wrong["rows"].count("fail") > len(wrong["rows"]) / 2
    assert "The model computes something else here" in wrong["text"]
    assert cut["verdict"] == "fail"
    assert "golden.bin: has" in cut["text"]
    assert heard["verdict"] == "pass", heard["text"]
    assert "heard" in heard["heard"]
    assert "level" in heard["heard"]
    for page in (right, wrong, cut, heard):
        assert page["width"] == 0
        assert page["errors"] == []

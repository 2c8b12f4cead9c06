"""The folder for browsers and Node: its files, its golden data, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import quantize_dynamic

import lstm_onnx
from lstm_onnx.checksum import is_intact
from lstm_onnx.deploy.web import deploy_web
from lstm_onnx.errors import FileError, InputError, ModelError
from lstm_onnx.runtime import load

from ..parity_files import parity_files
from ..runtime.models import accumulator, exported


def arrays(folder: Path) -> tuple[dict, bytes]:
    return json.loads((folder / "golden.json").read_text("utf-8")), (folder / "golden.bin").read_bytes()


def array_of(content: bytes, entry: dict) -> np.ndarray:
    dtype = np.dtype(entry["dtype"]).newbyteorder("<")
    count = int(np.prod(entry["shape"]))
    return np.frombuffer(content, dtype, count, entry["offset"]).reshape(entry["shape"])


def test_the_folder_has_the_model_as_it_is_and_data_that_python_passes(tmp_path: Path) -> None:
    exported(tmp_path / "net.onnx", num_layers=2)
    result = deploy_web(tmp_path / "net.onnx", tmp_path / "web" / "net")
    assert sorted(path.name for path in (tmp_path / "web" / "net").iterdir()) == sorted(result.files)
    assert {"index.html", "lstm-onnx.mjs", "lstm-onnx.d.mts", "model.onnx", "README.md"} < set(result.files)
    assert (tmp_path / "web/net/model.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()
    assert result.streams
    assert result.microphone is None
    golden, content = arrays(tmp_path / "web" / "net")
    assert golden["bytes"] == len(content)
    assert [case["kind"] for case in golden["cases"]] == ["run", "run", "run", "stream", "stream"]
    assert sum(golden["cases"][3]["chunkings"][0]) == 200
    with load(tmp_path / "net.onnx", "cpu") as model:
        for case in golden["cases"][:3]:
            (call,) = case["calls"]
            found = model.run({name: array_of(content, entry) for name, entry in call["feeds"].items()})
            assert call["expected"].keys() == found.keys()
            for name, entry in call["expected"].items():
                np.testing.assert_array_equal(array_of(content, entry), found[name])
                assert 0 < entry["allowed"] < 1e-4
    page = (tmp_path / "web/net/index.html").read_text("utf-8")
    assert "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/ort.wasm.bundle.min.mjs" in page
    assert "__" not in (tmp_path / "web/net/README.md").read_text("utf-8")


@pytest.mark.parametrize("module", ["lstm-onnx", "golden"])
def test_typescript_finds_the_types_of_each_module(tmp_path: Path, module: str) -> None:
    exported(tmp_path / "net.onnx")
    deploy_web(tmp_path / "net.onnx", tmp_path / "web")
    # For NAME.mjs it looks for NAME.d.mts, and never for NAME.d.ts.
    code, types = ((tmp_path / "web" / f"{module}{suffix}").read_text("utf-8") for suffix in (".mjs", ".d.mts"))
    found = re.findall(r"^export (?:async )?(?:function|class) (\w+)", code, re.MULTILINE)
    declared = re.findall(r"^export (?:function|class) (\w+)", types, re.MULTILINE)
    assert sorted(found) == sorted(declared) != []


@pytest.mark.parametrize("module", ["lstm-onnx.mjs", "golden.mjs"])
def test_bundlers_for_browsers_find_nothing_of_node(tmp_path: Path, module: str) -> None:
    """esbuild and webpack fail where the literal name of a module of Node is imported."""
    exported(tmp_path / "net.onnx")
    deploy_web(tmp_path / "net.onnx", tmp_path / "web")
    text = (tmp_path / "web" / module).read_text("utf-8")
    imports = re.findall(r"import\((.*?)\)", text)
    assert imports == ["/* webpackIgnore: true */ /* @vite-ignore */ NODE_FILES"]
    assert not re.search(r"""(?:import|from)\s*["']node:""", text)


def test_equal_files_give_equal_folders(tmp_path: Path) -> None:
    exported(tmp_path / "net.onnx")
    for name in ("one", "two"):
        deploy_web(tmp_path / "net.onnx", tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_golden_file_must_be_passed(tmp_path: Path) -> None:
    golden = parity_files() / "net.npz"
    with pytest.raises(ModelError, match=r"does not pass .*net\.npz; lstm-onnx verify .* says where"):
        deploy_web(parity_files() / "wrong.onnx", tmp_path / "web", golden=golden)
    assert not (tmp_path / "web").exists()
    result = deploy_web(parity_files() / "net.onnx", tmp_path / "web", golden=golden)
    assert result.compared_with.startswith("PyTorch 2")
    stored, content = arrays(tmp_path / "web")
    labels = [case["label"] for case in stored["cases"]]
    assert not any("pool" in label for label in labels)
    assert any("sizes" in label for label in labels)
    assert len(content) < 4 * 2**20


def test_files_of_other_tools_get_their_states(tmp_path: Path) -> None:
    accumulator(tmp_path / "other.onnx")
    result = deploy_web(tmp_path / "other.onnx", tmp_path / "web", states={"state": "stateN"})
    assert result.streams
    with load(tmp_path / "web" / "model.onnx", "cpu") as model:
        assert model.states == {"state": "stateN"}
        assert model.metadata.not_streamable == ""
    stored, _ = arrays(tmp_path / "web")
    assert [case["kind"] for case in stored["cases"]][-1] == "stream"
    assert not deploy_web(tmp_path / "other.onnx", tmp_path / "whole").streams


def test_weights_in_other_files_are_taken_in(tmp_path: Path) -> None:
    exported(tmp_path / "net.onnx", num_layers=2)
    model = onnx.load(tmp_path / "net.onnx")
    (tmp_path / "apart").mkdir()
    onnx.save(model, tmp_path / "apart/net.onnx", save_as_external_data=True, location="weights", size_threshold=100)
    deploy_web(tmp_path / "apart/net.onnx", tmp_path / "web")
    x = {"input": np.ones((3, 1, 4), np.float32)}
    with load(tmp_path / "web/model.onnx", "cpu") as moved, load(tmp_path / "net.onnx", "cpu") as own:
        np.testing.assert_array_equal(moved.run(x)["output"], own.run(x)["output"])
    (tmp_path / "apart/weights").unlink()
    with pytest.raises(ModelError):
        deploy_web(tmp_path / "apart/net.onnx", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_is_not_possible_is_refused(tmp_path: Path) -> None:
    exported(tmp_path / "net.onnx", bidirectional=True)
    with pytest.raises(FileError, match="it must be the npm package onnxruntime-web"):
        deploy_web(tmp_path / "net.onnx", tmp_path / "web", ort=tmp_path)
    with pytest.raises(InputError, match="does not take only audio: its inputs are input float32"):
        deploy_web(tmp_path / "net.onnx", tmp_path / "web", sample_rate=16_000)
    with pytest.raises(InputError, match="it must be from 8000 to 192000, in Hz"):
        deploy_web(tmp_path / "net.onnx", tmp_path / "web", sample_rate=10)
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(FileError):
        deploy_web(tmp_path / "net.onnx", tmp_path / "taken")
    assert not (tmp_path / "web").exists()


@pytest.mark.parametrize("name", ["index.html", "README.md", "model.onnx"])
def test_files_of_others_are_not_replaced(tmp_path: Path, name: str) -> None:
    exported(tmp_path / "net.onnx")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / name).write_text("mine", encoding="utf-8")
    with pytest.raises(FileError, match=f"has a file {name} of its own, which would be replaced; name a new folder"):
        deploy_web(tmp_path / "net.onnx", tmp_path / "site")
    assert [path.name for path in (tmp_path / "site").iterdir()] == [name]
    assert (tmp_path / "site" / name).read_text(encoding="utf-8") == "mine"


def test_a_state_as_json_is_the_state() -> None:
    state = {"h0": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "steps": np.array([3], np.int64)}
    found = lstm_onnx.state_from_json(lstm_onnx.state_to_json(state))
    assert found.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert found[name].flags.writeable
    for text in ("", "[]", '{"h0": 1}', '{"h0": {"dtype": "object", "shape": [1], "data": ""}}', "null"):
        with pytest.raises(InputError, match="is not a stream's state as JSON"):
            lstm_onnx.state_from_json(text)
    with pytest.raises(InputError, match="it must map names to arrays"):
        lstm_onnx.state_to_json([1])
    with pytest.raises(InputError, match="h0 has dtype object; it must be numbers"):
        lstm_onnx.state_to_json({"h0": np.array(["a"], object)})


def test_a_changed_file_is_told_that_it_has_no_streams(tmp_path: Path) -> None:
    """ONNX Runtime's quantization keeps what the metadata says of the file before."""
    exported(tmp_path / "m.onnx")
    quantize_dynamic(tmp_path / "m.onnx", tmp_path / "q.onnx")
    assert not deploy_web(tmp_path / "q.onnx", tmp_path / "web").streams
    found = lstm_onnx.load(tmp_path / "web" / "model.onnx", "cpu").metadata.not_streamable
    assert found is not None
    assert found.startswith("6 steps in chunks of")


def rescaled(path: Path, target: Path) -> Path:
    """A copy with another weight, as of another tool, which keeps the metadata."""
    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 3)
    weight.CopyFrom(onnx.numpy_helper.from_array(0.5 * onnx.numpy_helper.to_array(weight), weight.name))
    onnx.save(model, target)
    return target


def test_a_changed_file_that_can_be_streamed_gets_a_checksum_of_its_own(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx")
    changed = rescaled(tmp_path / "m.onnx", tmp_path / "changed.onnx")
    assert not is_intact(changed)
    assert deploy_web(changed, tmp_path / "web").streams
    assert is_intact(tmp_path / "web" / "model.onnx")
    found = lstm_onnx.load(tmp_path / "web" / "model.onnx", "cpu").metadata
    assert (found.not_streamable, found.batch_mixes) == ("", "")


def waves(path: Path, *, steady: bool) -> Path:
    """y jumps with each rounding of x; `steady` adds an output that does not."""
    info = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Mul", ["x", "large"], ["phase"]),
        onnx.helper.make_node("Sin", ["phase"], ["y"]),
        onnx.helper.make_node("Neg", ["x"], ["z"]),
    ]
    outputs = ["y", "z"] if steady else ["y"]
    x, *ends = (info(name, onnx.TensorProto.FLOAT, ["batch", 3]) for name in ("x", *outputs))
    large = onnx.helper.make_tensor("large", onnx.TensorProto.FLOAT, [], [1e9])
    graph = onnx.helper.make_graph(nodes[: len(outputs) + 1], "waves", [x], ends, [large])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_outputs_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    result = deploy_web(waves(tmp_path / "waves.onnx", steady=True), tmp_path / "web")
    assert result.uncompared == ("y",)
    assert "the page does not compare y, which roundings change too much" in str(result)
    with pytest.raises(ModelError, match="has no output that a page can compare"):
        deploy_web(waves(tmp_path / "waves.onnx", steady=False), tmp_path / "none")
    assert not (tmp_path / "none").exists()

"""lstm-onnx.mjs in Node, on onnxruntime-node and on onnxruntime-web's WebAssembly, beside Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import lstm_onnx
from lstm_onnx.deploy.web import deploy_web
from lstm_onnx.errors import LSTMOnnxError
from lstm_onnx.metadata import packed, unpacked
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.stream import Stream

from ..docs.blocks import ROOT
from ..parity_files import parity_files
from ..runtime.models import accumulator, exported

NODE_MODULES = ROOT / ".ci/node_modules"
RUNTIMES = ("onnxruntime-node", "onnxruntime-web")
pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
    pytest.mark.skipif(
        not all((NODE_MODULES / name).exists() for name in RUNTIMES),
        reason="onnxruntime-node and onnxruntime-web are not installed; .ci/run does that",
    ),
]
FILES = Path(str(resources.files(lstm_onnx) / "deploy" / "web" / "files"))
CONFIGS = sorted(path.stem for path in (ROOT / "models").glob("*.toml") if "[lstm]" in path.read_text("utf-8"))
"""Configured bare LSTMs: exported without PyTorch, in an instant."""


class Denoiser(torch.nn.Module):
    """Two steps of look-ahead, and an output without a time axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(3, 4, 5, stride=1, padding=2)
        self.lstm = torch.nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.lstm(self.conv(x.transpose(1, 2)).relu().transpose(1, 2))[0]
        return {"y": y, "last": y[:, -1]}


class Strided(torch.nn.Module):
    """Every second step, from learned states."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(3, 4, 4, stride=2)
        self.gru = torch.nn.GRU(4, 4, batch_first=True)
        self.h0 = torch.nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.gru(y, self.h0.expand(-1, x.shape[0], -1).contiguous())[0]


class Folders:
    """Files for JavaScript, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = cache(self._file)
        self.deployed = cache(self._deployed)

    def _file(self, name: str) -> Path:
        path = self.folder / f"{name}.onnx"
        if name.endswith("_int8"):
            lstm_onnx.quantize(self.file(name.removesuffix("_int8")), path)
        elif name in CONFIGS:
            from lstm_onnx.exporter.sources.source import load_source

            load_source(str(ROOT / "models" / f"{name}.toml")).export(path)
        elif name in ("denoiser", "strided"):
            torch.manual_seed(0)
            module = (Denoiser if name == "denoiser" else Strided)().eval()
            axes = {"x": {0: "batch", 1: "time"}}
            example = torch.randn(2, 20, 3)
            lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=axes, states="explicit", max_delay=2)
        return path

    def _deployed(self, name: str, *, golden: bool = False) -> Path:
        folder = self.folder / f"{name}.web"
        if golden:
            deploy_web(parity_files() / "net.onnx", folder, golden=parity_files() / "net.npz")
        else:
            deploy_web(self.file(name), folder)
        return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("web"))


class Node:
    """A process of Node, for all tests: ONNX Runtime takes a second to start."""

    def __init__(self) -> None:
        # Compiling all of a module that is used for a moment takes longer than the tests.
        flags = ["--no-wasm-tier-up", "--wasm-lazy-compilation"]
        command = ["node", *flags, str(Path(__file__).parent / "node" / "run.mjs"), str(NODE_MODULES), str(FILES)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The results of jobs."""
        jobs = [{name: str(value) if isinstance(value, Path) else value for name, value in job.items()} for job in jobs]
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        results = json.loads(self.process.stdout.readline())
        assert isinstance(results, list)
        assert len(results) == len(jobs)
        return results


@pytest.fixture(scope="module")
def perform() -> Iterator[Node]:
    node = Node()
    yield node
    node.process.communicate(timeout=30)
    assert node.process.returncode == 0


def result_of(answer: dict[str, Any]) -> Any:
    assert "error" not in answer, answer
    return answer["result"]


def pack(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: packed(array) for name, array in arrays.items()}


def arrays_of(items: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: unpacked(item) for name, item in items.items()}


def test_golden_data_pass_on_both_runtimes(perform: Node, folders: Folders) -> None:
    names = [*CONFIGS, "sunspots_int8", "denoiser", "denoiser_int8", "strided"]
    places = [folders.deployed(name) for name in names] + [folders.deployed("net", golden=True)]
    jobs = [
        {"kind": "prove", "runtime": runtime, "model": place / "model.onnx", "folder": place}
        for runtime in RUNTIMES
        for place in places
    ]
    for job, answer in zip(jobs, perform(jobs), strict=True):
        report = result_of(answer)
        wrong = [case for case in report["cases"] if not case["passed"]]
        assert report["passed"], (job["model"], job["runtime"], wrong)
        assert report["cases"]
        assert max(output["share"] for case in report["cases"] for output in case["outputs"]) < 0.5
    kinds = {case["kind"] for case in json.loads((folders.deployed("denoiser") / "golden.json").read_text())["cases"]}
    assert kinds == {"run", "stream"}
    golden = json.loads((folders.deployed("net", golden=True) / "golden.json").read_text())
    assert golden["source"].startswith("PyTorch 2")
    assert len(golden["cases"]) > 20


def test_a_wrong_file_fails_every_kind_of_case(perform: Node, folders: Folders, tmp_path: Path) -> None:
    right = onnx.load(folders.file("denoiser"))
    weight = next(tensor for tensor in right.graph.initializer if list(tensor.dims) == [1, 16, 4])
    numbers = onnx.numpy_helper.to_array(weight).copy()
    numbers[0, 0] *= 1.001
    weight.CopyFrom(onnx.numpy_helper.from_array(numbers, weight.name))
    onnx.save(right, tmp_path / "wrong.onnx")
    place = folders.deployed("denoiser")
    golden = folders.deployed("net", golden=True)
    jobs = [
        {"kind": "prove", "runtime": "onnxruntime-web", "model": tmp_path / "wrong.onnx", "folder": place},
        {"kind": "prove", "runtime": "onnxruntime-web", "model": parity_files() / "wrong.onnx", "folder": golden},
        {"kind": "prove", "runtime": "onnxruntime-web", "model": parity_files() / "net.onnx", "folder": place},
    ]
    shifted, mutant, other = map(result_of, perform(jobs))
    assert not shifted["passed"]
    assert not any(case["passed"] for case in shifted["cases"])
    assert not mutant["passed"]
    assert sum(not case["passed"] for case in mutant["cases"]) > len(mutant["cases"]) / 2
    assert not other["passed"]
    assert "x is not an input of the model" in other["cases"][0]["error"]


@pytest.mark.parametrize("name", ["stacked", "sunspots_int8", "denoiser", "strided"])
def test_200_steps_equal_pythons_and_states_move_both_ways(perform: Node, folders: Folders, name: str) -> None:
    path = folders.file(name)
    with load(path, "cpu", threads=1) as model:
        stream = model.stream()
        feature = next(info for key, info in model.inputs.items() if key not in model.states)
        rng = np.random.default_rng(1)
        axis = 1 if feature.shape[0] == "batch" else 0
        shape = [1 if isinstance(dim, str) else dim for dim in feature.shape]
        chunks = [{feature.name: rng.standard_normal(shape).astype(np.float32)} for _ in range(200)]
        expected = [stream.run(chunk) for chunk in chunks[:100]]
        middle = stream.state
        expected += [stream.run(chunk) for chunk in chunks[100:]]
        rest = stream.flush()
        tolerance = rounding_of(stream, chunks, expected) if name.endswith("int8") else 2e-6
        job = {"kind": "stream", "model": path, "flush": True}
        packed_chunks = [pack(chunk) for chunk in chunks]
        jobs = [{**job, "runtime": runtime, "chunks": packed_chunks} for runtime in RUNTIMES]
        jobs += [
            {**job, "runtime": RUNTIMES[1], "chunks": packed_chunks[:100], "flush": False},
            {
                **job,
                "runtime": RUNTIMES[0],
                "chunks": packed_chunks[100:],
                "state": json.loads(lstm_onnx.state_to_json(middle)),
            },
        ]
        *whole, first_half, second_half = map(result_of, perform(jobs))
        for found in whole:
            assert found["delay"] == stream.delay
            assert found["hop"] == stream.hop
            for python, javascript in zip([*expected, rest], found["outputs"], strict=True):
                close(arrays_of(javascript), python, tolerance)
        for python, javascript in zip([*expected[100:], rest], second_half["outputs"], strict=True):
            close(arrays_of(javascript), python, tolerance)
        stream.reset()
        stream.state = lstm_onnx.state_from_json(json.dumps(first_half["state"]))
        for chunk, wanted in zip(chunks[100:], expected[100:], strict=True):
            close(stream.run(chunk), wanted, tolerance)
        assert any(np.abs(array).max(initial=0.0) > 0.01 for array in expected[-1].values())
        assert axis < len(shape)


def rounding_of(stream: Stream, chunks: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> float:
    """Of activations that are rounded to 8 bits: four times what larger changes of the inputs do in Python."""
    stream.reset()
    rng = np.random.default_rng(2)
    moved = [
        {key: (x * (1 + 2e-3 * rng.choice([-1, 1], x.shape))).astype(x.dtype) for key, x in c.items()} for c in chunks
    ]
    found = [stream.run(chunk) for chunk in moved]
    stream.reset()
    changes = [np.abs(one[key] - other[key]).max() for one, other in zip(found, expected, strict=True) for key in one]
    sizes = [np.abs(array).max() for outputs in expected for array in outputs.values()]
    assert 0 < max(changes) < 0.02 * max(sizes)  # of which a wrong file would be off by all
    return 4 * float(max(changes))


def close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance)


def test_inputs_are_refused_with_pythons_messages(perform: Node, folders: Folders, tmp_path: Path) -> None:
    bare, lengths = folders.file("tutorial"), folders.file("everything")
    doubled = twice_as_many_states(tmp_path / "doubled.onnx")
    zeros = np.zeros
    f32, i64 = np.float32, np.int64
    everything = {"input": zeros((2, 5, 6), f32)}
    cases: list[tuple[Path, dict[str, np.ndarray]]] = [
        (bare, {}),
        (bare, {"x": zeros((5, 1, 4), f32)}),
        (bare, {"input": zeros((5, 1, 4), np.float64)}),
        (bare, {"input": zeros((5, 1), f32)}),
        (bare, {"input": zeros((4,), f32)}),
        (bare, {"input": zeros((5, 1, 3), f32)}),
        (bare, {"input": zeros((5, 0, 4), f32)}),
        (bare, {"input": zeros((0, 2, 4), f32)}),
        (bare, {"input": zeros((5, 2, 4), f32), "h0": zeros((1, 3, 3), f32)}),
        (bare, {"input": zeros((5, 2, 4), f32), "lengths": zeros(2, np.int32)}),
        (lengths, {**everything, "lengths": np.array([6, 1])}),
        (lengths, {**everything, "lengths": np.array([3, 0], np.int32)}),
        (lengths, {**everything, "lengths": np.array([3])}),
        (lengths, {**everything, "lengths": zeros(2, f32)}),
        (doubled, {"x": zeros((2, 3), f32), "state": zeros((5, 3), f32)}),
        (doubled, {"x": zeros((2, 3), f32)}),
        (doubled, {"x": zeros((2, 3), i64)}),
    ]
    with load(lengths, "cpu") as model:
        size = model.inputs["input"].shape[2]
    everything["input"] = zeros((2, 5, int(size)), f32)
    cases = [(path, {**feeds, **everything} if path == lengths else feeds) for path, feeds in cases]
    jobs = [
        {"kind": "run", "runtime": "onnxruntime-node", "model": path, "feeds": pack(feeds)} for path, feeds in cases
    ]
    messages = []
    for (path, feeds), answer in zip(cases, perform(jobs), strict=True):
        if "result" in answer:
            with load(path, "cpu") as model:
                close(arrays_of(result_of(answer)), model.run(feeds), 1e-6)
            continue
        error = error_of(path, lambda model, feeds=feeds: model.run(feeds))
        wanted = str(error).replace("(use .astype(numpy.", '(new ort.Tensor("').replace("32))", '32", ...))')
        assert answer == {"error": wanted, "kind": type(error).__name__, "input": error.name}
        messages.append(wanted)
    assert len(messages) == len(cases) - 1  # the state of 2 * 2 rows is filled in


def error_of(path: Path, run: Callable[[Model], object]) -> LSTMOnnxError:
    """What Python raises."""
    with load(path, "cpu") as model, pytest.raises(LSTMOnnxError) as raised:
        run(model)
    return raised.value


def streamed(job: dict[str, Any], model: Model) -> None:
    """What run.mjs does in a job of a stream."""
    stream = model.stream(**job.get("stream", {}))
    if "state" in job:
        stream.state = arrays_of(job["state"])
    for feeds in job["chunks"]:
        stream.run(arrays_of(feeds))


def twice_as_many_states(path: Path) -> Path:
    """y = x + the state's first rows; the state has two rows for each of x."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Concat", ["x", "x"], ["both"], axis=0),
            helper.make_node("Add", ["both", "state"], ["stateN"]),
            helper.make_node("Shape", ["x"], ["size"]),
            helper.make_node("Slice", ["stateN", "zero", "size"], ["y"]),
        ],
        "doubled",
        [info("x", TensorProto.FLOAT, ["batch", 3]), info("state", TensorProto.FLOAT, ["2*batch", 3])],
        [info("y", TensorProto.FLOAT, ["batch", 3]), info("stateN", TensorProto.FLOAT, ["2*batch", 3])],
        [helper.make_tensor("zero", TensorProto.INT64, [2], [0, 0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"lstm_onnx.states": '{"state": "stateN"}', "lstm_onnx.not_streamable": '""'})
    onnx.save(model, path)
    return path


def test_streams_are_refused_with_pythons_messages(perform: Node, folders: Folders, tmp_path: Path) -> None:
    bidirectional, bare = folders.file("bidirectional"), folders.file("tutorial")
    exported(tmp_path / "stateless.onnx")
    stateless = onnx.load(tmp_path / "stateless.onnx")
    for item in list(stateless.metadata_props):
        if item.key in ("lstm_onnx.states", "lstm_onnx.spec", "lstm_onnx.checksum"):
            stateless.metadata_props.remove(item)
    onnx.save(stateless, tmp_path / "stateless.onnx")
    chunk = {"input": np.zeros((1, 2, 4), np.float32)}
    state = {"h0": np.zeros((1, 1, 3), np.float32)}
    wrong = {**state, "c0": np.zeros((1, 2, 3), np.float32)}
    jobs: list[dict[str, Any]] = [
        {"model": bidirectional},
        {"model": tmp_path / "stateless.onnx"},
        {"model": bare, "stream": {"batch": 0}},
        {"model": bare, "chunks": [pack(chunk)]},
        {"model": bare, "chunks": [pack({**chunk, **state})]},
        {"model": bare, "state": pack(state)},
        {"model": bare, "state": pack({"h0": state["h0"], "c0": wrong["c0"]})},
        {"model": folders.file("denoiser"), "chunks": [pack({"last": np.zeros(1, np.int64)})]},
        {"model": accumulator(tmp_path / "other.onnx"), "options": {"states": {"state": "stateN"}}},
    ]
    jobs = [{"kind": "stream", "runtime": "onnxruntime-node", "chunks": [], **job} for job in jobs]
    answers = [answer["error"] for answer in perform(jobs)]
    for job, found in zip(jobs[:-1], answers, strict=False):
        wanted = str(error_of(job["model"], partial(streamed, job))).replace("stream(batch=2)", "stream({ batch: 2 })")
        assert found == wanted.replace("load(..., states=...)", "load(ort, source, { states })")
    assert "does not say whether chunks give what the whole sequence gives" in answers[-1]


def test_calls_that_are_not_awaited_keep_their_order(perform: Node, folders: Folders) -> None:
    rng = np.random.default_rng(0)
    chunks = [{"input": rng.standard_normal((2, 1, 4)).astype(np.float32)} for _ in range(5)]
    job = {"kind": "unawaited", "runtime": "onnxruntime-node", "model": folders.file("tutorial")}
    (answer,) = perform([{**job, "chunks": [pack(chunk) for chunk in chunks]}])
    found = result_of(answer)
    with load(folders.file("tutorial"), "cpu") as model:
        stream = model.stream()
        for chunk, outputs in zip(chunks, found["outputs"], strict=True):
            close(arrays_of(outputs), stream.run(chunk), 1e-6)
    assert found["refused"] == "reset: a chunk of this stream is still running; await it first"


def test_lengths_of_any_integers_are_cast_in_every_chunk(perform: Node, folders: Folders) -> None:
    path = folders.file("everything")
    with load(path, "cpu") as model:
        shape = [2 if dim == "batch" else 3 if dim == "time" else dim for dim in model.inputs["input"].shape]
        feeds = {"input": np.ones(shape, np.float32), "lengths": np.array([1, 3])}
        expected = model.run(feeds)
    job = {"kind": "run", "model": path, "feeds": pack(feeds)}
    for answer in perform([{**job, "runtime": runtime} for runtime in RUNTIMES]):
        close(arrays_of(result_of(answer)), expected, 1e-6)


def test_what_is_no_model_is_refused(perform: Node, folders: Folders, tmp_path: Path) -> None:
    content = folders.file("tutorial").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.onnx").write_text("this is not a model", encoding="utf-8")
    (tmp_path / "empty.onnx").write_bytes(b"")
    damaged = onnx.load(folders.file("tutorial"))
    next(item for item in damaged.metadata_props if item.key == "lstm_onnx.states").value = "{"
    onnx.save(damaged, tmp_path / "damaged.onnx")
    missing = {"states": {"h": "hn"}}
    jobs: list[dict[str, Any]] = [
        *({"model": tmp_path / f"{name}.onnx"} for name in ("cut", "text", "empty", "damaged")),
        {"model": folders.file("tutorial"), "options": missing},
    ]
    answers = perform([{"kind": "run", "runtime": "onnxruntime-node", "feeds": {}, **job} for job in jobs])
    assert [answer["kind"] for answer in answers] == ["ModelError"] * 5
    assert all("is not an ONNX model" in answer["error"] for answer in answers[:3])
    assert "the metadata lstm_onnx.* is damaged" in answers[3]["error"]
    assert answers[4]["error"].endswith("the state input 'h' does not exist; its inputs are input, h0, c0")

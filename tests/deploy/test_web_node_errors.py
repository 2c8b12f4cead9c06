"""What lstm-onnx.mjs refuses, in Node: with the messages of Python."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import quantize_dynamic

from lstm_onnx import make_streaming
from lstm_onnx.errors import LSTMOnnxError
from lstm_onnx.runtime import Model, load

from ..runtime.models import accumulator, exported
from ..runtime.test_calls_without_steps import gained, plain, running, stateless
from .node_process import NEEDS_NODE, RUNTIMES, Folders, Node, arrays_of, close, pack, result_of

pytestmark = NEEDS_NODE


def test_inputs_are_refused_with_pythons_messages(perform: Node, folders: Folders, tmp_path: Path) -> None:
    bare, lengths = folders.file("tutorial"), folders.file("everything")
    tokens = looked_up(tmp_path / "tokens.onnx")
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
        (tokens, {"tokens": np.array([[3, -1]])}),
        (tokens, {"tokens": np.array([[3], [4]])}),
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


def test_a_load_without_a_runtime_names_both(perform: Node, folders: Folders) -> None:
    (answer,) = perform([{"kind": "run", "runtime": "none", "model": folders.file("tutorial"), "feeds": {}}])
    assert answer["kind"] == "InputError"
    assert answer["error"] == "load takes the runtime first; pass onnxruntime-web or onnxruntime-node"


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


def looked_up(path: Path) -> Path:
    """A table of four rows."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "tokens"], ["y"])],
        "looked_up",
        [info("tokens", TensorProto.INT64, ["batch", "time"])],
        [info("y", TensorProto.FLOAT, ["batch", "time", 1])],
        [helper.make_tensor("table", TensorProto.FLOAT, [4, 1], range(4))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"lstm_onnx.table_rows": '{"tokens": 4}'})
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
    with load(folders.file("denoiser"), "cpu") as model:
        apart = model.stream(batch=2).state
    ended = {**apart, "steps": np.full_like(apart["steps"], -1)}
    apart["steps"][1] = 1
    jobs: list[dict[str, Any]] = [
        {"model": bidirectional},
        {"model": tmp_path / "stateless.onnx"},
        {"model": bare, "stream": {"batch": 0}},
        {"model": bare, "chunks": [pack(chunk)]},
        {"model": bare, "chunks": [pack({**chunk, **state})]},
        {"model": bare, "state": pack(state)},
        {"model": bare, "state": pack({"h0": state["h0"], "c0": wrong["c0"]})},
        {"model": folders.file("denoiser"), "chunks": [pack({"last": np.zeros(1, np.int64)})]},
        {"model": folders.file("denoiser"), "stream": {"batch": 2}, "state": pack(apart)},
        {"model": folders.file("denoiser"), "stream": {"batch": 2}, "state": pack(ended)},
        {"model": accumulator(tmp_path / "other.onnx"), "options": {"states": {"state": "stateN"}}},
    ]
    jobs = [{"kind": "stream", "runtime": "onnxruntime-node", "chunks": [], **job} for job in jobs]
    answers = [answer["error"] for answer in perform(jobs)]
    for job, found in zip(jobs[:-1], answers, strict=False):
        wanted = str(error_of(job["model"], partial(streamed, job))).replace("stream(batch=2)", "stream({ batch: 2 })")
        wanted = re.sub(r" \(--[^)]*\)", "", wanted)  # the options of the command line
        assert found == wanted.replace("load(..., states=...)", "load(ort, source, { states })")
    assert "does not say whether chunks give what the whole sequence gives" in answers[-1]


def test_the_options_of_a_stream_are_an_object(perform: Node, folders: Folders) -> None:
    """Python takes the batch alone, too: here it would be left out without a word."""
    job = {"kind": "stream", "runtime": "onnxruntime-node", "model": folders.file("tutorial"), "chunks": []}
    (answer,) = perform([{**job, "stream": 3}])
    assert answer["kind"] == "InputError"
    assert answer["error"] == "stream takes an object of options; write stream({ batch: 3 })"


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
def test_h_is_not_known_before_a_chunk(perform: Node, tmp_path: Path, operator: str) -> None:
    path = tmp_path / "stream.onnx"
    make_streaming(stateless(tmp_path, operator), path, time={"x": 0}, trial=False)
    with load(path, "cpu") as model:
        stream = model.stream()
        stream.run({"x": np.ones((3, 1, 3), np.float32)})
        job = {"kind": "stream", "model": path, "state": pack(stream.state), "chunks": [], "flush": True}
    for answer in perform([{**job, "runtime": runtime} for runtime in RUNTIMES]):
        assert "last_h is not known: no chunk has been run since the state was set" in answer["error"]


@pytest.mark.parametrize("keeps_axis", [False, True])
def test_there_is_no_last_step_of_none(perform: Node, tmp_path: Path, keeps_axis: bool) -> None:
    path = running(tmp_path, keeps_axis=keeps_axis)
    with load(path, "cpu") as model:
        stream = model.stream()
        stream.run({"x": np.ones((1, 2, 3), np.float32)})
        job = {"kind": "stream", "model": path, "state": pack(stream.state), "chunks": [], "flush": True}
    for answer in perform([{**job, "runtime": runtime} for runtime in RUNTIMES]):
        assert "total is not known: no chunk has been run since the state was set" in answer["error"]


def test_an_input_of_another_sequence_is_not_taken_for_the_own(perform: Node, tmp_path: Path) -> None:
    """flush needs `gain`, which a state does not hold; a chunk without steps names it."""
    path = gained(tmp_path)
    chunks = [{"x": np.ones((1, 1, size), np.float32), "gain": np.full((1, 1, 1), 2, np.float32)} for size in (4, 0)]
    with load(path, "cpu") as model:
        stream = model.stream()
        stream.run(chunks[0])
        job = {
            "kind": "stream",
            "runtime": "onnxruntime-node",
            "model": path,
            "state": pack(stream.state),
            "flush": True,
        }
    without, named = perform([{**job, "chunks": []}, {**job, "chunks": [pack(chunks[1])]}])
    assert "gain is not known: no chunk has been run since the state was set; feed a chunk first" in without["error"]
    assert "error" not in named


def test_flush_gives_the_score_of_the_last_chunk(perform: Node, tmp_path: Path) -> None:
    chunks = [{"x": np.random.default_rng(seed).standard_normal((3, 2, 3)).astype(np.float32)} for seed in range(2)]
    with plain(tmp_path, ("y", "score")) as model:
        stream = model.stream(batch=2)
        last = [stream.run(chunk) for chunk in chunks][-1]
    job: dict[str, Any] = {"kind": "stream", "model": tmp_path / "plain.onnx", "options": {"states": {"h0": "hn"}}}
    job |= {"stream": {"batch": 2, "check": False}, "chunks": [pack(chunk) for chunk in chunks], "flush": True}
    for answer in perform([{**job, "runtime": runtime} for runtime in RUNTIMES]):
        rest = arrays_of(result_of(answer)["outputs"][-1])
        assert rest["y"].shape == (0, 1, 2, 4)
        np.testing.assert_allclose(rest["score"], last["score"], rtol=0, atol=1e-6)


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
        {"model": tmp_path / "absent.onnx"},
    ]
    answers = perform([{"kind": "run", "runtime": "onnxruntime-node", "feeds": {}, **job} for job in jobs])
    assert [answer["kind"] for answer in answers] == ["ModelError"] * 6
    assert all("is not an ONNX model" in answer["error"] for answer in answers[:3])
    assert "the metadata lstm_onnx.* is damaged" in answers[3]["error"]
    assert "absent.onnx: cannot be read: ENOENT" in answers[5]["error"]
    assert answers[4]["error"].endswith("the state input 'h' does not exist; its inputs are input, h0, c0")


def test_a_file_that_another_tool_has_changed_is_not_taken_at_its_word(
    perform: Node, folders: Folders, tmp_path: Path
) -> None:
    quantize_dynamic(folders.file("tutorial"), tmp_path / "changed.onnx")  # its metadata stay
    job = {"kind": "stream", "runtime": "onnxruntime-node", "chunks": [], "model": tmp_path / "changed.onnx"}
    refused, unchecked = perform([job, {**job, "stream": {"check": False}}])
    assert refused["kind"] == "InputError"
    assert "may not be streamed: another tool has changed it since it was written" in refused["error"]
    assert "error" not in unchecked


def test_a_state_that_a_worker_has_copied_has_no_numbers(perform: Node, folders: Folders) -> None:
    (answer,) = perform([{"kind": "cloned state", "runtime": "onnxruntime-node", "model": folders.file("tutorial")}])
    assert answer["kind"] == "InputError"
    assert answer["error"].startswith("c0 is a tensor without its numbers; set a state that was read from a stream")


def test_a_tensor_that_was_disposed_is_refused(perform: Node, folders: Folders) -> None:
    feeds = pack({"input": np.zeros((1, 1, 4), np.float32)})
    job = {"kind": "disposed", "runtime": "onnxruntime-node", "model": folders.file("tutorial"), "feeds": feeds}
    for found in result_of(perform([job])[0]):
        assert found.startswith("InputError: input cannot be read: The tensor is disposed.; create it anew")

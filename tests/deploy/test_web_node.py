"""lstm-onnx.mjs in Node, on onnxruntime-node and on onnxruntime-web's WebAssembly, beside Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import lstm_onnx
from lstm_onnx.deploy.web import deploy_web
from lstm_onnx.runtime import load
from lstm_onnx.runtime.stream import Stream

from ..parity_files import parity_files
from ..runtime.models import exported
from .node_process import CONFIGS, NEEDS_NODE, RUNTIMES, Folders, Node, arrays_of, close, pack, result_of

pytestmark = NEEDS_NODE


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


@pytest.mark.sweep(2)
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


def test_calls_that_are_not_awaited_keep_their_order(perform: Node, folders: Folders) -> None:
    rng = np.random.default_rng(0)
    chunks = [{"input": rng.standard_normal((2, 1, 4)).astype(np.float32)} for _ in range(5)]
    job = {"kind": "unawaited", "model": folders.file("tutorial"), "chunks": [pack(chunk) for chunk in chunks]}
    for answer in perform([{**job, "runtime": runtime} for runtime in RUNTIMES]):
        found = result_of(answer)
        with load(folders.file("tutorial"), "cpu") as model:
            stream = model.stream()
            for chunk, outputs in zip(chunks, found["outputs"], strict=True):
                close(arrays_of(outputs), stream.run(chunk), 1e-6)
        assert found["refused"] == "reset: a chunk of this stream is still running; await it first"
        assert found["nothing"].startswith("run takes names to tensors, such as {name: tensor}")


def test_lengths_of_any_integers_are_cast_in_every_chunk(perform: Node, folders: Folders) -> None:
    path = folders.file("everything")
    with load(path, "cpu") as model:
        shape = [2 if dim == "batch" else 3 if dim == "time" else dim for dim in model.inputs["input"].shape]
        feeds = {"input": np.ones(shape, np.float32), "lengths": np.array([1, 3])}
        expected = model.run(feeds)
    job = {"kind": "run", "model": path, "feeds": pack(feeds)}
    for answer in perform([{**job, "runtime": runtime} for runtime in RUNTIMES]):
        close(arrays_of(result_of(answer)), expected, 1e-6)


def test_the_first_number_that_is_not_finite_is_warned_of(perform: Node, folders: Folders) -> None:
    chunks = [{"input": np.full((2, 1, 4), fill, np.float32)} for fill in (0, 3e38, np.nan, -np.inf)]
    job = {"kind": "warned", "model": folders.file("tutorial"), "chunks": [pack(chunk) for chunk in chunks]}
    answers = perform([{**job, "runtime": runtime} for runtime in RUNTIMES])
    for answer in answers:
        (warning,) = result_of(answer)["warnings"]
        assert "input has a NaN or an infinity; where PyTorch's LSTM gives NaN" in warning
    job["chunks"] = [pack(chunk) for chunk in chunks[:2]]
    (answer,) = perform([{**job, "runtime": "onnxruntime-node"}])
    assert result_of(answer)["warnings"] == []


def test_a_run_that_is_not_awaited_is_of_the_numbers_that_it_was_given(perform: Node, folders: Folders) -> None:
    rng = np.random.default_rng(0)
    chunks = [{"input": rng.standard_normal((2, 1, 4)).astype(np.float32)} for _ in range(3)]
    job = {"kind": "unawaited runs", "model": folders.file("tutorial"), "chunks": [pack(chunk) for chunk in chunks]}
    for answer in perform([{**job, "runtime": runtime} for runtime in RUNTIMES]):
        with load(folders.file("tutorial"), "cpu") as model:
            for chunk, outputs in zip(chunks, result_of(answer), strict=True):
                close(arrays_of(outputs), model.run(chunk), 1e-6)


def test_the_bytes_of_a_buffer_are_copied(perform: Node, tmp_path: Path) -> None:
    """The method slice of Node's Buffer makes no copy."""
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, [3]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "bytes", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "bytes.onnx")
    chunk = pack({"x": np.array([1, 2, 3], np.uint8)})
    job = {"kind": "unawaited runs", "model": tmp_path / "bytes.onnx", "chunks": [chunk]}
    for answer in perform([{**job, "runtime": runtime} for runtime in RUNTIMES]):
        (outputs,) = result_of(answer)
        assert arrays_of(outputs)["y"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("place", ["an If", "a function"])
def test_a_layer_in_another_graph_is_warned_of_nan(perform: Node, tmp_path: Path, place: str) -> None:
    path = inner_gru(tmp_path / "inner.onnx", in_function=place == "a function")
    job = {"kind": "warned run", "runtime": "onnxruntime-node", "model": path}
    feeds = [{"x": np.full((4, 2, 3), fill, np.float32)} for fill in (np.nan, 1)]
    bad, good = perform([{**job, "feeds": pack(each)} for each in feeds])
    assert "x has a NaN or an infinity" in result_of(bad)["warning"]
    assert result_of(good)["warning"] == ""


def inner_gru(path: Path, *, in_function: bool) -> Path:
    """A GRU in a branch of an If, or in a function."""
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    gru = make("GRU", ["x", "W", "R"], ["Y"], hidden_size=4)
    weights = [onnx.numpy_helper.from_array(np.ones((1, 12, n), np.float32), name) for name, n in (("W", 3), ("R", 4))]
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    x = info("x", onnx.TensorProto.FLOAT, ["time", "batch", 3])
    y = info("y", onnx.TensorProto.FLOAT, ["time", 1, "batch", 4])
    functions = []
    if in_function:
        functions = [onnx.helper.make_function("own", "Layer", ["x", "W", "R"], ["Y"], [gru], opsets[:1])]
        nodes = [make("Layer", ["x", "W", "R"], ["y"], domain="own")]
    else:
        body = onnx.helper.make_graph([gru], "body", [], [info("Y", onnx.TensorProto.FLOAT, None)])
        weights.append(onnx.helper.make_tensor("many", onnx.TensorProto.INT64, [], [2]))
        nodes = [
            make("Size", ["x"], ["size"]),
            make("Greater", ["size", "many"], ["is_long"]),
            make("If", ["is_long"], ["y"], then_branch=body, else_branch=body),
        ]
    graph = onnx.helper.make_graph(nodes, "graph", [x], [y], weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions), path)
    return path


def test_a_nan_of_float16_is_warned_of(perform: Node, tmp_path: Path) -> None:
    exported(tmp_path / "half.onnx", dtype="float16")
    job = {"kind": "warned run", "runtime": "onnxruntime-node", "model": tmp_path / "half.onnx"}
    feeds = [{"input": np.full((2, 1, 4), fill, np.float16)} for fill in (np.nan, -np.inf, 6e4, 0)]
    warnings = [result_of(answer)["warning"] for answer in perform([{**job, "feeds": pack(each)} for each in feeds])]
    assert [bool(warning) for warning in warnings] == [True, True, False, False]


@pytest.mark.parametrize("name", ["time", "länge", ""])
def test_flush_gives_no_chunk_again_where_the_file_has_no_shape(perform: Node, tmp_path: Path, name: str) -> None:
    """As some tools leave it out: ONNX Runtime infers it; or where axes have no names."""
    exported(tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    for item in list(model.metadata_props):
        model.metadata_props.remove(item)
    model.producer_name = "other"
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "time" and name:
                dim.dim_param = name
            elif dim.dim_param == "time":
                dim.ClearField("dim_param")
    if name == "time":
        model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "other.onnx")
    deploy_web(tmp_path / "other.onnx", tmp_path / "web", states={"h0": "hn", "c0": "cn"})
    chunk = pack({"input": np.ones((2, 3, 4), np.float32)})
    job = {"kind": "stream", "model": tmp_path / "web/model.onnx", "stream": {"batch": 3}, "chunks": [chunk]}
    for answer in perform([{**job, "flush": True, "runtime": runtime} for runtime in RUNTIMES]):
        last = arrays_of(result_of(answer)["outputs"][-1])
        assert last["output"].shape == (0, 3, 5)

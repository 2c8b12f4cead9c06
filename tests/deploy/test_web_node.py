"""lstm-onnx.mjs in Node, on onnxruntime-node and on onnxruntime-web's WebAssembly, beside Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import lstm_onnx
from lstm_onnx.runtime import load
from lstm_onnx.runtime.stream import Stream

from ..parity_files import parity_files
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

"""Triton's repository: its configuration parsed by Triton's own protobuf, and its sequences replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2 as model_config

import lstm_onnx
from lstm_onnx.deploy import deploy_triton
from lstm_onnx.errors import FileError, InputError, ModelError, RunError
from lstm_onnx.input_spec import InputSpec
from lstm_onnx.metadata import Metadata
from lstm_onnx.runtime import Model, load
from lstm_onnx.spec import ExportOptions

from ..hostile_files import FLOAT, one_node
from ..runtime.models import accumulator, centred_rows, exported, randoms
from ..serving.conftest import summing
from .sequencer import Sequencer


class Learned(torch.nn.Module):
    """Starts from learned states."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(3, 4, 2, batch_first=True)
        self.h0 = torch.nn.Parameter(torch.randn(2, 1, 4))
        self.c0 = torch.nn.Parameter(torch.randn(2, 1, 4))
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = self.h0.expand(-1, x.shape[0], -1).contiguous(), self.c0.expand(-1, x.shape[0], -1).contiguous()
        return self.head(self.lstm(x, states)[0])


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("learned") / "learned.onnx"
    lstm_onnx.export(
        Learned().eval(),
        path,
        example_inputs=(torch.zeros(2, 3, 3),),
        dynamic_shapes={"x": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}},
        states="explicit",
    )
    return path


def replay(served: Sequencer, model: Model, draw: Any, axis: int) -> None:
    """Eight interleaved sequences of six requests, against streams alone; `axis` is the batch of the model's inputs."""
    rng = np.random.default_rng(1)
    alone = [model.stream() for _ in range(8)]
    done = [0] * 8
    while min(done) < 6:
        waiting = [number for number in range(8) if done[number] < 6]
        picked = sorted(rng.choice(waiting, rng.integers(1, len(waiting) + 1), replace=False).tolist())
        frames = {number: draw(rng) for number in picked}
        requests = []
        for number in picked:
            rows = {name: np.moveaxis(array, axis, 0) for name, array in frames[number].items()}
            requests.append((number, done[number] == 0, done[number] == 5, rows))
            done[number] += 1
        for number, found in zip(picked, served.step(requests), strict=True):
            expected = alone[number].run(frames[number])
            for name, array in found.items():
                np.testing.assert_array_equal(np.moveaxis(array, 0, axis), expected[name])
    assert not served.sequences


def test_a_bare_lstm_of_time_first(tmp_path: Path) -> None:
    exported(tmp_path / "net.onnx", num_layers=2, proj_size=2)
    result = deploy_triton(tmp_path / "net.onnx", tmp_path / "repository", max_batch=16)
    assert result.stateful
    assert result.states == {"h0": "hn", "c0": "cn"}
    assert (tmp_path / "repository" / "net" / "config.pbtxt").exists()
    onnx.checker.check_model(tmp_path / "repository" / "net" / "1" / "model.onnx", full_check=True)
    served = Sequencer(tmp_path / "repository" / "net", model_config)
    assert served.config.max_batch_size == 16
    assert served.config.sequence_batching.oldest.preferred_batch_size == [16]
    assert served.config.sequence_batching.max_sequence_idle_microseconds == 60_000_000
    assert {state.input_name: list(state.dims) for state in served.config.sequence_batching.state} == {
        "h0": [2, 2],
        "c0": [2, 5],
    }
    with load(tmp_path / "net.onnx", "cpu") as model:
        replay(served, model, lambda rng: {"input": rng.standard_normal((3, 1, 4)).astype(np.float32)}, axis=1)


def test_what_is_written_passes_check(learned: Path, tmp_path: Path) -> None:
    """Without our metadata it is no damaged file of ours, so that a hook for all .onnx files accepts it."""
    result = deploy_triton(learned, tmp_path)
    report = lstm_onnx.check(tmp_path / result.name / "1" / "model.onnx", targets=["triton"])
    assert report, str(report)


def test_learned_initial_states(learned: Path, tmp_path: Path) -> None:
    result = deploy_triton(learned, tmp_path, name="other")
    assert result.name == "other"
    served = Sequencer(tmp_path / "other", model_config)
    assert all(state.initial_state[0].data_file for state in served.config.sequence_batching.state)
    assert all((tmp_path / "other" / name).exists() for name in result.files)
    with load(learned, "cpu") as model:
        replay(served, model, lambda rng: {"x": rng.standard_normal((1, 2, 3)).astype(np.float32)}, axis=0)


def test_clients_that_pass_states_are_told_of_learned_ones(learned: Path, tmp_path: Path) -> None:
    proto = onnx.load(learned)
    names = json.loads(next(item.value for item in proto.metadata_props if item.key == "lstm_onnx.initial"))
    for item in proto.metadata_props:
        if item.key == "lstm_onnx.not_streamable":
            item.value = '"it looks ahead"'
    onnx.save(proto, tmp_path / "m.onnx")
    (note,) = deploy_triton(tmp_path / "m.onnx", tmp_path / "repository").notes
    assert note.endswith(
        f"zeros for a new sequence, except for {', '.join(names)}, whose values are in metadata.initial of the loaded "
        "file"
    )


def test_a_model_from_elsewhere_of_integers(tmp_path: Path) -> None:
    summing(tmp_path / "sum.onnx")
    deploy_triton(tmp_path / "sum.onnx", tmp_path / "repository")
    served = Sequencer(tmp_path / "repository" / "sum", model_config)

    def draw(rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"x": rng.integers(-9, 9, (1, 2)), "keep": rng.integers(0, 2, (1, 2)).astype(bool)}

    with load(tmp_path / "sum.onnx", "cpu") as model:
        replay(served, model, draw, axis=0)


@pytest.mark.parametrize("first", [True, False])
def test_integers_that_are_out_of_range_fail(tmp_path: Path, first: bool) -> None:
    """Rows that a table does not have, of which ONNX Runtime takes -1 for the last, and lengths of 0."""
    tokens, lengths = ("batch", "time") if first else ("time", "batch"), ("batch",)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "tokens"], ["found"]),
            helper.make_node("Cast", ["lengths"], ["many"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["many", "axis"], ["column"]),
            helper.make_node("Add", ["found", "column"], ["y"]),
        ],
        "lookup",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT32, tokens),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, lengths),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, tokens)],
        [
            numpy_helper.from_array(np.arange(5, dtype=np.float32), "table"),
            numpy_helper.from_array(np.array([1 if first else 0]), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    specs = (InputSpec("tokens", tokens, "int32", 0, 4), InputSpec("lengths", lengths, "int64", 1, "time"))
    metadata = Metadata(inputs=specs, table_rows={"tokens": 5}, batch_mixes="")
    helper.set_model_props(model, metadata.to_metadata())
    onnx.save(model, tmp_path / "m.onnx")
    deploy_triton(tmp_path / "m.onnx", tmp_path / "repository")
    with load(tmp_path / "repository" / "m" / "1" / "model.onnx", "cpu", threads=1) as written:
        right = {"tokens": np.array([[0, 4, 2], [1, 3, 3]], np.int32), "lengths": np.array([1, 3])}
        np.testing.assert_array_equal(written.run(right)["y"], right["tokens"] + right["lengths"][:, None])
        for name, wrong, allowed in (
            *(("tokens", wrong, "0 to 4") for wrong in (-1, 5, -5)),
            *(("lengths", wrong, "1 to time") for wrong in (0, 4, -1)),
        ):
            array = right[name].copy()
            array[1, ...] = wrong
            with pytest.raises(RunError, match=f"{name} must be from {allowed}'"):
                written.run({**right, name: array})


def test_a_model_that_cannot_be_streamed_is_batched(tmp_path: Path) -> None:
    exported(tmp_path / "both.onnx", bidirectional=True, options=ExportOptions(lengths=True))
    result = deploy_triton(tmp_path / "both.onnx", tmp_path / "repository")
    assert not result.stateful
    assert result.notes == ("it cannot be streamed, so clients pass the states c0, h0; zeros for a new sequence",)
    served = Sequencer(tmp_path / "repository" / "both", model_config)
    assert served.config.WhichOneof("scheduling_choice") == "dynamic_batching"
    lengths = next(tensor for tensor in served.config.input if tensor.name == "lengths")
    assert (list(lengths.dims), list(lengths.reshape.shape)) == ([1], [])
    x, zeros = randoms(7, 3, 4), np.zeros((2, 3, 5), np.float32)
    feeds = {"input": x, "lengths": np.array([7, 1, 4], np.int32), "h0": zeros, "c0": zeros}
    axes = {"input": 1, "lengths": 0, "h0": 1, "c0": 1}
    (found,) = served.step([(0, False, False, {n: np.moveaxis(a, axes[n], 0) for n, a in feeds.items()})][:1])[:1]
    with load(tmp_path / "both.onnx", "cpu") as model:
        expected = model.run(feeds)
    np.testing.assert_array_equal(found["output"], np.moveaxis(expected["output"], 1, 0)[:1])


def test_weights_in_a_file_beside_the_model(tmp_path: Path) -> None:
    exported(tmp_path / "plain.onnx", hidden_size=32)
    onnx.save_model(
        onnx.load(tmp_path / "plain.onnx"),
        tmp_path / "out.onnx",
        save_as_external_data=True,
        location="w",
        size_threshold=1024,
    )
    deploy_triton(tmp_path / "out.onnx", tmp_path / "repository")
    (tmp_path / "w").unlink()
    with load(tmp_path / "plain.onnx", "cpu") as model:
        served = Sequencer(tmp_path / "repository" / "out", model_config)
        x = randoms(2, 1, 4)
        (found,) = served.step([(1, True, True, {"input": np.moveaxis(x, 1, 0)})])
        np.testing.assert_array_equal(np.moveaxis(found["output"], 0, 1), model.stream()(x))


def test_values_in_bodies_keep_their_meaning(tmp_path: Path) -> None:
    """An input that only the body of an If uses."""
    then = helper.make_graph(
        [helper.make_node("Add", ["x", "state"], ["a"])], "then", [], [helper.make_tensor_value_info("a", 1, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Mul", ["x", "state"], ["b"])], "else", [], [helper.make_tensor_value_info("b", 1, None)]
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other),
            helper.make_node("Identity", ["y"], ["stateN"]),
        ],
        "g",
        [helper.make_tensor_value_info(name, 1, [3, "batch"]) for name in ("x", "state")],
        [helper.make_tensor_value_info(name, 1, [3, "batch"]) for name in ("y", "stateN")],
        [numpy_helper.from_array(np.array(True), "yes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"lstm_onnx.states": '{"state": "stateN"}'})
    onnx.save(model, tmp_path / "body.onnx")
    deploy_triton(tmp_path / "body.onnx", tmp_path / "repository")
    served = Sequencer(tmp_path / "repository" / "body", model_config)
    with load(tmp_path / "body.onnx", "cpu") as loaded:
        replay(served, loaded, lambda rng: {"x": rng.standard_normal((3, 1)).astype(np.float32)}, axis=1)


def test_what_is_refused(tmp_path: Path) -> None:
    accumulator(tmp_path / "scale.onnx", metadata={"lstm_onnx.states": '{"state": "stateN"}'})
    with pytest.raises(ModelError, match=r"scale int64 \(\) has no dynamic batch axis.*; export it with one"):
        deploy_triton(tmp_path / "scale.onnx", tmp_path / "repository")
    assert not (tmp_path / "repository").exists()
    with pytest.raises(ModelError, match="its rows cannot be batched: y of one sequence depends on the other"):
        deploy_triton(centred_rows(tmp_path / "mean.onnx"), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()
    (tmp_path / "relu.onnx").write_bytes(
        one_node("Relu", ["x"], given={"x": (FLOAT, ["unk__1", 2])}).SerializeToString()
    )
    with pytest.raises(ModelError, match=r'x float32 \(unk__1, 2\) has no axis that is known .*call that axis "batch"'):
        deploy_triton(tmp_path / "relu.onnx", tmp_path / "repository")
    exported(tmp_path / "net.onnx")
    deploy_triton(tmp_path / "net.onnx", tmp_path / "repository")
    with pytest.raises(FileError, match=r"model\.onnx: is read as well"):
        deploy_triton(tmp_path / "repository" / "net" / "1" / "model.onnx", tmp_path / "repository", name="net")
    exported(tmp_path / "a b.onnx")
    with pytest.raises(InputError, match="is not a model's name"):
        deploy_triton(tmp_path / "a b.onnx", tmp_path / "repository")


def test_a_state_of_one_number_for_each_sequence_is_refused(tmp_path: Path) -> None:
    """Its dims would be empty, and Triton's states need one."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "n"], ["y"]), helper.make_node("Identity", ["y"], ["nN"])],
        "sum",
        [info(name, TensorProto.FLOAT, ["batch"]) for name in ("x", "n")],
        [info(name, TensorProto.FLOAT, ["batch"]) for name in ("y", "nN")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"lstm_onnx.states": '{"n": "nN"}', "lstm_onnx.not_streamable": '""'})
    onnx.save(model, tmp_path / "sum.onnx")
    with pytest.raises(ModelError, match="has no axis beside the batch, and Triton's states have one"):
        deploy_triton(tmp_path / "sum.onnx", tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_model_that_was_written_wrongly_is_not_deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lstm_onnx.deploy import batch_first

    exported(tmp_path / "net.onnx")
    weights = batch_first.read_weights

    def wrong(*arguments: Any) -> dict[str, np.ndarray]:
        found = weights(*arguments)
        return {name: array * np.float32(1.1) if array.dtype == np.float32 else array for name, array in found.items()}

    monkeypatch.setattr(batch_first, "read_weights", wrong)
    with pytest.raises(RunError, match="its output output differs"):
        deploy_triton(tmp_path / "net.onnx", tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_what_the_configuration_cannot_say_replaces_nothing(tmp_path: Path) -> None:
    exported(tmp_path / "net.onnx")
    deploy_triton(tmp_path / "net.onnx", tmp_path / "repository")
    folder = tmp_path / "repository" / "net"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    value = helper.make_tensor_value_info("x\ny", 1, ["batch", 2])
    other = helper.make_tensor_value_info("z", 1, ["batch", 2])
    graph = helper.make_graph([helper.make_node("Neg", ["x\ny"], ["z"])], "g", [value], [other])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "x.onnx")
    with pytest.raises(ModelError, match="cannot be written to Triton's configuration"):
        deploy_triton(tmp_path / "x.onnx", tmp_path / "repository", name="net")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_outputs_whose_shapes_the_file_does_not_say(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RNN", ["x", "W", "R", "", "", "h0"], ["all", "hn"], hidden_size=2),
        helper.make_node("Squeeze", ["all", "axis"], ["y"]),
    ]
    stored = {"W": randoms(1, 2, 3), "R": randoms(1, 2, 2), "axis": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "open",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ("time", "batch", 3)),
            helper.make_tensor_value_info("h0", TensorProto.FLOAT, (1, "batch", 2)),
        ],
        [helper.make_empty_tensor_value_info(name) for name in ("y", "hn")],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    file = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    deploy_triton(file, tmp_path / "models")
    outputs = load(tmp_path / "models" / "m" / "1" / "model.onnx").outputs
    assert [info.shape for info in outputs.values()] == [("batch", "time", 2), ("batch", 1, 2)]

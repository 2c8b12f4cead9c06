"""Files of other tools get operators for their loops, states, and a batch of any size; and stay what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.repairs import operators, repair
from lstm_onnx.repairs.cells import Cell, cell_of
from lstm_onnx.runtime.chunks import run_chunks

from .loops import FEATURES, UNITS, loop_file, node, unrolled_file


def run(path: Path, x: np.ndarray) -> np.ndarray:
    return lstm_onnx.load(path, provider="cpu", threads=1).run({"x": x})["y"]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("form", ["Loop", "Scan"])
@pytest.mark.parametrize(("kind", "op_type"), [("gru", "GRU"), ("gru_before", "GRU"), ("lstm", "LSTM"), ("rnn", "RNN")])
def test_a_loop_becomes_its_operator_with_states(tmp_path: Path, kind: str, op_type: str, form: str):
    source, target = loop_file(tmp_path / "a.onnx", kind, form=form), tmp_path / "b.onnx"
    result = lstm_onnx.repair(source, target)
    assert list(result.operators.values()) == [op_type]
    assert [item.op_type for item in onnx.load(target).graph.node].count(op_type) == 1
    assert not {"Loop", "Scan"} & {item.op_type for item in onnx.load(target).graph.node}
    assert result.nodes < result.source_nodes / 2
    assert len(result.states) == (2 if kind == "lstm" else 1)
    assert (result.batch_opened, result.not_streamable) == (False, "")
    x = random(3, 7, FEATURES)
    np.testing.assert_allclose(run(target, x), run(source, x), atol=2e-6)
    stream = lstm_onnx.load(target, provider="cpu", threads=1).stream(batch=3)
    parts = [stream.run({"x": x[:, start:end]})["y"] for start, end in ((0, 1), (1, 5), (5, 7))]
    np.testing.assert_allclose(np.concatenate(parts, 1), run(source, x), atol=2e-6)


def test_states_are_named_after_the_layer(tmp_path: Path):
    result = repair(loop_file(tmp_path / "a.onnx", "gru"), tmp_path / "b.onnx")
    assert result.states == {"model.layer.GRU.h0": "model.layer.GRU.hn"} or list(result.states) == ["model.layer.h0"]
    assert "now the operator GRU" in str(result)


def test_outputs_have_the_names_of_the_inputs_axes(tmp_path: Path):
    """As tf2onnx names each axis separately: what an output's axes are is seen by running the file."""
    source, target = loop_file(tmp_path / "a.onnx", "gru"), tmp_path / "b.onnx"
    model = onnx.load(source)
    for value, names in ((model.graph.input[0], "pq"), (model.graph.output[0], "rs")):
        for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            dim.dim_param = name
    onnx.save(model, source)
    assert "streams: along axis 1 of x" in str(repair(source, target))
    model = lstm_onnx.load(target, provider="cpu", threads=1)
    assert model.outputs["y"].shape[:2] == ("p", "q")
    x = random(3, 7, FEATURES)
    stream = model.stream(batch=3)
    parts = [stream(x[:, :4]), stream(x[:, 4:]), stream.flush()]
    np.testing.assert_allclose(np.concatenate(parts, 1), run(source, x), atol=2e-6)
    np.testing.assert_allclose(run_chunks(model, {"x": x}, 2)["y"], run(source, x), atol=2e-6)


def test_axes_without_names_get_some_for_the_states(tmp_path: Path):
    source, target = loop_file(tmp_path / "a.onnx", "gru"), tmp_path / "b.onnx"
    model = onnx.load(source)
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.ClearField("dim_param")
    onnx.save(model, source)
    repair(source, target)
    model = lstm_onnx.load(target, provider="cpu", threads=1)
    assert model.inputs["x"].shape == ("axis_x_0", "axis_x_1", FEATURES)
    assert [model.inputs[name].shape[1] for name in model.states] == ["axis_x_0"]
    x = random(3, 7, FEATURES)
    np.testing.assert_allclose(run(target, x), run(source, x), atol=2e-6)


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize(("kind", "op_type"), [("gru", "GRU"), ("gru_before", "GRU"), ("lstm", "LSTM"), ("rnn", "RNN")])
def test_unrolled_steps_become_their_operator(tmp_path: Path, kind: str, op_type: str, sequence: bool):
    source, target = unrolled_file(tmp_path / "a.onnx", kind, 5, sequence=sequence), tmp_path / "b.onnx"
    result = repair(source, target)
    assert list(result.operators.values()) == [op_type]
    assert len(result.states) == (2 if kind == "lstm" else 1)
    assert result.nodes < result.source_nodes
    x = random(3, 5, FEATURES)
    np.testing.assert_allclose(run(target, x), run(source, x), atol=2e-6)
    model = lstm_onnx.load(target, provider="cpu", threads=1)
    states = {name: np.full((1, 3, UNITS), 0.5, np.float32) for name in model.states}
    assert np.abs(model.run({"x": x, **states})["y"] - run(target, x)).max() > 1e-3


def test_unrolled_steps_that_differ_are_left_as_they_are(tmp_path: Path):
    source = unrolled_file(tmp_path / "a.onnx", "gru", 5, sequence=True, odd="Tanh")
    run(source, random(2, 5, FEATURES))
    with pytest.raises(lstm_onnx.ModelError, match="no loop that was recognised as one"):
        repair(source, tmp_path / "b.onnx")


@pytest.mark.parametrize(
    ("command", "reason"), [("quantize", "no layer to quantize"), ("make_streaming", "number of time steps")]
)
def test_other_commands_point_to_repair_for_loops(tmp_path: Path, command: str, reason: str):
    options = {"time": {"x": 1}} if command == "make_streaming" else {}
    source = loop_file(tmp_path / "a.onnx", "gru")
    with pytest.raises(lstm_onnx.ModelError, match=rf"{reason}.*lstm-onnx repair replaces loops"):
        getattr(lstm_onnx, command)(source, tmp_path / "b.onnx", **options)


WRONG: dict[str, dict[str, Any]] = {
    "a gate that is scaled": {"extra": (node("Mul", "h_next z", "h_other"),), "state": "h_other"},
    "a state that is halved": {"extra": (node("Mul", "h_next half", "h_other"),), "state": "h_other"},
    "an end that depends on the states": {
        "extra": (node("ReduceMax", "h_next", "most", keepdims=0), node("Less", "most one", "goes_on")),
        "until": "goes_on",
    },
    "a step that reads its number": {
        "extra": (
            node("Cast", "number", "number_float", to=onnx.TensorProto.FLOAT),
            node("Mul", "number_float small", "more_of_it"),
            node("Add", "h_next more_of_it", "h_other"),
        ),
        "state": "h_other",
    },
}


@pytest.mark.parametrize("change", WRONG)
def test_a_loop_that_is_no_operator_is_left_as_it_is(tmp_path: Path, change: str):
    source = loop_file(tmp_path / "a.onnx", "gru", **WRONG[change])
    model = onnx.load(source)
    for name, value in (("half", 0.5), ("small", 1e-3)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    onnx.save(model, source)
    run(source, random(2, 4, FEATURES))  # it is a file that runs
    with pytest.raises(lstm_onnx.ModelError, match="nothing to repair: it has no LSTM, GRU or RNN"):
        repair(source, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.parametrize("part", ["W", "R", "B"])
def test_a_wrong_operator_is_not_kept(tmp_path: Path, part: str):
    """The comparison with the source by itself: it finds a cell that is slightly wrong."""

    def wrong(step: Any, opset: int) -> Cell | None:
        cell = cell_of(step, opset)
        assert cell is not None
        arrays = {"W": cell.W, "R": cell.R, "B": cell.B}
        changed = np.array(arrays[part])
        changed[0, 0] += 1e-3
        return Cell(cell.op_type, **{**arrays, part: changed}, h=cell.h, attributes=cell.attributes)

    source = loop_file(tmp_path / "a.onnx", "gru")
    with mock.patch.object(operators, "cell_of", wrong), pytest.raises(lstm_onnx.ModelError, match="it was not kept"):
        repair(source, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


class Model(nn.Module):
    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


def torch_file(path: Path, rnn: nn.Module, *, batch: int | None, batch_first: bool = True) -> Path:
    """By torch's older exporter, with a dynamic time axis."""
    axes = {1 if batch_first else 0: "time", **({} if batch else {0 if batch_first else 1: "batch"})}
    shape = (batch or 2, 5) if batch_first else (5, batch or 2)
    torch.onnx.export(
        Model(rnn).eval(),
        (torch.zeros(*shape, FEATURES),),
        path,
        dynamo=False,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": axes, "y": axes},
    )
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("rnn", "batch", "batch_first", "states"),
    [
        (nn.LSTM(FEATURES, UNITS, 2, batch_first=True), None, True, 4),
        (nn.LSTM(FEATURES, UNITS, 2, batch_first=True), 1, True, 4),
        (nn.GRU(FEATURES, UNITS), 3, False, 1),
        (nn.LSTM(FEATURES, UNITS, batch_first=True, bidirectional=True), 1, True, 0),
    ],
)
def test_files_of_torchs_exporter_get_states_and_any_batch(
    tmp_path: Path, rnn: nn.Module, batch: int | None, batch_first: bool, states: int
):
    source = torch_file(tmp_path / "a.onnx", rnn, batch=batch, batch_first=batch_first)
    result = repair(source, tmp_path / "b.onnx")
    assert len(result.states) == states
    assert result.batch_opened == (batch is not None)
    assert result.nodes < result.source_nodes
    x = random(5, 6, FEATURES)
    with torch.no_grad():
        wanted = rnn(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(run(tmp_path / "b.onnx", x), wanted, atol=2e-6)
    if not states:
        assert any("needs the end of the sequence" in note for note in result.notes)


class Strided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(FEATURES, FEATURES, 3, stride=2)
        self.rnn = nn.GRU(FEATURES, UNITS, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.rnn(self.conv(x.transpose(1, 2)).transpose(1, 2))


@pytest.mark.filterwarnings("ignore")
def test_chunks_that_are_too_short_to_run_are_no_proof_of_a_stream(tmp_path: Path):
    """A single step fails in the convolution, and longer chunks lack what it kept of the ones before."""
    source = torch_file(tmp_path / "a.onnx", Strided(), batch=None)
    result = repair(source, tmp_path / "b.onnx")
    assert result.states
    assert "48 steps in chunks of 8+8+8+8+8+8 give a different y" in result.not_streamable
    with pytest.raises(lstm_onnx.InputError, match="cannot be streamed"):
        lstm_onnx.load(tmp_path / "b.onnx", provider="cpu").stream()


@pytest.mark.parametrize("flat", [False, True])
def test_a_reshape_between_batch_and_time_is_a_transpose(tmp_path: Path, flat: bool):
    """Which optimizers write for a batch of one and a fixed time; `flat` has a fixed batch in another Reshape, too."""
    stored = {
        "W": random(1, 4 * UNITS, FEATURES),
        "R": random(1, 4 * UNITS, UNITS),
        "steps_first": np.array([6, 1, FEATURES]),
        "flat": np.array([6, 1, UNITS]) if flat else np.array([6, -1, UNITS]),
    }
    nodes = [
        node("Reshape", "x steps_first", "turned"),
        onnx.helper.make_node("LSTM", ["turned", "W", "R"], ["hs"], "/rnn/LSTM", hidden_size=UNITS),
        node("Reshape", "hs flat", "y"),
    ]
    values = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 6, FEATURES))]
    values.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (6, 1, UNITS)))
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8),
        tmp_path / "a.onnx",
    )
    assert repair(tmp_path / "a.onnx", tmp_path / "b.onnx").batch_opened
    x = random(3, 6, FEATURES)
    wanted = [run(tmp_path / "a.onnx", row[None]) for row in x]
    np.testing.assert_allclose(run(tmp_path / "b.onnx", x), np.concatenate(wanted, axis=1), atol=2e-6)


def test_a_loop_with_a_most_number_of_steps_is_no_operator(tmp_path: Path):
    source = loop_file(tmp_path / "a.onnx", "rnn", form="Loop")
    model = onnx.load(source)
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    loop.input[0] = "most"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64(500), "most"))
    onnx.save(model, source)
    with pytest.raises(lstm_onnx.ModelError, match="y has shape"):
        repair(source, tmp_path / "b.onnx")


@pytest.mark.parametrize("limit", ["count", "computed", "condition", "inner", "numbers"])
def test_a_loop_that_may_end_early_is_left_as_it_is(tmp_path: Path, limit: str):
    """After more steps, or for larger numbers, than those with which the files are compared."""
    fewer = {"condition": "Less number_next most", "inner": "Less number_next product", "numbers": "Less largest far"}
    counted = limit in ("count", "computed")
    most = "most" if limit == "count" else "product"
    outer = (
        node("ReduceMax", "x", "largest", keepdims=0),
        node("Mul", "thousand double", "product"),
        node("Min", f"n_steps {most}", "steps"),
    )
    op_type, inputs = fewer.get(limit, "Less number n_steps").split(maxsplit=1)
    source = loop_file(
        tmp_path / "a.onnx",
        "rnn",
        outer=outer,
        extra=(node(op_type, inputs, "fewer"), node("And", "more fewer", "until")),
        until="more" if counted else "until",
    )
    model = onnx.load(source)
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    loop.input[0] = "steps" if counted else "n_steps"
    numbers = {"most": np.int64(2000), "thousand": np.int64(1000), "double": np.int64(2), "far": np.float32(100)}
    for name, number in numbers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(number, name))
    onnx.save(model, source)
    with pytest.raises(lstm_onnx.ModelError, match="no loop that was recognised"):
        repair(source, tmp_path / "b.onnx")


@pytest.mark.parametrize("batch", ["b", 2])
def test_weights_that_are_inputs_get_states(tmp_path: Path, batch: int | str):
    """The batch of 2 stays: a second input without it leaves open which axis it is."""
    shapes = {"x": ("t", batch, FEATURES), "W": (1, 4 * UNITS, FEATURES), "R": (1, 4 * UNITS, UNITS)}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("LSTM", ["x", "W", "R"], ["y", "", ""], "/rnn/LSTM", hidden_size=UNITS)],
        "g",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ("t", 1, batch, UNITS))],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    onnx.save(model, tmp_path / "a.onnx")
    result = repair(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert result.states == {"rnn.h0": "rnn.hn", "rnn.c0": "rnn.cn"}
    feeds = {"x": random(6, 2, FEATURES), "W": random(*shapes["W"]), "R": random(*shapes["R"])}
    wanted = lstm_onnx.load(tmp_path / "a.onnx", provider="cpu").run(feeds)["y"]
    repaired = lstm_onnx.load(tmp_path / "b.onnx", provider="cpu")
    assert repaired.inputs["rnn.c0"].shape == (1, batch, UNITS)
    stream = repaired.stream(batch=2)
    parts = [stream.run({**feeds, "x": feeds["x"][start:end]})["y"] for start, end in ((0, 1), (1, 6))]
    np.testing.assert_allclose(np.concatenate(parts), wanted, atol=2e-6)


def test_a_file_without_anything_to_repair_says_so(tmp_path: Path):
    lstm_onnx.export(nn.LSTM(3, 4), tmp_path / "a.onnx")
    with pytest.raises(lstm_onnx.ModelError, match="its states are inputs, and its batch is dynamic"):
        repair(tmp_path / "a.onnx", tmp_path / "b.onnx")
    with pytest.raises(lstm_onnx.FileError):
        repair(tmp_path / "none.onnx", tmp_path / "b.onnx")


@pytest.mark.parametrize(
    ("unknown", "message"),
    [(False, "their batch of 1 cannot be made dynamic"), (True, "each of its sizes is fixed")],
)
def test_a_fixed_batch_of_states_that_are_packed_is_not_called_open(tmp_path: Path, unknown: bool, message: str):
    """The states are slices of one input, as other tools write them; the batch within the file may not be known."""
    helper = onnx.helper
    nodes = [
        node("Compress", "x all", "inner", axis=1) if unknown else node("Tanh", "x", "inner"),
        node("Split", "state", "h0 c0", axis=0, num_outputs=2),
        helper.make_node("LSTM", ["inner", "W", "R", "", "", "h0", "c0"], ["y", "hn", "cn"], hidden_size=UNITS),
        node("Concat", "hn cn", "after", axis=0),
    ]
    shapes = {"x": (1, 1, FEATURES), "state": (2, 1, UNITS), "y": (1, 1, 1, UNITS), "after": (2, 1, UNITS)}
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    weights = {"W": random(1, 4 * UNITS, FEATURES), "R": random(1, 4 * UNITS, UNITS), "all": np.array([True])}
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", values[:2], values[2:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(lstm_onnx.ModelError, match=f"nothing to repair: its states are inputs; {message}"):
        repair(tmp_path / "a.onnx", tmp_path / "b.onnx")


def test_a_loop_as_jax_writes_it_becomes_its_operator(tmp_path: Path):
    """Weights and the sequence are carried and never changed, products are Gemm, and results are cast to their type."""
    casts = (node("Cast", "h_next", "h_cast", to=1), node("Cast", "h_cast", "y_cast", to=1))
    source = loop_file(tmp_path / "a.onnx", "lstm", extra=casts, state="h_cast")
    model = onnx.load(source)
    loop = next(item for item in model.graph.node if item.op_type == "Loop")
    body = next(item.g for item in loop.attribute if item.name == "body")
    for item in body.node:
        if item.op_type == "MatMul":
            item.op_type = "Gemm"
            item.input.append("nothing")
            item.attribute.append(onnx.helper.make_attribute("beta", 0.0))
    next(item for item in body.node if item.output[0] == "y_t").input[0] = "y_cast"
    ends = list(body.output), list(loop.output)
    for name in ("kernel", "recurrent", "steps_first"):
        for item in body.node:
            item.input[:] = [f"{name}_in" if value == name else value for value in item.input]
        body.input.append(onnx.helper.make_tensor_value_info(f"{name}_in", onnx.TensorProto.FLOAT, None))
        body.node.append(node("Identity", f"{name}_in", f"{name}_out"))
        loop.input.append(name)
        ends[0].insert(-1, onnx.helper.make_empty_tensor_value_info(f"{name}_out"))
        ends[1].insert(-1, f"unused_{name}")
    del body.output[:], loop.output[:]
    body.output.extend(ends[0])
    loop.output.extend(ends[1])
    onnx.save(model, source)
    assert list(repair(source, tmp_path / "b.onnx").operators.values()) == ["LSTM"]
    x = random(3, 7, FEATURES)
    np.testing.assert_allclose(run(tmp_path / "b.onnx", x), run(source, x), atol=2e-6)

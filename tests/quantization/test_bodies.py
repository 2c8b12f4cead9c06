"""Layers in the bodies of Loop, Scan and If: each is proven, or stays float32 and is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

import lstm_onnx
from lstm_onnx.errors import ModelError
from lstm_onnx.onnxgraph import load_inlined
from lstm_onnx.quantization import quantize
from lstm_onnx.quantization.kernels import KERNELS
from lstm_onnx.quantization.proof import prove
from lstm_onnx.quantization.rewrite import Rewritten, quantize_model
from tests.quantization.operators import Case, model_of, saved

pytestmark = pytest.mark.sweep(4)

SIZE = 40


def value(name: str, kind: int = TensorProto.FLOAT, shape: list | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def step(weight: str = "matrix", state: str = "h", prefix: str = "") -> list[NodeProto]:
    """A product of a state and a tanh of it: `new`."""
    return [
        helper.make_node("MatMul", [state, weight], [f"{prefix}product"], name=f"{prefix}MatMul"),
        helper.make_node("Tanh", [f"{prefix}product"], [f"{prefix}new"], name=f"{prefix}Tanh"),
    ]


def loop_body(nodes: list[NodeProto], state: str, new: str, name: str = "body") -> GraphProto:
    again = helper.make_node("Identity", ["condition"], [f"{name}_again"], name=f"{name}_again")
    inputs = [value("step", TensorProto.INT64, []), value("condition", TensorProto.BOOL, []), value(state)]
    return helper.make_graph([*nodes, again], name, inputs, [value(f"{name}_again", TensorProto.BOOL, []), value(new)])


def loop(nodes: list[NodeProto], steps: str = "three") -> NodeProto:
    return helper.make_node("Loop", [steps, "", "x"], ["y"], name="loop", body=loop_body(nodes, "h", "new"))


def branch(nodes: list[NodeProto], output: str, name: str) -> GraphProto:
    return helper.make_graph(nodes, name, [], [value(output)])


def written(path: Path, nodes: list[NodeProto], inputs: list[onnx.ValueInfoProto] | None = None) -> Path:
    """A model of x ``(batch, 40)`` and other inputs, whose output is y, with weights `matrix` and `other`."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((SIZE, SIZE)).astype(np.float32) / 6 for name in ("matrix", "other")}
    weights |= {"three": np.array(3), "none": np.array(0), "yes": np.array(True)}
    given = [value("x", shape=["batch", SIZE]), *(inputs or [])]
    return saved(path, model_of(nodes, given, {"y": None}, weights))


def in_a_loop() -> list[NodeProto]:
    return [loop(step())]


def in_a_branch() -> list[NodeProto]:
    taken = branch(step(state="x"), "new", "taken")
    left = branch(step("other", "x", "left_"), "left_new", "left")
    return [helper.make_node("If", ["yes"], ["y"], name="if", then_branch=taken, else_branch=left)]


def in_a_loop_in_a_branch() -> list[NodeProto]:
    taken = branch([helper.make_node("Identity", ["x"], ["same"], name="same")], "same", "taken")
    inner = loop(step())
    inner.output[0] = "looped"
    return [helper.make_node("If", ["which"], ["y"], name="if", then_branch=taken,
                             else_branch=branch([inner], "looped", "left"))]  # fmt: skip


def in_a_scan_in_a_loop() -> list[NodeProto]:
    """In each step of the Loop the rows of h pass through a Scan one by one."""
    body = helper.make_graph(
        [*step(state="row", prefix="inner_"), helper.make_node("Identity", ["s"], ["s_after"], name="s_after")],
        "rows",
        [value("s", shape=[1]), value("row", shape=[SIZE])],
        [value("s_after", shape=[1]), value("inner_new", shape=[SIZE])],
    )
    scan = helper.make_node("Scan", ["start", "h"], ["s_last", "new"], name="scan", num_scan_inputs=1, body=body)
    start = helper.make_node("Constant", [], ["start"], name="start", value=numpy_helper.from_array(np.zeros(1, "f4")))
    return [loop([start, scan])]


BODIES = {
    "a Loop": in_a_loop,
    "both branches of an If": in_a_branch,
    "a Loop in a branch of an If": in_a_loop_in_a_branch,
    "a Scan in a Loop": in_a_scan_in_a_loop,
}
WHICH = [value("which", TensorProto.BOOL, [])]


def rewritten(path: Path) -> Rewritten:
    return quantize_model(load_inlined(path), path)


def rolled(done: Rewritten, name: str) -> Rewritten:
    done.initializers[name] = np.roll(done.initializers[name], 1, axis=-1).copy()
    return done


@pytest.mark.parametrize("kernel", ["MatMulInteger", "MatMulNBits"])
@pytest.mark.parametrize("where", BODIES)
def test_a_linear_layer_in_a_body_is_proven(where: str, kernel: str, tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx", BODIES[where](), WHICH if "Loop in" in where else [])
    result = quantize(path, tmp_path / "q.onnx", kernel=kernel)
    count = 2 if "both" in where else 1
    assert (len(result.quantized), result.proof.compared, result.kept) == (count, count, {})
    assert "unproven" not in (tmp_path / "q.onnx").read_bytes().decode("latin1")
    if kernel == "MatMulInteger":
        done = rolled(rewritten(path), "matrix/int8")
        with pytest.raises(ModelError, match="is wrong in int8"):
            prove(done, lstm_onnx.load(path, "cpu", threads=1))
    if "both" in where:
        with pytest.raises(ModelError, match="left_MatMul is wrong in int8"):
            prove(rolled(rewritten(path), "other/scale"), lstm_onnx.load(path, "cpu", threads=1))


@pytest.mark.parametrize("op_type", ["LSTM", "GRU"])
def test_a_recurrent_layer_in_a_loop_is_proven_in_each_step(op_type: str, tmp_path: Path) -> None:
    """Its final h is the next step's first."""
    case = Case(op_type, directions=2)
    model = case.model()
    node = model.graph.node[0]
    node.input[5] = "h"
    del model.graph.node[:], model.graph.output[:]
    body = loop_body([node], "h", "hn")
    model.graph.node.append(helper.make_node("Loop", ["three", "", "h0"], ["last"], name="loop", body=body))
    model.graph.output.append(value("last"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(3), "three"))
    path = saved(tmp_path / "m.onnx", model)
    assert quantize(path, tmp_path / "q.onnx").proof.compared == 1
    for name in ("R/0/int8", "W/1/scale") if op_type == "LSTM" else ("R/1/int8",):
        with pytest.raises(ModelError, match="is wrong in int8"):
            prove(rolled(rewritten(path), name), lstm_onnx.load(path, "cpu", threads=1))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_recurrent_layer_in_a_scan_is_proven_by_any_kernel(kernel: str, tmp_path: Path) -> None:
    """A Scan around a layer's own Scan: there MatMulNBits rounds in another way."""
    model = Case("LSTM").model()
    node = model.graph.node[0]
    node.input[5] = "h"
    body = helper.make_graph(
        [node, helper.make_node("Identity", ["hn"], ["each"], name="each")],
        "body",
        [value("h"), value("step", shape=[])],
        [value("hn"), value("each")],
    )
    del model.graph.node[:], model.graph.output[:]
    scan = helper.make_node("Scan", ["h0", "steps"], ["last", "all"], name="scan", num_scan_inputs=1, body=body)
    model.graph.node.append(scan)
    model.graph.output.append(value("last"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "steps"))
    path = saved(tmp_path / "m.onnx", model)
    result = quantize(path, tmp_path / "q.onnx", kernel=kernel)
    assert (result.proof.compared, result.kept) == (1, {})


def growing() -> NodeProto:
    """A Loop in which the state grows by its own rows in each step."""
    longer = helper.make_node("Concat", ["new", "h"], ["longer"], name="longer", axis=0)
    return helper.make_node(
        "Loop", ["three", "", "x"], ["grown"], name="loop", body=loop_body([*step(), longer], "h", "longer")
    )


def test_what_cannot_be_compared_stays_float32_and_is_named(tmp_path: Path) -> None:
    last = helper.make_node("MatMul", ["grown", "other"], ["y"], name="last")
    path = written(tmp_path / "m.onnx", [growing(), last])
    result = quantize(path, tmp_path / "q.onnx")
    assert result.quantized == ("last",)
    assert result.proof.compared == 1
    assert list(result.kept) == ["MatMul"]
    assert result.notes[0].startswith("MatMul stays float32: it did not run on the inputs of its proof, or its values")
    with lstm_onnx.load(tmp_path / "q.onnx", provider="cpu") as model:
        assert model.metadata.quantization is not None
        assert model.metadata.quantization.unproven == ("MatMul",)
        assert model.run({"x": np.ones((2, SIZE), np.float32)})["y"].shape == (16, SIZE)
    entry = next(p.value for p in onnx.load(tmp_path / "q.onnx").metadata_props if p.key == "lstm_onnx.quantization")
    assert json.loads(entry) == {"kernel": "MatMulInteger", "layers": "all", "unproven": ["MatMul"]}


def test_a_loop_without_steps_is_not_proven(tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx", [loop(step(), "none")])
    with pytest.raises(ModelError, match=r"has no layer to quantize \(MatMul: it did not run on the inputs"):
        quantize(path, tmp_path / "q.onnx")
    assert not (tmp_path / "q.onnx").exists()


def test_branches_with_values_of_the_same_name_are_each_compared_with_their_own_weights(tmp_path: Path) -> None:
    branches = []
    for weight in ("matrix", "other"):
        nodes = step(weight, "x")
        nodes[0].name = f"by_{weight}"
        branches.append(branch(nodes, "new", weight))
    chosen = helper.make_node("If", ["which"], ["y"], name="if", then_branch=branches[0], else_branch=branches[1])
    path = written(tmp_path / "m.onnx", [chosen], WHICH)
    for which in (True, False):
        inputs = {"x": np.random.default_rng(0).standard_normal((3, SIZE)).astype(np.float32), "which": np.array(which)}
        result = quantize(path, tmp_path / "q.onnx", inputs=inputs)
        assert (set(result.quantized), result.proof.compared) == ({"by_matrix", "by_other"}, 2)

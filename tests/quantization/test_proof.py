"""The proof: right files pass, and each kind of wrong one is rejected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lstm_onnx
from lstm_onnx.errors import InputError, ModelError
from lstm_onnx.onnxgraph import load_inlined
from lstm_onnx.onnxgraph.nodes import nodes_of
from lstm_onnx.quantization import quantize
from lstm_onnx.quantization.proof import ROUNDINGS, prove
from lstm_onnx.quantization.rewrite import Rewritten, quantize_model
from tests.quantization.operators import CASES, Case, model_of, saved
from tests.runtime.models import exported


def rewritten(path: Path) -> Rewritten:
    return quantize_model(load_inlined(path), path)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_right_files_are_far_within_the_bound(case: Case, tmp_path: Path):
    path = saved(tmp_path / "m.onnx", case.model())
    proof = prove(rewritten(path), lstm_onnx.load(path, "cpu", threads=1))
    assert proof.compared == 1
    assert proof.ratio < ROUNDINGS / 4
    assert not proof.not_compared
    assert all(1e-5 < difference < 0.1 for difference in proof.differences.values())


def linear_and_embedding(path: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = {
        "table": rng.standard_normal((50, 32)).astype(np.float32),
        "matrix": rng.standard_normal((32, 40)).astype(np.float32),
        "rows": rng.standard_normal((48, 40)).astype(np.float32),
        "bias": rng.standard_normal(48).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"], name="embed"),
        helper.make_node("MatMul", ["embedded", "matrix"], ["hidden"], name="linear"),
        helper.make_node("Reshape", ["hidden", "shape"], ["flat"], name="reshape"),
        helper.make_node("Gemm", ["flat", "rows", "bias"], ["out"], name="out", transB=1, alpha=0.5, beta=2.0),
    ]
    model = model_of(
        nodes, [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 5])], {"out": ["rows", 48]}, weights
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 40]), "shape"))
    return saved(path, model)


def test_linear_and_embedding_layers(tmp_path: Path):
    path = linear_and_embedding(tmp_path / "m.onnx")
    done = rewritten(path)
    proof = prove(done, lstm_onnx.load(path, "cpu", threads=1))
    assert set(done.quantized) == {"embed", "linear", "out"}
    assert proof.compared == 3
    assert 1e-4 < proof.differences["out"] < 0.05


def chosen_rows(path: Path) -> Path:
    """A product of the rows whose first number is above 0, and which of its results are."""
    rng = np.random.default_rng(0)
    weights = {
        "matrix": rng.standard_normal((40, 48)).astype(np.float32),
        "first": np.array(0),
        "zero": np.float32(0),
        "out": rng.standard_normal((48, 36)).astype(np.float32),
    }

    def above(value: str, rows: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Gather", [value, "first"], [f"{rows}/first"], axis=1),
            helper.make_node("Greater", [f"{rows}/first", "zero"], [f"{rows}/above"]),
            helper.make_node("Compress", [value, f"{rows}/above"], [rows], axis=0),
        ]

    nodes = [
        *above("x", "rows"),
        helper.make_node("Gemm", ["rows", "matrix"], ["hidden"], name="linear"),
        *above("hidden", "chosen"),
        helper.make_node("Gemm", ["chosen", "out"], ["y"], name="out"),  # as its weight
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 40])
    return saved(path, model_of(nodes, [x], {"y": ["chosen", 36]}, weights))


def test_rows_that_are_chosen_by_rounded_numbers_and_none(tmp_path: Path):
    path = chosen_rows(tmp_path / "m.onnx")
    x = np.random.default_rng(1).standard_normal((4000, 40)).astype(np.float32)
    result = quantize(path, tmp_path / "q.onnx", inputs={"x": x})
    assert result.proof.other_shapes == ("y",)
    assert "y has a different shape than in float32" in str(result)
    with lstm_onnx.load(tmp_path / "q.onnx", "cpu", threads=1) as model:
        assert model.run({"x": -np.abs(x)})["y"].shape == (0, 36)


def set_weight(suffix: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Rewritten], None]:
    def mutate(done: Rewritten) -> None:
        names = [name for name in done.initializers if name.endswith(suffix)]
        assert names
        done.initializers[names[0]] = np.ascontiguousarray(change(done.initializers[names[0]]))

    return mutate


def rolled(array: np.ndarray) -> np.ndarray:
    return np.roll(array, 1, axis=-1)


def one_doubled(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array[:3], array[3:4] * 2, array[4:]])


def swap_inputs(op_type: str, ending: str) -> Callable[[Rewritten], None]:
    def mutate(done: Rewritten) -> None:
        (node,) = (n for n in nodes_of(done.model.graph.node) if n.op_type == op_type and n.name.endswith(ending))
        node.input[0], node.input[1] = node.input[1], node.input[0]

    return mutate


def swap_outputs(ending: str) -> Callable[[Rewritten], None]:
    def mutate(done: Rewritten) -> None:
        (node,) = (n for n in nodes_of(done.model.graph.node) if n.name.endswith(ending))
        node.output[0], node.output[1] = node.output[1], node.output[0]

    return mutate


def zero_state(done: Rewritten) -> None:
    (scan,) = (node for node in done.model.graph.node if node.op_type == "Scan")
    scan.input[0] = "int8_zero"
    done.model.graph.node.insert(0, helper.make_node("Sub", ["h0", "h0"], ["int8_zero"], name="zero_h"))


MUTANTS = {
    "a weight's outputs rolled": set_weight("R/int8", rolled),
    "W with its sign changed": set_weight("W/int8", np.negative),
    "scales rolled": set_weight("W/scale", rolled),
    "one scale doubled": set_weight("R/scale", one_doubled),
    "the bias dropped": set_weight("/bias", np.zeros_like),
    "another zero point": set_weight("int8/uint8/128", lambda array: array - 1),
    "the input and output gate exchanged": swap_outputs("/Split_iof"),
    "the initial state ignored": zero_state,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_file_is_rejected(name: str, tmp_path: Path):
    path = saved(tmp_path / "m.onnx", Case("LSTM").model())
    done = rewritten(path)
    assert prove(done, lstm_onnx.load(path, "cpu", threads=1)).ratio <= ROUNDINGS
    MUTANTS[name](done)
    with pytest.raises(ModelError, match="layer is wrong in int8"):
        prove(done, lstm_onnx.load(path, "cpu", threads=1))


@pytest.mark.parametrize("gate", ["i", "o", "f"])
def test_wrong_peepholes_are_rejected(gate: str, tmp_path: Path):
    path = saved(tmp_path / "m.onnx", Case("LSTM", gain=2, peepholes=True).model())
    done = rewritten(path)
    set_weight(f"P_{gate}", rolled)(done)
    with pytest.raises(ModelError, match="layer is wrong in int8"):
        prove(done, lstm_onnx.load(path, "cpu", threads=1))


@pytest.mark.parametrize("suffix", ["table/rows/int8", "matrix/scale", "rows/transposed/0.5/int8"])
def test_a_wrong_linear_or_embedding_layer_is_rejected(suffix: str, tmp_path: Path):
    path = linear_and_embedding(tmp_path / "m.onnx")
    done = rewritten(path)
    set_weight(suffix, rolled)(done)
    with pytest.raises(ModelError, match="is wrong in int8"):
        prove(done, lstm_onnx.load(path, "cpu", threads=1))


@pytest.mark.parametrize("suffix", ["l0/R/int8", "l0/W_hr/int8", "l0/W/scale"])
def test_products_in_the_body_of_a_projected_layer_are_compared(suffix: str, tmp_path: Path):
    exported(tmp_path / "m.onnx", input_size=20, hidden_size=40, proj_size=30)
    done = rewritten(tmp_path / "m.onnx")
    assert prove(done, lstm_onnx.load(tmp_path / "m.onnx", "cpu", threads=1)).compared == 3
    set_weight(suffix, rolled)(done)
    with pytest.raises(ModelError, match="is wrong in int8"):
        prove(done, lstm_onnx.load(tmp_path / "m.onnx", "cpu", threads=1))


def test_a_file_that_is_not_proven_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = saved(tmp_path / "m.onnx", Case("GRU").model())
    monkeypatch.setattr("lstm_onnx.quantization.proof.ROUNDINGS", 1e-9)
    with pytest.raises(ModelError, match="the file is not kept"):
        quantize(path, tmp_path / "q.onnx")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["m.onnx"]


def test_inputs_may_be_given_and_must_fit(tmp_path: Path):
    case = Case("RNN")
    path = saved(tmp_path / "m.onnx", case.model())
    assert quantize(path, tmp_path / "q.onnx", inputs=case.feeds(4, 2)).proof.compared == 1
    with pytest.raises(InputError, match="x"):
        quantize(path, tmp_path / "q.onnx", inputs={"x": np.zeros((2, 2, 3), np.float32)})


def after_a_root(path: Path, kernel: str) -> Path:
    """A Linear and a recurrent layer, of the square roots of its input, which are NaN for half of what is drawn."""
    model = Case("LSTM" if kernel == "DynamicQuantizeLSTM" else "GRU", inputs=32, states=False).model()
    model.graph.node[0].input[0] = "linear"
    model.graph.node.insert(0, helper.make_node("Sqrt", ["x"], ["root"], name="root"))
    model.graph.node.insert(1, helper.make_node("MatMul", ["root", "M"], ["linear"], name="linear"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(32, 32, dtype=np.float32) * 0.5, "M"))
    return saved(path, model)


@pytest.mark.parametrize("kernel", ["MatMulInteger", "MatMulNBits", "DynamicQuantizeLSTM"])
def test_rows_that_are_not_finite_must_be_nan_and_others_are_compared(kernel: str, tmp_path: Path):
    path = after_a_root(tmp_path / "m.onnx", kernel)
    x = np.abs(np.random.default_rng(0).standard_normal((5, 3, 32)).astype(np.float32))
    drawn = quantize(path, tmp_path / "q.onnx", kernel=kernel).proof
    assert drawn.compared == 2  # on positive inputs
    assert all(0 < difference < 0.1 for difference in drawn.differences.values())
    x[2, 1] = -1
    given = quantize(path, tmp_path / "q.onnx", kernel=kernel, inputs={"x": x}).proof
    assert given.compared == 2
    assert given.ratio < ROUNDINGS / 4


def test_a_nan_that_vanishes_is_rejected(tmp_path: Path):
    path = after_a_root(tmp_path / "m.onnx", "MatMulInteger")
    done = rewritten(path)
    (zero,) = (node for node in done.model.graph.node if node.name == "linear/zero")
    (name,) = (name for name, array in done.initializers.items() if array.shape == (32, 1))
    done.initializers["first"] = np.eye(32, 1, dtype=np.float32)
    done.initializers[name] = np.zeros((32, 1), np.float32)
    zero.op_type, zero.input[1] = "ReduceMin", "axes"  # a number that no NaN reaches, times 0
    done.initializers["axes"] = np.array([-1])
    model = lstm_onnx.load(path, "cpu", threads=1)
    x = np.ones((5, 3, 32), np.float32)
    x[2, 1] = -1
    with pytest.raises(ModelError, match="linear is wrong in int8"):
        prove(done, model, inputs={"x": x})


def test_numbers_that_overflow_float32_do_so_in_the_file(tmp_path: Path):
    matrix = np.full((32, 36), 0.5, np.float32)
    matrix[:, 3] = 3e38
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32])
    node = helper.make_node("MatMul", ["x", "M"], ["y"], name="linear")
    path = saved(tmp_path / "m.onnx", model_of([node], [x], {"y": ["batch", 36]}, {"M": matrix}))
    proof = quantize(path, tmp_path / "q.onnx", inputs={"x": np.full((2, 32), 2, np.float32)}).proof
    assert proof.ratio < ROUNDINGS / 4
    assert np.isfinite(proof.differences["y"])

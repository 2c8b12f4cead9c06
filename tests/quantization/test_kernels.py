"""The kernels that a user may choose: proven like the default, and what each keeps and gives up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from torch import nn

import lstm_onnx
from lstm_onnx.errors import ConfigError, ModelError
from lstm_onnx.onnxgraph import load_inlined
from lstm_onnx.quantization import quantize
from lstm_onnx.quantization.block_products import block_size, quantize_blocks, quantize_row_blocks
from lstm_onnx.quantization.dynamic_lstm import quantize_all
from lstm_onnx.quantization.proof import ROUNDINGS, prove
from lstm_onnx.quantization.rewrite import Rewritten, quantize_model
from tests.quantization.operators import CASES, Case, saved
from tests.runtime.models import exported

pytestmark = pytest.mark.sweep(4)

DYNAMIC, BLOCKS, LARGE = "DynamicQuantizeLSTM", "MatMulNBits", "MatMulNBits-256"
FORMS = [(kernel, case) for case in CASES for kernel in (DYNAMIC, BLOCKS) if kernel == BLOCKS or case.op_type == "LSTM"]
FORMS += [(LARGE, Case(op_type, 2, inputs=300, hidden=128, lengths=True)) for op_type in ("LSTM", "GRU", "RNN")]


def rewritten(folder: Path, case: Case, kernel: str) -> tuple[Path, Rewritten]:
    path = saved(folder / "m.onnx", case.model())
    return path, quantize_model(load_inlined(path), path, kernel=kernel)


@pytest.mark.sweep(4)
@pytest.mark.parametrize(("kernel", "case"), FORMS, ids=str)
def test_every_operator_is_proven(kernel: str, case: Case, tmp_path: Path):
    path, done = rewritten(tmp_path, case, kernel)
    proof = prove(done, lstm_onnx.load(path, "cpu", threads=1))
    assert proof.compared == 1
    assert proof.ratio < 8
    assert 0 < max(proof.differences.values()) < 0.1


@pytest.mark.parametrize("kernel", [DYNAMIC, BLOCKS])
@pytest.mark.parametrize("suffix", ["W/int8", "R/int8", "R/scale", "/bias"])
def test_a_wrong_file_is_rejected(kernel: str, suffix: str, tmp_path: Path):
    path, done = rewritten(tmp_path, Case("LSTM"), kernel)
    assert prove(done, lstm_onnx.load(path, "cpu", threads=1)).ratio <= ROUNDINGS
    suffix = suffix.replace("/", "/blocks/") if kernel == BLOCKS and suffix != "/bias" else suffix
    (name,) = (name for name in done.initializers if name.endswith(suffix))
    array = done.initializers[name]
    done.initializers[name] = np.ascontiguousarray(np.roll(array, 1, axis=0 if kernel == BLOCKS else -1))
    with pytest.raises(ModelError, match="layer is wrong in int8"):
        prove(done, lstm_onnx.load(path, "cpu", threads=1))


@pytest.mark.parametrize("kernel", [DYNAMIC, BLOCKS])
def test_a_file_says_its_kernel_and_is_valid(kernel: str, tmp_path: Path):
    exported(tmp_path / "m.onnx", input_size=40, hidden_size=70, bidirectional=True)
    result = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", kernel=kernel)
    assert result.num_bytes < 0.5 * result.source_bytes
    model = onnx.load(tmp_path / "q.onnx")
    onnx.checker.check_model(model, full_check=True)
    props = {item.key: item.value for item in model.metadata_props}
    assert json.loads(props["lstm_onnx.quantization"])["kernel"] == kernel
    found = lstm_onnx.inspect(tmp_path / "q.onnx").lstms
    assert {info.hidden_size for info in found} == {70}
    assert {info.dtype for info in found} == {"int8"}
    assert all(kernel in " ".join((info.kind, *info.notes)) for info in found)


def test_a_layer_that_the_kernel_does_not_compute_is_refused(tmp_path: Path):
    path = saved(tmp_path / "gru.onnx", Case("GRU").model())
    exported(tmp_path / "projected.onnx", input_size=20, hidden_size=40, proj_size=30)
    unnamed = onnx.load(path)
    next(node for node in unnamed.graph.node if node.op_type == "GRU").name = ""
    made = next(node for node in unnamed.graph.node if node.op_type == "GRU").output[0]
    onnx.save(unnamed, tmp_path / "unnamed.onnx")
    refused = {path: "layer is a GRU", tmp_path / "unnamed.onnx": f"{made} is a GRU"}
    for file, kind in {**refused, tmp_path / "projected.onnx": "l0/Scan is a projected LSTM"}.items():
        with pytest.raises(ModelError, match=f"{kind}, and DynamicQuantizeLSTM .* use kernel MatMulInteger or MatM"):
            quantize(file, tmp_path / "q.onnx", kernel=DYNAMIC)
    assert quantize(tmp_path / "projected.onnx", tmp_path / "q.onnx", kernel=BLOCKS).proof.compared == 3
    with pytest.raises(ConfigError, match="kernel = 'fast' is not possible; it must be one of MatMulInteger, "):
        quantize(path, tmp_path / "q.onnx", kernel="fast")


@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
def test_blocks_give_a_row_alone_the_bits_that_it_has_in_a_batch(op_type: str, tmp_path: Path):
    case = Case(op_type, inputs=130, hidden=70)
    quantize(saved(tmp_path / "m.onnx", case.model()), tmp_path / "q.onnx", kernel=BLOCKS)
    session = ort.InferenceSession(tmp_path / "q.onnx")
    feeds = case.feeds(5, 3)
    together = session.run(["y"], feeds)[0]
    for row in range(3):
        alone = session.run(["y"], {name: array[:, row : row + 1] for name, array in feeds.items()})[0]
        assert np.array_equal(alone[:, :, 0], together[:, :, row])


@pytest.mark.sweep(4)
@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["x", "h0", "c0"])
@pytest.mark.parametrize("kernel", [DYNAMIC, BLOCKS])
def test_what_is_not_finite_makes_its_own_row_nan(kernel: str, place: str, number: float, tmp_path: Path):
    case = replace(Case("LSTM", 2, lengths=True))
    quantize(saved(tmp_path / "m.onnx", case.model()), tmp_path / "q.onnx", kernel=kernel)
    session = ort.InferenceSession(tmp_path / "q.onnx")
    feeds = case.feeds(6, 3)
    feeds["lengths"] = np.array([6, 4, 5], np.int32)
    if place == "x":
        feeds["x"][2, 1, 4] = number
    else:
        feeds[place][:, 1, 4] = number
    y, hn = session.run(["y", "hn"], feeds)
    first = 2 if place == "x" else 0
    if place != "c0" or kernel == DYNAMIC:  # of an infinite c alone, one h is finite
        assert np.isnan(y[first:4, 0, 1]).all()
        assert np.isnan(hn[0, 1]).all()
    assert np.isfinite(y[:first, 0, 1]).all()
    assert np.isfinite(y[:, :, [0, 2]]).all()
    assert not y[4:, :, 1].any()


@pytest.mark.parametrize(
    ("features", "size"),
    [(1, 64), (64, 64), (65, 128), (80, 128), (128, 128), (130, 64), (200, 256), (300, 64), (512, 256)],
)
def test_larger_blocks_where_they_need_no_more_to_fill_them_up(features: int, size: int):
    assert block_size(LARGE, features) == size
    assert block_size(BLOCKS, features) == 64
    weight = quantize_blocks(np.ones((features, 2), np.float32), LARGE)
    assert weight.integers.shape == (2, -(-features // size), size)
    assert weight.integers.size == quantize_blocks(np.ones((features, 2), np.float32)).integers.size


def test_large_blocks_in_a_file_its_proof_and_what_inspect_says(tmp_path: Path):
    module = nn.LSTM(256, 128)
    lstm_onnx.export(module, tmp_path / "m.onnx")
    result = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", kernel=LARGE)
    small = quantize(tmp_path / "m.onnx", tmp_path / "b.onnx", kernel=BLOCKS)
    assert result.num_bytes < 0.97 * small.num_bytes
    assert result.proof.ratio < 8
    (info,) = lstm_onnx.inspect(tmp_path / "q.onnx").lstms
    assert info.notes == ("MatMulNBits-256: a scale for each 128 or 256 features of a row and of an output feature",)
    report = lstm_onnx.verify(module, tmp_path / "q.onnx", mutants="quick")
    assert report
    assert {mutant.outcome for mutant in report.mutants} == {"rejected"}
    assert not any(case.kind == "alone" for case in report.cases)
    x = np.random.default_rng(0).standard_normal((20, 3, 256), np.float32)
    model = lstm_onnx.load(tmp_path / "q.onnx", provider="cpu", threads=1)
    together = model(x)[0]
    alone = np.concatenate([model(x[:, row : row + 1])[0] for row in range(3)], axis=1)
    np.testing.assert_allclose(alone, together, rtol=0, atol=5e-3)


@pytest.mark.parametrize("kernel", [BLOCKS, LARGE])
def test_rows_whose_zero_points_outweigh_their_products_are_no_false_alarm(kernel: str, tmp_path: Path):
    """As after a ReLU: the kernel adds the zero points' part in float32, and it nearly cancels."""
    case = Case("LSTM", inputs=512, hidden=64, gain=3)
    feeds = case.feeds(6, 3)
    feeds["x"] = 4 * np.abs(feeds["x"]) + 2
    path = saved(tmp_path / "m.onnx", case.model())
    assert quantize(path, tmp_path / "q.onnx", kernel=kernel, inputs=feeds).proof.ratio < 4


@pytest.mark.parametrize("kernel", [BLOCKS, LARGE])
def test_weights_of_zeros_are_not_rounded(kernel: str, tmp_path: Path):
    model = Case("LSTM", inputs=64, hidden=16).model()
    for tensor in model.graph.initializer:
        if tensor.name in ("W", "R"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
    assert quantize(saved(tmp_path / "m.onnx", model), tmp_path / "q.onnx", kernel=kernel).proof.ratio < 4


def test_a_product_by_blocks_is_that_of_the_numbers_which_they_stand_for():
    rng = np.random.default_rng(0)
    rows, weight = rng.standard_normal((3, 5, 200)).astype(np.float32), rng.standard_normal((200, 7))
    for kernel in (BLOCKS, LARGE):
        blocks = quantize_blocks(weight, kernel)
        integers, scales = quantize_row_blocks(rows, blocks.integers.shape[-1])
        signed = (blocks.integers.astype(np.float64) - 128) * blocks.scales[..., None]
        right = np.einsum("tbnk,onk->tbo", integers * scales[..., None].astype(np.float64), signed)
        np.testing.assert_allclose(blocks.product(rows), right, rtol=1e-12, atol=1e-12)
        assert blocks.product(rows, np.float32).dtype == np.float32


def test_integers_of_blocks_and_of_whole_batches():
    weight = quantize_blocks(np.linspace(-2, 1, 70 * 3, dtype=np.float32).reshape(70, 3))
    assert weight.integers.shape == (3, 2, 64)
    assert weight.scales.shape == (3, 2)
    assert (weight.integers[:, 1, 6:] == 128).all()  # what fills the last block up
    integers, scale = quantize_all(np.array([[0.0, -1.0], [3.0, 1.0]], np.float32))
    assert integers.tolist() == [[0, -64], [191, 64]]
    assert scale == np.float32(4 / 255)


@pytest.mark.parametrize("kernel", ["MatMulInteger", BLOCKS, DYNAMIC])
def test_layers_in_the_branches_of_an_if(kernel: str, tmp_path: Path):
    case = Case("LSTM")
    model = case.model()
    node = model.graph.node[0]
    out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
    twin = onnx.NodeProto.FromString(node.SerializeToString())
    twin.name = "other"
    del twin.output[:]
    twin.output.extend(f"other_{name}" for name in node.output)
    others = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in twin.output]
    branches = {
        "then_branch": helper.make_graph([node], "then", [], out),
        "else_branch": helper.make_graph([twin], "else", [], others),
    }
    chosen = helper.make_node("If", ["which"], [f"if_{name}" for name in node.output], name="if", **branches)
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.append(chosen)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in chosen.output)
    model.graph.input.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
    path = saved(tmp_path / "m.onnx", model)
    feeds = {**case.feeds(5, 2), "which": np.array(True)}
    result = quantize(path, tmp_path / "q.onnx", kernel=kernel, inputs=feeds)
    assert set(result.quantized) == {"layer", "other"}
    assert result.proof.compared == 2  # the branch that is not taken is made to run
    session = ort.InferenceSession(tmp_path / "q.onnx")
    alone = saved(tmp_path / "alone.onnx", case.model())
    # MatMulNBits rounds otherwise in a branch, so that it is not used there.
    quantize(alone, tmp_path / "alone-q.onnx", kernel=kernel.replace(BLOCKS, "MatMulInteger"))
    expected = ort.InferenceSession(tmp_path / "alone-q.onnx").run(["y"], case.feeds(5, 2))[0]
    for which in (True, False):
        found = session.run(["if_y"], {**feeds, "which": np.array(which)})[0]
        assert np.array_equal(found, expected)

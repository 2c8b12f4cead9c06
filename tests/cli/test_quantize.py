"""``lstm-onnx quantize``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lstm_onnx
from tests.hostile_files import ends_for_large_numbers
from tests.quantization.operators import Case, saved
from tests.runtime.models import exported


def test_an_int8_file_is_written_and_what_it_costs_is_printed(run_cli, tmp_path: Path):
    exported(tmp_path / "m.onnx", input_size=32, hidden_size=64)
    done = run_cli("quantize", "m.onnx", "-o", "q.onnx")
    assert (done.code, done.err) == (0, "")
    size = (tmp_path / "q.onnx").stat().st_size
    first, proof, *outputs = done.out.splitlines()
    assert first == f"q.onnx: {size:,} bytes, {size / (tmp_path / 'm.onnx').stat().st_size:.0%} of m.onnx"
    assert proof.startswith("int8: 1 layer, 1 compared with float64: largest error ")
    *differences, step, sequence = outputs
    assert [line.split()[0] for line in differences] == ["output", "hn", "cn"]
    assert all("differs from float32's by" in line for line in differences)
    assert all(line.endswith("on random inputs)") for line in differences)
    assert step.startswith("l0/LSTM: float32 is as fast or faster for one step")
    assert sequence.startswith("l0/LSTM: float32 is as fast or faster for whole sequences")
    assert lstm_onnx.inspect(tmp_path / "q.onnx").lstms[0].kind == "int8 LSTM"


def test_json(run_cli, tmp_path: Path):
    exported(tmp_path / "m.onnx", input_size=32, hidden_size=64)
    done = run_cli("quantize", "m.onnx", "-o", "q.onnx", "--json", "--seed", "3", "--layers", "recurrent")
    result = json.loads(done.out)
    assert (done.code, result["path"], result["quantized"], result["kept"]) == (0, "q.onnx", ["l0/LSTM"], {})
    assert result["proof"]["ratio"] < 8
    assert set(result["proof"]["differences"]) == {"output", "hn", "cn"}


def test_what_cannot_be_quantized_is_an_error_and_leaves_nothing(run_cli, tmp_path: Path):
    exported(tmp_path / "half.onnx", dtype="float16")
    done = run_cli("quantize", "half.onnx", "-o", "q.onnx")
    assert done.code == 2
    assert "half.onnx: has no layer to quantize (l0/LSTM: its weights are float16)" in done.err
    for output, words in (("-", "not written to stdout"), ("q.pt", "is not an ONNX file"), ("half.onnx", "half.onnx")):
        done = run_cli("quantize", "half.onnx", "-o", output)
        assert done.code == 2
        assert words in done.err
    assert run_cli("quantize", "none.onnx", "-o", "q.onnx").code == 2
    assert run_cli("quantize", "half.onnx").code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half.onnx"]


def test_the_kernel_and_the_inputs_may_be_chosen(run_cli, tmp_path: Path):
    exported(tmp_path / "m.onnx", input_size=32, hidden_size=64)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((7, 2, 32)))
    done = run_cli("quantize", "m.onnx", "-o", "q.onnx", "--kernel", "DynamicQuantizeLSTM", "--data", "x.npy", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["proof"]["compared"] == 1
    assert lstm_onnx.inspect(tmp_path / "q.onnx").lstms[0].kind == "DynamicQuantizeLSTM"
    done = run_cli("quantize", "m.onnx", "-o", "q.onnx", "--data", "x.npy")
    assert done.out.count("(root mean square, on your data)") == 3
    np.save(tmp_path / "x.npy", np.zeros((7, 2, 3)))
    done = run_cli("quantize", "m.onnx", "-o", "r.onnx", "--data", "x.npy")
    assert done.code == 2
    assert "x.npy: input has shape (7, 2, 3)" in done.err
    assert not (tmp_path / "r.onnx").exists()


@pytest.mark.skipif(os.name != "posix", reason="on Windows it runs in this process")
def test_a_file_that_ends_the_process_of_onnx_runtime_is_an_error(run_cli, tmp_path: Path):
    model = ends_for_large_numbers()
    model.graph.node.append(helper.make_node("MatMul", ["rows", "weight"], ["product"], name="linear"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((40, 40), np.float32), "weight"))
    for values, name in ((model.graph.input, "rows"), (model.graph.output, "product")):
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 40]))
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=np.float32([9]), rows=np.ones((2, 40), np.float32))
    done = run_cli("quantize", "m.onnx", "-o", "q.onnx", "--data", "x.npz")
    assert done.code == 2
    assert done.out == ""
    assert "m.onnx: the child process that ran it " in done.err
    assert "ended the process (SIG" in done.err
    assert not (tmp_path / "q.onnx").exists()


def test_a_file_of_another_tool_is_quantized(run_cli, tmp_path: Path):
    saved(tmp_path / "m.onnx", Case("GRU").model())
    done = run_cli("quantize", "m.onnx", "-o", "q.onnx", "--kernel", "MatMulNBits-256")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("q.onnx: ")
    assert lstm_onnx.inspect(tmp_path / "q.onnx").lstms[0].kind == "int8 GRU"

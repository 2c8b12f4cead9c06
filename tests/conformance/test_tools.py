"""Files that went through others' tools: onnx's converters, ONNX Runtime's optimizer, quantizer and half precision."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import compose, helper, version_converter

import lstm_onnx
from lstm_onnx.check import check
from lstm_onnx.errors import ModelError
from lstm_onnx.inspect import inspect

from .by_hand import PARAMETERS, H, inputs_of, run
from .nodes import Array, Node, compare

STATES = {"initial_h": "Y_h", "initial_c": "Y_c"}


@pytest.fixture
def node() -> Node:
    return Node(inputs_of("initial_h", "initial_c"))


@pytest.fixture
def path(node: Node, tmp_path: Path) -> Path:
    return node.save(tmp_path / "source.onnx")


def require_one(path: Path, **expected: Any) -> None:
    (found,) = inspect(path).lstms
    known = {"kind": "LSTM", "dtype": "float32", "parameters": PARAMETERS, "bytes": 4 * PARAMETERS}
    known |= {"states": tuple(STATES), "hidden_size": H, "notes": (), **expected}
    assert {name: getattr(found, name) for name in known} == known
    report = check(path, provider="cpu")
    assert report, str(report)


def require_streaming(
    path: Path, node: Node, expected: dict[str, Array], *, check: bool = True, **tolerance: float
) -> None:
    model = lstm_onnx.load(path, provider="cpu", states=STATES)
    stream = model.stream(batch=node.inputs["X"].shape[1], check=check)
    stream.state = {name: node.inputs[name] for name in STATES}
    parts = [stream(part) for part in np.split(node.inputs["X"], [1, 4])]
    state = stream.state
    results = {"Y": np.concatenate(parts), "Y_h": state["initial_h"], "Y_c": state["initial_c"]}
    compare(results, expected, **tolerance)


@pytest.mark.parametrize(("before", "after"), [(7, 22), (9, 14), (14, 21), (22, 14), (17, 26)])
def test_onnxs_version_converter(before, after, node, tmp_path):
    source = node.save(tmp_path / "source.onnx", opset=before)
    path = tmp_path / "m.onnx"
    onnx.save(version_converter.convert_version(onnx.load(source), after), path)
    assert inspect(path).opset == after
    require_one(path)
    compare(run(path, node.feeds()), node.reference())
    require_streaming(path, node, node.reference())


def test_onnxs_prefixes(node, path, tmp_path):
    onnx.save(compose.add_prefix(onnx.load(path), "encoder/"), tmp_path / "m.onnx")
    require_one(tmp_path / "m.onnx", name="encoder/rnn", states=("encoder/initial_h", "encoder/initial_c"))
    results = run(tmp_path / "m.onnx", {f"encoder/{name}": array for name, array in node.feeds().items()})
    compare(results, {f"encoder/{name}": array for name, array in node.reference().items()})


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_onnx_runtimes_optimizer(level, node, path, tmp_path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "m.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    require_one(tmp_path / "m.onnx")
    compare(run(tmp_path / "m.onnx", node.feeds()), node.reference())
    require_streaming(tmp_path / "m.onnx", node, node.reference())


@pytest.mark.parametrize("per_channel", [False, True])
def test_onnx_runtimes_quantizer(per_channel, node, path, tmp_path):
    """In 7 bits, which is right on any CPU; 8 of them saturate where there is no VNNI."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(path, tmp_path / "m.onnx", per_channel=per_channel, reduce_range=True)
    # The two matrices shrink to a byte a number; the biases stay.
    require_one(tmp_path / "m.onnx", kind="DynamicQuantizeLSTM", dtype="int8", bytes=PARAMETERS + 3 * 8 * H)
    compare(run(tmp_path / "m.onnx", node.feeds()), node.reference(), atol=2e-2, rtol=0)
    require_streaming(tmp_path / "m.onnx", node, node.reference(), check=False, atol=2e-2, rtol=0)


def half(path: Path, target: Path, **options: bool) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(path), **options), target)
    return target


def test_onnx_runtimes_half_precision(node, path, tmp_path):
    made = half(path, tmp_path / "m.onnx")
    require_one(made, dtype="float16", bytes=2 * PARAMETERS)
    results = run(made, {name: array.astype(np.float16) for name, array in node.feeds().items()})
    compare(results, node.reference(), atol=2e-3, rtol=0)


def test_half_precision_within_float32_is_out_of_order(node, path, tmp_path):
    """Its Casts come after the node that they feed: ONNX Runtime sorts them and onnx's checker refuses."""
    made = half(path, tmp_path / "m.onnx", keep_io_types=True)
    compare(run(made, node.feeds()), node.reference(), atol=2e-3, rtol=0)
    report = check(made, provider="cpu")
    assert [finding.rule for finding in report.failures] == ["valid-onnx"]
    assert "topologically sorted" in report.failures[0].message
    model = onnx.load(made)
    ranks = {
        item.name: 1 if item.op_type == "LSTM" else 0 if item.input[0] in node.inputs else 2
        for item in model.graph.node
    }
    model.graph.node.sort(key=lambda item: ranks[item.name])
    onnx.save(model, made)
    require_one(made, dtype="float16", bytes=2 * PARAMETERS)
    require_streaming(made, node, node.reference(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("command", ["make_streaming", "repair", "to_torch"])
def test_what_is_out_of_order_is_put_in_order(command, tmp_path):
    """A node after the one that reads from it, as ONNX Runtime's float16 converter puts the Casts of inputs."""
    plain = Node(inputs_of())
    model = onnx.load(plain.save(tmp_path / "plain.onnx"))
    model.graph.node[0].input[0] = "later"
    model.graph.node.append(helper.make_node("Neg", ["X"], ["later"], "later"))
    made = tmp_path / "m.onnx"
    onnx.save(model, made)
    x = plain.inputs["X"]
    whole = lstm_onnx.load(made, provider="cpu").run({"X": x})
    if command == "to_torch":
        results = lstm_onnx.to_torch(made)(torch.from_numpy(x))
        compare({name: array.detach().numpy() for name, array in results.items()}, whole)
        return
    options = {"time": {"X": 0}} if command == "make_streaming" else {}
    getattr(lstm_onnx, command)(made, tmp_path / "t.onnx", **options)
    compare(lstm_onnx.load(tmp_path / "t.onnx", provider="cpu").stream(batch=x.shape[1]).run({"X": x}), whole)


def test_the_default_domain_by_its_long_name(node, path, tmp_path):
    """ONNX Runtime and `inspect` take ai.onnx for the default domain; onnx's checker does not."""
    model = onnx.load(path)
    model.graph.node[0].domain = "ai.onnx"
    made = tmp_path / "m.onnx"
    onnx.save(model, made)
    compare(run(made, node.feeds()), node.reference())
    assert inspect(made).lstms[0].parameters == PARAMETERS
    assert "valid-onnx" in [finding.rule for finding in check(made, provider="cpu").failures]


def test_an_lstm_of_another_domain_is_none(node, path, tmp_path):
    model = onnx.load(path)
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    made = tmp_path / "m.onnx"
    onnx.save(model, made)
    with pytest.raises(ModelError, match=r"com\.example"):
        lstm_onnx.load(made, provider="cpu")
    found = inspect(made)
    assert (found.lstms, found.other_ops) == ((), {"com.example.LSTM": 1})
    report = check(made, provider="cpu")
    assert not report
    assert "com.example:LSTM" in str(report)

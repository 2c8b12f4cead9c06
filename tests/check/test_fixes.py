"""Fixes that can be done: in the file's own names, for what the node has, on the machine that is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lstm_onnx
from lstm_onnx.check import CheckReport, Finding, check
from lstm_onnx.metadata import Metadata
from tests.conformance.by_hand import SIZE, graph_of
from tests.conformance.nodes import save
from tests.module_files import module_file, with_initial

from .models import PLAIN, PROJECTED, H, by_hand, export


def _told(report: CheckReport, rule: str) -> Finding:
    (finding,) = [item for item in report.findings if item.rule == rule and item.violated]
    return finding


def _named_otherwise(folder: Path) -> Path:
    """One LSTM whose states are called as another tool may call them."""
    model = onnx.load(by_hand(folder))
    names = {"h": "hidden_in", "c": "memory/read", "hN": "hidden_out", "cN": "memory/write"}
    for node in model.graph.node:
        for ends in (node.input, node.output):
            for at, name in enumerate(ends):
                ends[at] = names.get(name, name)
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    path = folder / "named.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
def test_the_pairs_of_loose_states_are_the_files_own(quantized: bool, tmp_path: Path) -> None:
    path = _named_otherwise(tmp_path)
    if quantized:
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(path, tmp_path / "q.onnx")
        path = tmp_path / "q.onnx"
        assert [node.op_type for node in onnx.load(path).graph.node] == ["DynamicQuantizeLSTM"]
    fix = _told(check(path, provider="cpu"), "loose-states").fix
    pairs = json.loads(fix[fix.index("{") : fix.index("}") + 1])
    assert pairs == {"hidden_in": "hidden_out", "memory/read": "memory/write"}
    # The scale of int8 activations is taken from each call, so that chunks are not quite the whole.
    stream = lstm_onnx.load(path, "cpu", states=pairs).stream(check=not quantized)
    assert stream(np.ones((2, 1, 4), np.float32)).shape == (2, 1, 1, 3)


def test_loose_states_whose_ends_are_not_known_get_no_made_up_names(tmp_path: Path) -> None:
    model = onnx.load(_named_otherwise(tmp_path))
    model.graph.node.append(helper.make_node("Neg", ["hidden_out"], ["negated"]))
    model.graph.output[1].name = "negated"
    onnx.save(model, tmp_path / "m.onnx")
    fix = _told(check(tmp_path / "m.onnx", provider="cpu"), "loose-states").fix
    assert "STATE: OUTPUT" in fix


def _loop(folder: Path) -> Path:
    """y = x + 1 + 1, in a Loop."""
    body = helper.make_graph(
        [helper.make_node("Add", ["value", "one"], ["next"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["batch", 1]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["batch", 1]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["times", "", "x"], ["y"], "turn", body=body)],
        "loops",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [
            onnx.numpy_helper.from_array(np.array(2), "times"),
            onnx.numpy_helper.from_array(np.ones((1, 1), np.float32), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "loop.onnx")
    return folder / "loop.onnx"


def test_a_projection_of_ours_can_be_folded_and_a_loop_can_not(tmp_path: Path) -> None:
    ours = _told(check(export(tmp_path, PROJECTED), provider="auto"), "loop-on-cuda").fix
    assert 'projection = "fold"' in ours
    report = check(_loop(tmp_path), provider="auto")
    loop = _told(report, "loop-on-cuda")
    assert loop.message == "Loop runs step by step from the host"
    assert "fold" not in loop.fix
    assert loop.fix.startswith("run it on the CPU (--provider cpu)")
    assert not [item for item in check(_loop(tmp_path), provider="cpu").findings if item.rule == "loop-on-cuda"]


@pytest.mark.parametrize(
    ("values", "wanted", "unwanted"),
    [
        ({"clip": 100.0}, "leave clip out", "activations"),
        ({"activations": ["Sigmoid", "Relu", "Tanh"]}, "default activations", "clip"),
        ({"clip": 100.0, "input_forget": 1}, "leave clip out if nothing reaches it, and train with", "float file"),
    ],
)
def test_a_variant_is_mended_by_what_it_has(values: dict[str, Any], wanted: str, unwanted: str, tmp_path: Path) -> None:
    fix = _told(check(by_hand(tmp_path, **values), provider="auto"), "variant-on-cuda").fix
    assert fix.startswith("run it on the CPU (--provider cpu); for a GPU, ")
    assert wanted in fix
    assert unwanted not in fix


def test_an_int8_file_has_a_float_one(tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(by_hand(tmp_path), tmp_path / "q.onnx")
    fix = _told(check(tmp_path / "q.onnx", provider="auto"), "variant-on-cuda").fix
    assert fix == "run it on the CPU (--provider cpu), or use the float file for a GPU"


# --- converted since their export ---


def _half(source: Path, path: Path) -> Path:
    """All of a file in float16, its metadata as it was."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=False, op_block_list=[]), path)
    return path


@pytest.mark.sweep(3)
@pytest.mark.parametrize("kind", ["bare", "module with lengths", "module that starts from numbers"])
def test_a_file_converted_to_half_is_judged_by_its_graph(kind: str, tmp_path: Path) -> None:
    if kind == "bare":
        source = export(tmp_path, {**PLAIN, "num_layers": 2}, lengths=True)
    elif kind == "module with lengths":
        source = module_file("packed_wide_padding")
    else:
        start = np.random.default_rng(0).standard_normal((1, 1, 10)).astype(np.float32)
        source = with_initial(tmp_path / "i.onnx", module_file("policy"), {"state.0": start})
    path = _half(source, tmp_path / "half.onnx")
    report = check(path, provider="cpu")
    assert report, str(report)
    (note,) = [item.message for item in report.findings if item.rule == "metadata"]
    assert "converted since: " in note
    assert "is float16, was float32" in note
    assert "converted since" not in str(check(source, provider="cpu"))
    model, whole = lstm_onnx.load(path, "cpu"), lstm_onnx.load(source, "cpu")
    name = next(iter(model.inputs))
    shape = [dim if isinstance(dim, int) else 2 for dim in model.inputs[name].shape]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float16)
    feeds = {other: np.array([2, 1], info.dtype) for other, info in model.inputs.items() if other in model.counts}
    found, expected = model.run({name: x, **feeds}), whole.run({name: x.astype(np.float32), **feeds})
    for output, array in found.items():
        assert array.dtype == np.float16
        np.testing.assert_allclose(array, expected[output], rtol=0, atol=5e-3)
    if kind == "module that starts from numbers":
        assert model.metadata.initial["state.0"].dtype == np.float16
        assert model.stream().state["state.0"].any()


def test_the_dtype_of_the_graph_tells_whether_the_cpu_runs_it(tmp_path: Path) -> None:
    """A float64 LSTM is refused on the CPU; not one that was float64 when its metadata was written."""
    path = export(tmp_path, PLAIN)
    model = onnx.load(path)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    metadata = Metadata.from_metadata(entries)
    assert metadata.spec is not None
    entries["lstm_onnx.spec"] = entries["lstm_onnx.spec"].replace("float32", "float64")
    del model.metadata_props[:]
    helper.set_model_props(model, entries)
    onnx.save(model, path)
    assert lstm_onnx.load(path, "cpu")(np.ones((2, 1, 4), np.float32))[0].shape == (2, 1, 3)
    assert check(path, provider="cpu")


@pytest.mark.parametrize(("others", "fed_by"), [(["last", "wide", "hn"], "hn"), (["last", "wide"], "")])
def test_a_state_is_paired_only_with_an_output_of_its_shape(others: list[str], fed_by: str, tmp_path: Path):
    shapes = {"last": ("batch", H), "wide": (1, "batch", 2 * H), "hn": (1, "batch", H)}
    nodes = [
        helper.make_node("GRU", ["X", "W", "R", "", "", "h0"], ["Y", "hn"], "rnn", hidden_size=H),
        helper.make_node("Squeeze", ["hn", "axis"], ["last"]),
        helper.make_node("Concat", ["hn", "hn"], ["wide"], axis=2),
    ]
    stored = {name: np.zeros((1, 3 * H, size), np.float32) for name, size in (("W", SIZE), ("R", H))}
    inputs = {"X": ("time", "batch", SIZE), "h0": (1, "batch", H)}
    graph = graph_of(nodes, inputs, {name: shapes[name] for name in others}, {**stored, "axis": np.array([0])})
    fix = _told(check(save(graph, tmp_path / "m.onnx"), provider="cpu"), "loose-states").fix
    assert (f'states={{"h0": "{fed_by}"}}' in fix) is bool(fed_by)
    assert ("{STATE: OUTPUT}" in fix) is not fed_by

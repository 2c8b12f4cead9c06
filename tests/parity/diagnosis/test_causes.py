"""Causes by sizes, operators, placement and the size of the error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from lstm_onnx.parity.diagnosis import search as causes
from lstm_onnx.parity.expected import Call, Expected
from lstm_onnx.runtime.providers import Placement


def _sizes(*pairs: tuple[int, int]) -> list[dict[str, int]]:
    return [{"batch": batch, "time": time} for batch, time in pairs]


@pytest.mark.parametrize(
    ("passed", "failed", "axes"),
    [
        (_sizes((3, 7), (3, 1)), _sizes((1, 7), (5, 12)), ["batch"]),
        (_sizes((3, 7), (1, 7)), _sizes((3, 1), (5, 12)), ["time"]),
        (_sizes((3, 7)), _sizes((1, 1), (5, 12)), ["batch", "time"]),
        (_sizes((3, 7), (1, 7)), _sizes((5, 7)), []),  # two sizes run
        (_sizes((3, 7)), _sizes((3, 7)), []),  # it is not the size
        ([], _sizes((3, 7), (1, 1)), []),  # nothing runs
        (_sizes((3, 7), (1, 1)), [], []),
    ],
)
def test_a_size_is_baked_in_where_it_alone_works(
    passed: list[dict[str, int]], failed: list[dict[str, int]], axes: list[str]
) -> None:
    found = list(causes.baked_sizes(passed, failed))
    assert [cause.name for cause in found] == [f"baked shape: {axis}" for axis in axes]
    for cause in found:
        assert "it runs if" in cause.evidence


def _model(provider: str = "cpu", **fields: Any) -> Any:
    return SimpleNamespace(provider=provider, session=None, **fields)


def _graph(*operators: str, opset: int = 18) -> onnx.ModelProto:
    nodes = [helper.make_node(operator, ["x"], [f"y{index}"]) for index, operator in enumerate(operators)]
    return helper.make_model(helper.make_graph(nodes, "g", [], []), opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize(
    ("error", "precise", "name"),
    [
        (0.2, 0.006, "saturated int8"),
        (0.2, 0.1, "saturated int8"),
        (0.007, 0.0065, "int8 weights"),
        (0.2, np.inf, "int8 weights"),
    ],
)
def test_int8_saturates_where_full_sums_are_better_by_far(error: float, precise: float, name: str) -> None:
    found = list(causes.quantized(_model(), _graph("DynamicQuantizeLSTM"), error, lambda: precise))
    assert [cause.name for cause in found] == [name]
    assert "DynamicQuantizeLSTM" in found[0].evidence
    assert ("x64quantprecision=1" in found[0].fix) is (name == "saturated int8")


def test_float_files_and_gpus_have_no_int8_cause() -> None:
    def never() -> float:
        raise AssertionError

    assert list(causes.quantized(_model(), _graph("LSTM"), 1.0, never)) == []
    assert list(causes.quantized(_model("cuda"), _graph("DynamicQuantizeLSTM"), 1.0, never)) == []


@pytest.mark.parametrize(("opset", "fix"), [(22, "export at opset 18"), (18, "--require reports why")])
def test_operators_that_left_the_gpu(opset: int, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    placed = [
        Placement("l0/LSTM", "LSTM", "CPUExecutionProvider"),
        Placement("l1/LSTM", "LSTM", "CUDAExecutionProvider"),
        Placement("shape", "Shape", "CPUExecutionProvider"),
    ]
    monkeypatch.setattr(causes, "placements", lambda _: placed)
    (found,) = causes.left_gpu(_model("cuda"), _graph("LSTM", opset=opset))
    assert found.name == "opset fallback"
    assert "l0/LSTM ran on the CPU in a CUDA session" in found.evidence
    assert "l1/LSTM" not in found.evidence
    assert (f"opset is {opset}" in found.evidence) is (opset == 22)
    assert fix in found.fix
    assert list(causes.left_gpu(_model("cpu"), _graph("LSTM", opset=22))) == []
    monkeypatch.setattr(causes, "placements", lambda _: placed[1:])
    assert list(causes.left_gpu(_model("cuda"), _graph("LSTM", opset=opset))) == []


@pytest.mark.parametrize(
    ("dtype", "error", "simulated", "told"),
    [
        ("float32", 4e-4, 3e-4, True),
        ("float32", 4e-4, 1e-4, True),
        ("float32", 0.5, 3e-4, False),  # far more than that
        ("float32", 1e-6, 3e-4, False),
        ("float16", 4e-4, 3e-4, False),
        ("float32", 4e-4, 0.0, False),
    ],
)
def test_tf32_is_told_by_the_size_of_the_error(dtype: str, error: float, simulated: float, told: bool) -> None:
    assert [cause.name for cause in causes.tf32(dtype, error, simulated)] == (["TF32"] if told else [])


def test_streams_are_mispaired_where_a_state_gets_another_output() -> None:
    right = {"h0": "hn", "c0": "cn"}
    (found,) = causes.mispaired({"h0": "cn", "c0": "hn"}, right)
    assert found.name == "state order: streams"
    assert "h0 from cn, c0 from hn" in found.evidence
    assert "h0 from hn, c0 from cn" in found.fix
    assert list(causes.mispaired(right, right)) == []
    assert list(causes.mispaired({"other": "out"}, right)) == []


def test_the_largest_error_is_over_outputs_of_floating_point() -> None:
    reference = {"y": np.zeros(3), "tag": np.zeros(3, np.int64)}
    expected = Expected("c", (Call({}, reference, reference),), "float32", 1.0)
    outputs = {"y": np.array([0.0, -0.5, 0.25]), "tag": np.ones(3, np.int64)}
    assert causes.largest_error(expected, outputs) == 0.5
    assert causes.largest_error(expected, {}) == np.inf

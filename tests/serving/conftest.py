"""Models that are served, and one server for most tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.runtime import Model, load
from lstm_onnx.spec import ExportOptions

from ..runtime.models import exported
from .servers import Server, serving


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models: bare LSTMs, one of them bidirectional and one with lengths; and ``sum``, see `summing`."""
    folder = tmp_path_factory.mktemp("served")
    exported(folder / "lstm.onnx", num_layers=2)
    exported(folder / "wide.onnx", input_size=80, hidden_size=64, num_layers=2, batch_first=True)
    exported(folder / "both.onnx", bidirectional=True)
    exported(folder / "lengths.onnx", options=ExportOptions(lengths=True), batch_first=True)
    summing(folder / "sum.onnx")
    return folder


def summing(path: Path) -> None:
    """A stateful model as others write them, of integers and bools: total = state + where(keep, x, 0)."""
    nodes = [
        helper.make_node("Where", ["keep", "x", "zero"], ["kept"]),
        helper.make_node("Add", ["kept", "state"], ["total"]),
        helper.make_node("Identity", ["total"], ["stateN"]),
        helper.make_node("Neg", ["total"], ["negative"]),
    ]
    shape = ["batch", 2]
    graph = helper.make_graph(
        nodes,
        "summing",
        [
            helper.make_tensor_value_info("x", TensorProto.INT64, shape),
            helper.make_tensor_value_info("keep", TensorProto.BOOL, shape),
            helper.make_tensor_value_info("state", TensorProto.INT64, shape),
        ],
        [
            helper.make_tensor_value_info("total", TensorProto.INT64, shape),
            helper.make_tensor_value_info("negative", TensorProto.INT64, shape),
            helper.make_tensor_value_info("stateN", TensorProto.INT64, shape),
        ],
        [numpy_helper.from_array(np.zeros((), np.int64), "zero")],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    helper.set_model_props(model, {"lstm_onnx.states": '{"state": "stateN"}'})
    onnx.save(model, path)


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[Server]:
    files = [folder / f"{name}.onnx" for name in ("lstm", "wide", "both", "lengths", "sum")]
    with serving([*files, f"again={folder / 'lstm.onnx'}"], "--max-request-bytes", "1000000", longest=None) as running:
        yield running


@pytest.fixture(scope="session")
def lstm(folder: Path) -> Model:
    return load(folder / "lstm.onnx", "cpu", threads=1)


@pytest.fixture(scope="session")
def wide(folder: Path) -> Model:
    return load(folder / "wide.onnx", "cpu", threads=1)

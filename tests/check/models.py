"""Models for the checker's tests: exported, edited after that, or written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from lstm_onnx.check import CheckReport, check
from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.isolation.child import resolved
from lstm_onnx.runtime.providers import CPU, CUDA, Placement, open_session, placements
from lstm_onnx.spec import ExportOptions, LSTMSpec

PLAIN: dict[str, Any] = {"input_size": 4, "hidden_size": 3}
STACKED: dict[str, Any] = {**PLAIN, "num_layers": 2, "bidirectional": True, "batch_first": True}
ONE_LAYER: dict[str, Any] = {**STACKED, "num_layers": 1}
PROJECTED: dict[str, Any] = {"input_size": 4, "hidden_size": 5, "proj_size": 2}
H = 3
"""hidden_size of the LSTMs written by hand."""


def export(folder: Path, sizes: dict[str, Any], **options: Any) -> Path:
    spec = LSTMSpec(**sizes)
    rng = np.random.default_rng(1)
    state = {name: rng.normal(0, 0.3, shape).astype(spec.dtype) for name, shape in spec.parameter_shapes().items()}
    path = folder / "m.onnx"
    export_lstm(spec, ExportOptions(**options), state, path)
    return path


def edited(folder: Path, edit: Callable[[ModelProto], object], sizes: dict[str, Any], **options: Any) -> CheckReport:
    path = export(folder, sizes, **options)
    model = onnx.load_model(path)
    edit(model)
    path.write_bytes(model.SerializeToString())
    return check(path, provider="cpu")


def failing(report: CheckReport, rule: str) -> str:
    """What the failed findings of `rule` say."""
    assert not report
    found = [finding for finding in report.failures if finding.rule == rule]
    assert found, str(report)
    assert all(finding.fix for finding in found)
    return "\n".join(f"{finding.where}: {finding.message}" for finding in found)


def by_hand(
    folder: Path, *extra: Any, x: Any = ("time", "batch", 4), h: Any = (1, "batch", H), **keywords: Any
) -> Path:
    """A file that another tool could have made: one LSTM, states in and out, no metadata."""
    rng = np.random.default_rng(2)
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)
        for name, shape in (("W", (1, 4 * H, 4)), ("R", (1, 4 * H, H)))
    ]
    feature = keywords.pop("feature", "x")
    inputs = [("x", x), ("h", h), ("c", (1, "batch", H)), *keywords.pop("inputs", [])]
    lstm = helper.make_node(
        "LSTM", [feature, "W", "R", "", "", "h", "c"], ["y", "hN", "cN"], "rnn", hidden_size=H, **keywords
    )
    outputs = [("y", ("time", 1, "batch", H)), ("hN", (1, "batch", H)), ("cN", (1, "batch", H))]
    graph = helper.make_graph(
        [*[item for item in extra if not isinstance(item, TensorProto)], lstm],
        "other",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [*weights, *[item for item in extra if isinstance(item, TensorProto)]],
    )
    return saved(folder, graph)


def saved(folder: Path, graph: onnx.GraphProto, states: dict[str, str] | None = None, opset: int = 17) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if states is not None:
        helper.set_model_props(model, {"lstm_onnx.states": json.dumps(states)})
    path = folder / "other.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def set_initializer(model: ModelProto, name: str, values: Any) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.array(values), name))


def set_states(model: ModelProto, states: Any) -> None:
    next(entry for entry in model.metadata_props if entry.key == "lstm_onnx.states").value = json.dumps(states)


def fix_dim(model: ModelProto, index: int, axis: int, size: int) -> None:
    model.graph.input[index].type.tensor_type.shape.dim[axis].dim_value = size


class InThisProcess:
    """Stands for a child process, so that what it does can be changed; what it takes and gives goes through JSON."""

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass

    def call(self, function: str, arguments: Mapping[str, Any], _limits: object) -> Any:
        if function.endswith(":open_plainly"):
            return None  # it may end this process
        return json.loads(json.dumps(resolved(function)(**json.loads(json.dumps(arguments)))))


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.check.isolated.Child", InThisProcess)
    monkeypatch.setattr("lstm_onnx.isolation.process.Child", InThisProcess)


def fake_cuda(monkeypatch: pytest.MonkeyPatch, *on_cpu: str) -> None:
    """A machine with a GPU, on which nodes of the operators `on_cpu` are left to the CPU."""

    def opened(file: str, provider: str, *, every_node: bool) -> tuple[Any, str]:
        assert provider in ("auto", "cuda")
        assert not every_node  # check lists them all
        return open_session(file, "cpu")[0], "cuda"

    def placed(session: Any) -> list[Placement]:
        return [replace(item, provider=CPU if item.op_type in on_cpu else CUDA) for item in placements(session)]

    in_this_process(monkeypatch)
    monkeypatch.setattr("lstm_onnx.check.execution.open_session", opened)
    monkeypatch.setattr("lstm_onnx.check.execution.placements", placed)
    for module in ("examine", "execution"):
        monkeypatch.setattr(f"lstm_onnx.check.{module}.cuda_unavailable", lambda: None)

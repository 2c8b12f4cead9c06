"""Drawn configurations, end to end: nn.LSTM, export, the checker, parity on ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import Phase, given, note, settings
from onnx import numpy_helper

import lstm_onnx
from lstm_onnx import ExportOptions, LSTMSpec, WeightsError
from lstm_onnx.exporter.sources.torch_lstm import module_of, seeded_state
from lstm_onnx.exporter.weights import MAX_CONDITION

from ..strategies import SEEDS, export_options, specs

pytestmark = pytest.mark.sweep(6)

# No shrinking: a failing configuration is small enough to read, and each try is a whole export.
_PHASES = (Phase.explicit, Phase.generate)


def _duplicates(model: onnx.ModelProto) -> list[str]:
    seen: dict[tuple[object, ...], str] = {}
    found = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.size > 1:
            key = (array.dtype.name, array.shape, array.tobytes())
            found += [f"{seen[key]} = {tensor.name}"] if key in seen else []
            seen[key] = tensor.name
    return found


def _check(spec: LSTMSpec, options: ExportOptions, seed: int) -> None:
    state = seeded_state(spec, seed)
    module = module_of(spec, state)
    choices = {"lengths": options.lengths, "opset": options.opset}
    note(f"{spec} {options} seed {seed}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        projection = options.projection
        try:
            exported = lstm_onnx.export(module, path, projection=projection, **choices)
        except WeightsError as error:
            assert projection == "fold"
            assert spec.proj_size > 0
            assert "condition number" in str(error)  # noqa: PT017 - only some draws raise
            matrices = [value for name, value in state.items() if name.startswith("weight_hr")]
            assert max(np.linalg.cond(m.astype(np.float64)) for m in matrices) > MAX_CONDITION
            assert not path.exists()
            projection = "scan"
            exported = lstm_onnx.export(module, path, projection=projection, **choices)
        onnx.checker.check_model(path, full_check=True)
        model = onnx.load(path)
        counts = Counter(node.op_type for node in model.graph.node)
        scan = spec.proj_size > 0 and projection == "scan"
        assert counts["Scan"] == (spec.num_layers if scan else 0)
        assert counts["LSTM"] == (0 if scan else spec.num_layers)
        assert exported.nodes == len(model.graph.node)
        assert _duplicates(model) == []
        assert model.opset_import[0].version == options.opset
        names = [node.name for node in model.graph.node]
        assert "" not in names
        assert len(set(names)) == len(names)
        report = lstm_onnx.verify(module, path, provider="cpu", threads=1, seed=seed)
        assert report, str(report)
        assert any("lengths" in case.label for case in report.judged) == options.lengths
        assert report.notes == ()


@settings(max_examples=6, phases=_PHASES)
@given(spec=specs(), options=export_options(), seed=SEEDS)
def test_drawn_configurations_are_in_parity(spec: LSTMSpec, options: ExportOptions, seed: int) -> None:
    _check(spec, options, seed)


@pytest.mark.slow
@settings(max_examples=300, phases=_PHASES)
@given(spec=specs(), options=export_options(), seed=SEEDS)
def test_many_drawn_configurations_are_in_parity(spec: LSTMSpec, options: ExportOptions, seed: int) -> None:
    _check(spec, options, seed)


def test_a_duplicate_initializer_is_found() -> None:
    tensor = onnx.helper.make_tensor("a", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    again = onnx.helper.make_tensor("b", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    graph = onnx.helper.make_graph([], "g", [], [], [tensor, again])
    assert _duplicates(onnx.helper.make_model(graph)) == ["a = b"]

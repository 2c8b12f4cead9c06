"""One LSTM node and what goes into it, the file that holds it, and the comparison of what comes out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .onnx_lstm import Result, lstm

Array = np.ndarray[Any, Any]
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
"""The operator's, in its order."""
OUTPUTS = ("Y", "Y_h", "Y_c")
WEIGHTS = frozenset({"W", "R", "B", "P"})
ATOL, RTOL = 5e-6, 5e-6
"""Of float32 beside float64: of 3,600 drawn nodes the median was 2e-8 off, the worst 1.7e-6, on AVX2."""


@dataclass(frozen=True)
class Node:
    """An LSTM node: its inputs by the operator's names, its attributes, and the outputs that it has."""

    inputs: Mapping[str, Array]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = OUTPUTS

    @property
    def hidden_size(self) -> int:
        return int(self.inputs["R"].shape[2])

    def feeds(self, stored: Collection[str] = WEIGHTS) -> dict[str, Array]:
        """What a model takes that stores `stored`."""
        return {name: array for name, array in self.inputs.items() if name not in stored}

    def reference(self, *, clip_cell: bool = True) -> dict[str, Array]:
        """What it should give, in float64, by output."""
        arrays = [self.inputs.get(name) for name in INPUTS]
        result: Result = lstm(*arrays, **self.attributes, clip_cell=clip_cell)  # type: ignore[arg-type]
        return {name: array for name, array in zip(OUTPUTS, result, strict=True) if name in self.outputs}

    def save(
        self, path: Path, *, opset: int = 17, stored: Collection[str] = WEIGHTS, dtype: int = TensorProto.FLOAT
    ) -> Path:
        """Write it as a model with dynamic axes; what is not `stored` is an input."""
        directions = self.inputs["R"].shape[0]
        first = self.attributes.get("layout", 0) == 1
        state = ("batch", directions, self.hidden_size) if first else (directions, "batch", self.hidden_size)
        size = self.inputs["X"].shape[2]
        shapes: dict[str, tuple[int | str, ...]] = {
            "X": ("batch", "time", size) if first else ("time", "batch", size),
            "sequence_lens": ("batch",),
            "initial_h": state,
            "initial_c": state,
            "Y": ("batch", "time", *state[1:]) if first else ("time", *state),
            "Y_h": state,
            "Y_c": state,
        }
        node = helper.make_node(
            "LSTM",
            _trimmed([name if name in self.inputs else "" for name in INPUTS]),
            _trimmed([name if name in self.outputs else "" for name in OUTPUTS]),
            "rnn",
            hidden_size=self.hidden_size,
            **self.attributes,
        )
        graph = helper.make_graph(
            [node],
            "one_lstm",
            [_info(name, a, shapes, dtype) for name, a in self.inputs.items() if name not in stored],
            [helper.make_tensor_value_info(name, dtype, shapes[name]) for name in OUTPUTS if name in self.outputs],
            [numpy_helper.from_array(a, name) for name, a in self.inputs.items() if name in stored],
        )
        return save(graph, path, opset)


def save(graph: onnx.GraphProto, path: Path, opset: int = 17) -> Path:
    """Write a model of the oldest format that holds `opset`, so that any ONNX Runtime reads it."""
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=max(7, helper.find_min_ir_version_for(opsets)))
    path.write_bytes(model.SerializeToString())
    return path


def compare(actual: Mapping[str, Array], expected: Mapping[str, Array], atol: float = ATOL, rtol: float = RTOL) -> None:
    """The same names, shapes and, within the tolerance, numbers."""
    assert sorted(actual) == sorted(expected)
    for name, array in expected.items():
        assert actual[name].shape == array.shape, name
        assert np.isfinite(array).all(), name
        np.testing.assert_allclose(actual[name], array, rtol=rtol, atol=atol, err_msg=name)


def _info(name: str, array: Array, shapes: Mapping[str, tuple[int | str, ...]], dtype: int) -> onnx.ValueInfoProto:
    kind = TensorProto.INT32 if name == "sequence_lens" else dtype
    return helper.make_tensor_value_info(name, kind, shapes.get(name, array.shape))


def _trimmed(names: list[str]) -> list[str]:
    while names and not names[-1]:
        names.pop()
    return names

"""Every opset that a file can have, with operators that changed between them."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from onnx import helper
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lstm_onnx import ExportError
from lstm_onnx.exporter.lowering.opset_downgrade import downgrade_opset
from lstm_onnx.exporter.lowering.rename import TracedGraph
from lstm_onnx.onnxgraph.builder import Nodes
from lstm_onnx.spec import MAX_OPSET, MIN_OPSET
from tests.exporter.helpers import X_LENGTHS, made, right, with_lengths

pytestmark = pytest.mark.sweep(27)


class Everything(nn.Module):
    """Layer and batch norms, a convolution, padding, splitting, a masked mean, attention and trimming."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(3)
        self.plain = nn.LayerNorm(4, elementwise_affine=False)
        self.convolution = nn.Conv1d(3, 6, 3)
        self.batch_norm = nn.BatchNorm1d(6)
        self.lstm = nn.LSTM(6, 4, batch_first=True, bidirectional=True)
        self.query = nn.Linear(8, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.pad(self.norm(x).transpose(1, 2), (1, 1))
        x = self.batch_norm(self.convolution(x)).transpose(1, 2)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, counted = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        there, back = out.chunk(2, dim=-1)
        mask = torch.arange(out.size(1)).unsqueeze(0) < counted.unsqueeze(1)
        mean = (self.plain(there - back) * mask.unsqueeze(2)).sum(1) / counted.unsqueeze(1)
        scores = self.query(out).squeeze(2).masked_fill(~mask, -1e9)
        return (scores.softmax(1).unsqueeze(2) * out).sum(1), mean, back.amax(dim=1)


def _opsets() -> list[Any]:
    """Each third runs always: what is lowered to one goes through the steps of those above it."""
    every = range(MIN_OPSET, MAX_OPSET + 1)
    return [pytest.param(opset, marks=() if opset in every[::3] else pytest.mark.slow) for opset in every]


@pytest.mark.parametrize("opset", _opsets())
def test_every_opset_gives_torch_numbers(opset: int, tmp_path: Path) -> None:
    result = right(Everything(), with_lengths, X_LENGTHS, tmp_path, opset=opset)
    assert {item.domain: item.version for item in result.proto.opset_import} == {"": opset}
    onnx.checker.check_model(result.proto, full_check=True)


def test_an_operator_without_an_older_form_is_refused_by_name(tmp_path: Path) -> None:
    class Sampled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            out = self.lstm(x)[0].unsqueeze(1)
            return F.grid_sample(out, lengths.reshape(-1, 1, 1, 1).expand(-1, 2, 2, 2).float(), align_corners=False)

    with pytest.raises(ExportError, match=r"GridSample is not in opset 14; use opset 18 or later"):
        made(Sampled(), with_lengths(2, 4), X_LENGTHS, tmp_path, opset=14)
    assert not list(tmp_path.iterdir())


def lowered(node: onnx.NodeProto, opset: int, *, initializers: dict[str, np.ndarray] | None = None) -> TracedGraph:
    float32 = onnx.TensorProto.FLOAT
    dims: dict[str, tuple[int | str, ...]] = {"x": ("batch", 6), "like": ("batch",)}
    graph = TracedGraph(
        Nodes([node], initializers or {}), ["x"], list(node.output), dims, {"x": float32, "like": float32}
    )
    downgrade_opset(graph, opset)
    return graph


def test_reductions_take_their_axes_as_an_attribute() -> None:
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], name="n", keepdims=0, noop_with_empty_axes=0)
    graph = lowered(node, 17, initializers={"axes": np.array([1])})
    (made_node,) = graph.nodes.nodes
    assert list(made_node.input) == ["x"]
    assert {item.name: helper.get_attribute_value(item) for item in made_node.attribute} == {"keepdims": 0, "axes": [1]}
    assert graph.nodes.initializers == {}


def test_an_opset_that_torch_writes_is_left_alone() -> None:
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], name="n")
    assert lowered(node, 18, initializers={"axes": np.array([1])}).nodes.nodes == [node]


def test_a_part_of_a_shape_is_cut_out() -> None:
    graph = lowered(helper.make_node("Shape", ["x"], ["y"], name="n", start=0, end=1), 14)
    assert [node.op_type for node in graph.nodes.nodes] == ["Shape", "Slice"]


REFUSED = {
    "computed axes": (helper.make_node("ReduceSumSquare", ["x", "axes"], ["y"], name="here"), 17, "axes that are comp"),
    "nothing": (helper.make_node("ReduceMax", ["x"], ["y"], name="here", noop_with_empty_axes=1), 17, "does nothing"),
    "split": (
        helper.make_node("Split", ["x"], list("abcd"), name="here", axis=1, num_outputs=4),
        17,
        "unequal or dynamic",
    ),
    "pad": (helper.make_node("Pad", ["x", "p", "", "axes"], ["y"], name="here"), 17, "of some axes has no form"),
    "scatter": (
        helper.make_node("ScatterND", ["x", "i", "u"], ["y"], name="here", reduction="max"),
        15,
        "with a reduction has no form",
    ),
    "maximum": (
        helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], name="here", reduction="max"),
        17,
        "ScatterElements has no max in opset 17; use opset 18",
    ),
    "cast": (helper.make_node("CastLike", ["x", "other"], ["y"], name="here"), 14, "to a type that is not known"),
    "mean": (
        helper.make_node("LayerNormalization", ["x", "s"], ["y", "mean"], name="here"),
        16,
        "with its mean as an output",
    ),
    "unknown": (helper.make_node("Mish", ["x"], ["y"], name="here"), 17, "Mish is not in opset 17; use opset 18 or"),
    "attribute": (
        helper.make_node("Relu", ["x"], ["y"], name="here", slope=1),
        17,
        "Relu has no such form in opset 17",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_node_that_cannot_be_lowered_is_named(case: str) -> None:
    node, opset, problem = REFUSED[case]
    with pytest.raises(ExportError, match=rf"^here: .*{problem}"):
        lowered(node, opset)


def test_equal_parts_need_no_count_and_a_cast_like_is_a_cast() -> None:
    (split,) = lowered(helper.make_node("Split", ["x"], ["a", "b"], name="n", axis=1, num_outputs=2), 17).nodes.nodes
    assert [item.name for item in split.attribute] == ["axis"]
    (cast,) = lowered(helper.make_node("CastLike", ["x", "like"], ["y"], name="n"), 14).nodes.nodes
    assert (cast.op_type, cast.attribute[0].i) == ("Cast", onnx.TensorProto.FLOAT)

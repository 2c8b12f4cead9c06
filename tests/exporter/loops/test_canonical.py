"""Traces in a form in which equal steps are equal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx.exporter.loops.canonical import canonical
from lstm_onnx.exporter.loops.program import NotRolled
from lstm_onnx.exporter.tracing.torch_export import FixedGraph


def test_a_constant_of_vmap_is_not_read() -> None:
    def step(x: Tensor) -> Tensor:
        graph = torch.fx.Graph()
        graph.output(graph.get_attr("kept"))
        module = torch.fx.GraphModule({"kept": x}, graph)
        with pytest.raises(NotRolled, match="a tensor of torch"):
            canonical(FixedGraph(module, None, ()), nn.Module(), {})
        return x

    torch.vmap(step)(torch.ones(2, 3))

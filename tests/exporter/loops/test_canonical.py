"""Traces in a form in which equal steps are equal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from lstm_onnx.exporter.loops.canonical import canonical
from lstm_onnx.exporter.loops.program import NotRolled
from lstm_onnx.exporter.tracing.torch_export import FixedGraph


def test_a_constant_of_vmap_is_not_read() -> None:
    def step(x: Tensor) -> Tensor:
        graph = torch.fx.Graph()
        graph.output(graph.get_attr("kept"))
        module = torch.fx.GraphModule({"kept": x}, graph)
        with pytest.raises(NotRolled, match="a tensor of torch"):
            canonical(FixedGraph(module, None, ()), nn.Module(), ())
        return x

    torch.vmap(step)(torch.ones(2, 3))


@pytest.mark.parametrize("used", [False, True])
def test_random_numbers_may_be_drawn_if_no_output_follows_from_them(used: bool) -> None:
    def forward(x: Tensor) -> Tensor:
        mask = torch.bernoulli(x) + 1
        return x * mask if used else x * 2

    module = make_fx(forward, tracing_mode="fake", pre_dispatch=True)(torch.ones(2, 3))
    graph = FixedGraph(module, None, ())
    assert any("bernoulli" in str(node.target) for node in module.graph.nodes)
    if used:
        with pytest.raises(NotRolled, match="draws random numbers"):
            canonical(graph, nn.Module(), ())
    else:
        assert [str(node.target) for node in canonical(graph, nn.Module(), ()).nodes] == ["aten.mul.Tensor"]

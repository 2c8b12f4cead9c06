"""Graphs without writes in place are those that torch.export makes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.functional_module import FunctionalModule
from lstm_onnx.exporter.functional.make_functional import make_functional
from lstm_onnx.exporter.functional.resized_example import resize_example
from lstm_onnx.exporter.loops.canonical import canonical, canonical_program
from lstm_onnx.exporter.loops.proof import fingerprint
from lstm_onnx.exporter.tracing.torch_export import FixedGraph, exported_program, fixed_graph
from lstm_onnx.exporter.tracing.without_writes import changes_graph, without_writes

SIZES = {"batch": 2, "time": 7}


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.kept = nn.GRUCell(3, 4), nn.Buffer(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        h, out = x.data.new(x.shape[0], 4).zero_(), x.new_empty(x.shape[0], x.shape[1], 4)
        stack = torch.zeros(x.shape[0], 3, 4)
        rows = torch.arange(x.shape[0])
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h + stack[:, 0]).mul_(2.0)
            stack[:, 1:] = stack[:, :-1].clone()
            stack.select(1, 0).copy_(h)
            out[rows, t] = stack.mean(1)
        out[..., 0] += 1
        return out.transpose(0, 1).add_(0.5)


class Direct(nn.Module):
    """A graph that writes into what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2.0) + 1


def graph_of(module: nn.Module) -> tuple[FunctionalModule, FixedGraph, tuple[object, object]]:
    arguments = bind_arguments(module, torch.randn(2, 6, 3), {"x": {0: "batch", 1: "time"}})
    functional = make_functional(module.eval(), arguments)
    inputs, states = resize_example(functional, SIZES)
    return functional, fixed_graph(functional, inputs, states, lines=True), (inputs, states)


def test_they_compute_the_same_and_keep_the_lines() -> None:
    functional, graph, (inputs, states) = graph_of(Steps())
    assert changes_graph(graph)
    found = without_writes(functional, graph)
    assert found is not None
    trace = canonical(found, functional.stateful, (7, 2))
    other = canonical_program(exported_program(functional, inputs, states), (7, 2))  # type: ignore[arg-type]
    assert fingerprint(trace)[0] == fingerprint(other)[0]
    assert trace.structure == other.structure
    assert all("test_without_writes.py:" in (node.line or "") for node in trace.nodes)


def test_a_graph_that_writes_into_its_input_has_none() -> None:
    functional, graph, _ = graph_of(Steps())
    module = make_fx(Direct(), tracing_mode="fake", pre_dispatch=True)(torch.ones(2, 3))
    writing = replace(graph, module=module)
    assert changes_graph(writing)
    assert without_writes(functional, writing) is None

"""Operators of a trace that were called on tensors of the same form before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from lstm_onnx.exporter.tracing import repeated_operators
from lstm_onnx.exporter.tracing.repeated_operators import operators_remembered

proxy_tensor: Any = pytest.importorskip("torch.fx.experimental.proxy_tensor")
STEPS = 5


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_operators, "_KNOWN", {})


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.norm = nn.Linear(3, 6), nn.LayerNorm(3)
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 3)
        steps = []
        for t in range(x.shape[1]):
            gate, new = self.cell(h).chunk(2, -1)
            h = self.norm(gate.sigmoid() * h + (1 - gate) * new + x[:, t] * 0.5 + self.shift)
            steps.append(h.unsqueeze(1).to(torch.float32))
        return torch.cat(steps, dim=1)


def graph(function: Callable[..., Any], *inputs: Tensor) -> torch.fx.Graph:
    tracer = make_fx(function, tracing_mode="fake", pre_dispatch=True, _allow_non_fake_inputs=True)
    with torch.no_grad():
        made: torch.fx.GraphModule = tracer(*inputs)
    return made.graph


def listed(found: torch.fx.Graph) -> list[Any]:
    """Each call with the calls and tensors that it gets, and the form of what it gives."""
    calls = [node for node in found.nodes if node.op in ("placeholder", "call_function")]
    number = {node: at for at, node in enumerate(calls)}

    def argument(node: torch.fx.Node) -> Any:
        return number.get(node, str(node.target))

    def form(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value), [form(item) for item in value]
        return type(value), value.shape, value.stride(), value.dtype, value.device, value.requires_grad

    return [
        (str(node.target), torch.fx.map_arg(node.args, argument), node.kwargs, form(node.meta["val"])) for node in calls
    ]


@pytest.mark.parametrize("made", [torch.zeros_like, torch.ones_like, lambda h: torch.full_like(h, 2.0)])
def test_every_step_of_a_loop_may_make_a_tensor_like_its_state(made: Callable[[Tensor], Tensor]) -> None:
    def loop(x: Tensor) -> Tensor:
        h = x[0]
        for step in x:
            h = torch.where(step > 0, made(h), h * 2)
        return h

    expected = listed(graph(loop, torch.rand(STEPS, 3)))
    with operators_remembered():
        assert listed(graph(loop, torch.rand(STEPS, 3))) == expected


def test_the_graph_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, x = Loop().eval(), torch.rand(2, STEPS, 3)
    expected = listed(graph(lambda x: loop(x), x))
    own, inferred = proxy_tensor.proxy_call, []

    def counted(mode: Any, func: Any, *args: Any) -> Any:
        inferred.append(str(func))
        return own(mode, func, *args)

    monkeypatch.setattr(proxy_tensor, "proxy_call", counted)
    with operators_remembered():
        assert listed(graph(lambda x: loop(x), x)) == expected
    assert inferred.count("aten.linear.default") == 1
    assert proxy_tensor.proxy_call is counted
    inferred.clear()
    graph(lambda x: loop(x), x)
    assert inferred.count("aten.linear.default") == STEPS


def test_other_forms_numbers_and_dtypes_are_other_calls() -> None:
    def forward(x: Tensor) -> list[Tensor]:
        wide = x.double()
        return [x * 2, x * 2.0, (x > 0) * 2, (x > 0) * True, wide * 2, x.t() * 2, x[:1] * 2, x.sum(0), x.sum(1)]

    x = torch.rand(2, 2)
    expected = listed(graph(forward, x))
    with operators_remembered():
        assert listed(graph(forward, x)) == expected
        assert listed(graph(forward, x)) == expected


def test_what_is_returned_unchanged_stays_one_tensor() -> None:
    def forward(x: Tensor) -> Tensor:
        one, other = x.contiguous(), x.to(torch.float32)
        assert (one is x, other is x) == (True, True)
        return one + other

    with operators_remembered():
        for _ in range(2):
            assert listed(graph(forward, torch.rand(2, 2)))


def test_writes_and_draws_are_torchs_own() -> None:
    def forward(x: Tensor) -> Tensor:
        y = x + 1
        for _ in range(3):
            y.add_(x)
            y = y + torch.rand_like(x)
        return y

    x = torch.rand(2)
    expected = listed(graph(forward, x))
    with operators_remembered():
        assert listed(graph(forward, x)) == expected
    assert not [
        key for key in repeated_operators._KNOWN if str(key[0]) in ("aten.add_.Tensor", "aten.rand_like.default")
    ]


def test_numbers_of_a_tensor_are_not_to_be_had() -> None:
    def forward(x: Tensor) -> Tensor:
        return x if (x + 1).sum() > 0 else -x

    with operators_remembered():
        for _ in range(2):
            with pytest.raises(Exception, match=r"data-dependent|DataDependent|value out of a tracing tensor"):
                graph(forward, torch.rand(2))


def test_a_torch_without_that_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(proxy_tensor, "_ProxyTensor")
    own = proxy_tensor.proxy_call
    with operators_remembered():
        assert proxy_tensor.proxy_call is own

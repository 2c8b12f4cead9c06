"""Removes writes in place from a graph at fixed sizes, as torch.export does, in a quarter of the time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ..copies.caller_state import ONE_AT_A_TIME, replaced
from ..functional.functional_module import FunctionalModule, inference_context
from .torch_export import FixedGraph
from .torch_logs import suppress_torch_output


def changes_graph(graph: FixedGraph) -> bool:
    """Whether an operator of a graph writes into one of its arguments."""
    targets = {node.target for node in graph.module.graph.nodes if node.op == "call_function"}
    schemas = [getattr(target, "_schema", None) for target in targets - {torch.ops.aten.detach_.default}]
    return any(getattr(schema, "is_mutable", False) for schema in schemas)


def without_writes(functional: FunctionalModule, graph: FixedGraph) -> FixedGraph | None:
    """A graph that computes the same without writes; None where the original writes into an input or a weight.

    Args:
        functional: the module.
        graph: its graph at fixed sizes.
    """
    try:
        with ONE_AT_A_TIME, inference_context(functional.dtype), suppress_torch_output():
            module = _functionalized(graph.module)
    except Exception:  # noqa: BLE001 - torch promises nothing about these parts; torch.export does the same, more slowly
        return None
    if module is None or changes_graph(found := replace(graph, module=module)):
        return None
    return found


def _functionalized(module: torch.fx.GraphModule) -> torch.fx.GraphModule | None:
    from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode

    functions: Any = torch
    values = [node.meta["val"] for node in module.graph.nodes if node.op == "placeholder"]
    written: list[bool] = []

    def wrapped(value: Any) -> Any:
        return FunctionalTensor.to_functional(value) if isinstance(value, Tensor) else value

    def unwrapped(value: Any) -> Any:
        if not isinstance(value, FunctionalTensor):
            return value
        functions._sync(value)
        return functions._from_functional_tensor(value.elem)

    def run(*given: Any) -> list[Any]:
        above = torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.Functionalize))
        with above, FunctionalTensorMode(pre_dispatch=True, export=True), torch.fx.traceback.preserve_node_meta():
            inputs = [wrapped(value) for value in given]
            outputs = torch.fx.Interpreter(module).run(*inputs)
            written[:] = [
                functions._functionalize_has_data_mutation(value.elem)
                for value in inputs
                if isinstance(value, FunctionalTensor)
            ]
            return [unwrapped(value) for value in outputs]

    # Keep what the last step computes for a next one, so that it looks like the other steps.
    with replaced(torch.fx.Graph, "eliminate_dead_code", lambda *_, **__: False):
        made = make_fx(run, tracing_mode="fake", pre_dispatch=True, _allow_non_fake_inputs=True)(*values)
    return None if any(written) else made

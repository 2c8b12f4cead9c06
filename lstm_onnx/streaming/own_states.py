"""The states that a file has: inputs that a recurrent operator starts from, and outputs that are their next value."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping

from onnx import GraphProto, ModelProto

from ..errors import ConfigError, shown
from ..onnxgraph import is_default, outer_values

_STARTS = {"LSTM": {5: 1, 6: 2}, "GRU": {5: 1}, "RNN": {5: 1}}
"""By operator: the inputs that it starts from, and the outputs that are what they are at the end."""


def recurrent_states(graph: GraphProto) -> dict[str, str]:
    """Inputs that one recurrent operator alone reads, as what it starts from, and whose end it gives as an output."""
    stored = {tensor.name for tensor in graph.initializer}
    inputs = {value.name for value in graph.input} - stored
    renamed = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Identity"}
    outputs = {value.name for value in graph.output}
    reads = Counter(name for node in graph.node for name in (*node.input, *outer_values(node)))
    found: dict[str, str] = {}
    for node in graph.node:
        for start, end in _STARTS.get(node.op_type, {}).items() if is_default(node.domain) else ():
            name = node.input[start] if start < len(node.input) else ""
            after = node.output[end] if end < len(node.output) else ""
            after = after if after in outputs else renamed.get(after, "")
            if name in inputs and reads[name] == 1 and after in outputs and after not in found.values():
                found[name] = after
    return found


def require_states(model: ModelProto, states: object, path: str | os.PathLike[str]) -> None:
    """Refuse what are not pairs of an input and an output (ConfigError)."""
    if not isinstance(states, Mapping):
        raise ConfigError(
            f"states = {shown(states)} is not possible", hint='it must map inputs to outputs: {"h": "hn"}'
        )
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    for name, output in states.items():
        for kind, value, known in (("input", name, inputs), ("output", output, outputs)):
            if value not in known:
                raise ConfigError(
                    f"{shown(value)} is not an {kind}", path=path, hint=f"its {kind}s are {', '.join(known)}"
                )
    if len(set(states.values())) < len(states):
        raise ConfigError("states has an output twice, and each state has its own", path=path)

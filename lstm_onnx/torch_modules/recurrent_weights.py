"""The weights of ONNX's recurrent operators as torch's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from ..exporter.kept_digest import keep_folds
from ..exporter.weights import GATE_ORDER, Array, LayerWeights
from ..spec import GRUSpec, LSTMSpec, RecurrentSpec, RNNSpec, direction_suffixes
from .graph import new_layer, torch_array


def state_of_layers(spec: RecurrentSpec, layers: Sequence[LayerWeights]) -> dict[str, Array]:
    """The state dict of an nn.LSTM, nn.GRU or nn.RNN; what `exporter.weights.layer_weights` makes of one, undone."""
    order = GATE_ORDER[spec.op_type]

    def in_torch_order(rows: Array) -> Array:
        gates = np.split(rows, spec.gates)
        return np.concatenate([gates[order.index(gate)] for gate in range(spec.gates)])

    state: dict[str, Array] = {}
    for number, layer in enumerate(layers):
        for direction, suffix in enumerate(direction_suffixes(spec.bidirectional)):
            at = f"l{number}{suffix}"
            state[f"weight_ih_{at}"] = in_torch_order(layer.W[direction])
            state[f"weight_hh_{at}"] = in_torch_order(layer.R[direction])
            if layer.B is not None:
                bias_ih, bias_hh = np.split(layer.B[direction], 2)
                state[f"bias_ih_{at}"], state[f"bias_hh_{at}"] = in_torch_order(bias_ih), in_torch_order(bias_hh)
            if layer.W_hr is not None:
                state[f"weight_hr_{at}"] = layer.W_hr[direction]
    return state


def recurrent_module(spec: RecurrentSpec, state: Mapping[str, Array], folds: Sequence[Array] = ()) -> nn.Module:
    """An nn.LSTM, nn.GRU or nn.RNN in eval mode; the caller's random state is left as it was.

    Args:
        spec: its sizes.
        state: its parameters.
        folds: of a file with folded projections, the stored products (see `kept_digest.keep_folds`).
    """
    kinds: Mapping[type[RecurrentSpec], type[nn.Module]] = {LSTMSpec: nn.LSTM, GRUSpec: nn.GRU, RNNSpec: nn.RNN}
    arguments: dict[str, Any] = {name: getattr(spec, name) for name in spec.__dataclass_fields__}
    module = new_layer(kinds[type(spec)], **arguments)
    module.load_state_dict({name: torch_array(array) for name, array in state.items()})
    keep_folds(module, state, folds)
    return module.eval()

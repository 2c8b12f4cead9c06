"""The weights of an LSTM, a GRU or an RNN by torch's names, from what each gate does with its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .gate_match import Gates

Parts = Mapping[str, Mapping[str, Tensor]]
"""Of each gate: its "bias" ``(H,)``, and its matrices ``(H, I)`` of "x" and ``(H, H)`` of each variable."""


def _lstm_weights(parts: Parts, _gates: Gates) -> dict[str, Tensor] | None:
    """Of gates that may see c as peepholes do: each unit its own, i and f before the step and o after it."""
    seen = {"i": "c", "f": "c", "o": "new c"}
    for name, part in parts.items():
        for state in ("c", "new c"):
            matrix = part[state]
            allowed = torch.diag(torch.diagonal(matrix)) if seen.get(name) == state else torch.zeros_like(matrix)
            if not torch.equal(matrix, allowed):
                return None
    found_weights = _joined([parts[name] for name in "ifgo"], "h")
    peepholes = torch.cat([torch.diagonal(parts[name][seen[name]]) for name in "iof"])
    if peepholes.any():
        found_weights["peepholes"] = peepholes[None]
    return found_weights


def _gru_weights(parts: Parts, gates: Gates) -> dict[str, Tensor] | None:
    """Of a GRU; None where n is of h and x in another way."""
    z = parts["z"] if "z" in parts else {name: -part for name, part in parts["1-z"].items()}  # 1 - sigmoid(a)
    if "r h" in gates.inner:
        if parts["r"]["r h"].any() or z["r h"].any() or parts["n"]["h"].any():
            return None
        n = {**parts["n"], "h": parts["n"]["r h"]}
        return _joined([parts["r"], z, n], "h")
    of_x, of_h = parts["n of x"], parts["n of h"]
    if of_x["h"].any() or of_h["x"].any():
        return None
    found_weights = _joined([parts["r"], z, {**of_x, "h": of_h["h"]}], "h")
    zero = torch.zeros_like(of_h["bias"])
    found_weights["bias_hh_l0"] = torch.cat([zero, zero, of_h["bias"]])
    return found_weights


def _rnn_weights(parts: Parts, _gates: Gates) -> dict[str, Tensor] | None:
    return _joined([parts["n"]], "h")


def _joined(gates: Sequence[Mapping[str, Tensor]], state: str) -> dict[str, Tensor]:
    bias = torch.cat([gate["bias"] for gate in gates])
    return {
        "weight_ih_l0": torch.cat([gate["x"] for gate in gates]).contiguous(),
        "weight_hh_l0": torch.cat([gate[state] for gate in gates]).contiguous(),
        "bias_ih_l0": bias,
        "bias_hh_l0": torch.zeros_like(bias),
    }


WEIGHTS: Mapping[str, Callable[[Parts, Gates], dict[str, Tensor] | None]] = {
    "LSTM": _lstm_weights,
    "GRU": _gru_weights,
    "RNN": _rnn_weights,
}
"""By the operator: the weights by torch's names, and "peepholes"; None where they are not those of its cell."""

"""A quiet model with its weights made loud, in its file and in PyTorch alike.

With weights of a thousandth every gate is a half to within rounding, a layer hears next to nothing of the
one before it, and two gates could be exchanged without a trace.  So such a model is compared once more with
each layer's weights times a power of two, which is exact: what is wrong in the graph then shows.  It takes
a file whose recurrent layers are found (`mutants.graph`), one for each layer of the module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ..exporter.weights import StateDict
from ..spec import LSTMSpec, direction_suffixes
from .mutants import Edit

_WANTED = {"weight_ih": 1.0, "weight_hh": 1.0, "bias": 0.5}
_WANTED_HALF = {"weight_ih": 2.5, "weight_hh": 1.5, "bias": 1.0}
"""What each part of a gate's sum should be about, in root mean square.

In half precision only large sums tell one sigmoid from another.
"""
_WANTED_FOLDED = 1 / 3
"""Of R h in a folded layer (`weights`), which is off by as much as W_hr is badly conditioned."""
ENOUGH = {"float16": 2.0, "float32": 16.0, "float64": 16.0}
"""The gain below which a model is compared as it is, by its dtype."""
_MOST = 2.0**14
_H = 0.35
"""The root mean square of o tanh(c)."""
_H0 = 0.6
"""That of the sweep's explicit h0."""


@dataclass(frozen=True)
class LayerGains:
    """What a layer's weights are multiplied by."""

    weight_ih: float
    weight_hh: float
    bias: float
    weight_hr: float

    def of(self, name: str) -> float:
        """The factor of a parameter, by its name in nn.LSTM."""
        return float(next(factor for kind, factor in vars(self).items() if name.startswith(kind)))


def layer_gains(spec: LSTMSpec, state: StateDict, *, folded: bool = False) -> tuple[LayerGains, ...] | None:
    """Powers of two, layer by layer, that bring gates to life; None where they are alive.

    `folded` is whether the file may have its projections folded into R.
    """
    wanted = dict(_WANTED_HALF if spec.dtype == "float16" else _WANTED)
    wanted["weight_hh"] *= _WANTED_FOLDED if folded else 1.0
    gains = []
    for layer in range(spec.num_layers):

        def size(kind: str, *, layer: int = layer) -> float:
            """The root mean square of a row's sum over inputs of 1, or of a bias."""
            names = [f"{kind}_l{layer}{suffix}" for suffix in direction_suffixes(spec.bidirectional)]
            arrays = [state[name].astype(np.float64) for name in names if name in state]
            return math.sqrt(max((np.mean(a**2) * (a.shape[1] if a.ndim > 1 else 1) for a in arrays), default=0.0))

        x = _H if layer else 1.0
        gains.append(
            LayerGains(
                _gain(wanted["weight_ih"], size("weight_ih") * x),
                _gain(wanted["weight_hh"], size("weight_hh") * _H0),
                _gain(wanted["bias"], max(size("bias_ih"), size("bias_hh"))),
                _gain(1.0, size("weight_hr")),
            )
        )
    largest = max(factor for gain in gains for factor in vars(gain).values())
    return tuple(gains) if largest >= ENOUGH[spec.dtype] else None


def wanted_gain(kind: str, arrays: Sequence[np.ndarray], dtype: str) -> float:
    """A power of two that makes "weight_ih", "weight_hh" or "bias" of a layer loud, whatever its input is."""
    wanted = (_WANTED_HALF if dtype == "float16" else _WANTED)[kind]
    heard = {"weight_ih": _H, "weight_hh": _H0, "bias": 1.0}[kind]
    wide = [array.astype(np.float64) for array in arrays]
    size = math.sqrt(max((np.mean(a**2) * (a.shape[1] if a.ndim > 1 else 1) for a in wide), default=0.0))
    return _gain(wanted, size * heard)


def _gain(wanted: float, size: float) -> float:
    if not 0 < size < math.inf:
        return 1.0
    return float(2.0 ** round(math.log2(min(max(wanted / size, 1.0), _MOST))))


def louder_state(state: StateDict, gains: tuple[LayerGains, ...]) -> dict[str, np.ndarray]:
    """The parameters, by nn.LSTM's names, multiplied."""
    layers = {name: int(name.removesuffix("_reverse").rpartition("_l")[2]) for name in state}
    return {name: array * array.dtype.type(gains[layers[name]].of(name)) for name, array in state.items()}


def louder_file(
    model: onnx.ModelProto, folder: str, spec: LSTMSpec, gains: tuple[LayerGains, ...]
) -> onnx.ModelProto | None:
    """A copy of a file with its weights multiplied; None where they are not found as initializers, layer by layer."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    edit = Edit(copy, folder)
    if len(edit.sites) != spec.num_layers:
        return None
    for site, gain in zip(edit.sites, gains, strict=True):
        fits = site.op_type == "LSTM" and site.directions == spec.num_directions and site.hidden == spec.hidden_size
        if not fits or bool(site.B) != spec.bias:
            return None
        unproject, project = edit.fold(site)
        if bool(site.W_hr or project) != bool(spec.proj_size):
            return None
        # A folded R is R times W_hr, and h0 comes through its inverse.
        recurrent = gain.weight_hh * (gain.weight_hr if project else 1.0)
        scaled = [(site.W, gain.weight_ih), (site.R, recurrent), (site.B, gain.bias)]
        scaled += [((*site.W_hr, *project), gain.weight_hr), (unproject, 1 / gain.weight_hr)]
        for port, factor in ((port, factor) for ports, factor in scaled for port in ports):
            array = edit.constant(port.value)
            if array is None or (project and not _whole(array)):
                return None
            port.value = edit.array(array * array.dtype.type(factor))
    return copy


def _whole(array: np.ndarray) -> bool:
    """Whether numbers have all of their digits, unlike those that come down to float16's least on the way."""
    size = float(np.sqrt(np.mean(array.astype(np.float64) ** 2)))
    return size == 0 or size >= float(np.finfo(array.dtype).smallest_normal)

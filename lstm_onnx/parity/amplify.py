"""Amplifies the weights or inputs of models with small weights, both in the file and in PyTorch.

If weights are around a thousandth, every gate is 0.5 up to rounding, a layer hardly depends on the one before it, and
two gates could be exchanged without a visible difference.  So such a model is compared once more with each layer's
weights times a power of two, which is exact: errors in the graph then show.  That needs a file in which the recurrent
layers are found (`mutants.graph_edit`), one for each layer of the module; for others, only the inputs are amplified.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import onnx

from ..exporter.weights import StateDict
from ..onnxgraph.recurrent import Port
from ..spec import LSTMSpec, direction_suffixes
from .mutants.graph_edit import Edit
from .tolerances import AMPLIFIED, AMPLIFIED_HALF, LARGEST_INPUT_GAIN, LEAST_INPUT_GAIN, LEAST_WEIGHT_GAIN

_FOLDED_FACTOR = 1 / 3
"""The factor of R h in a folded layer (`exporter.weights`), whose error grows with the condition number of W_hr."""
_LARGEST_WEIGHT_GAIN = {"float16": 2.0**14, "float32": 2.0**100, "float64": 2.0**100}
"""The largest factor by dtype, which must be able to represent it."""
_SATURATED = 2.0**10
"""Weights that are this many times too large are made smaller: with all gates at 0 or 1, one looks like another."""
_H = 0.35
"""The typical root mean square of o tanh(c)."""
_H0 = 0.6
"""The root mean square of the cases' explicit h0."""
_INPUTS = {"weight_ih": _H, "weight_hh": _H0, "dense": _H}
"""The typical root mean square of the values that a module's weights are multiplied by."""


@dataclass(frozen=True)
class InputGains:
    """Factors of x and h0 at which the gates of a model with small weights move.

    `input` is for x; `h0`, ``(L*D, 1, 1)``, for each layer and direction.
    """

    input: float
    h0: np.ndarray

    @property
    def needed(self) -> bool:
        """Whether the weights are so small that inputs must be amplified."""
        return max(self.input, float(self.h0.max())) > LEAST_INPUT_GAIN


def input_gains(spec: LSTMSpec, state: StateDict) -> InputGains:
    """The factors at which ``W x`` of the first layer and ``R h0`` of every layer are about 1."""

    def gain(name: str) -> float:
        wanted = 1 / size if (size := _row_size([state[name]])) > 0 else 1.0
        return min(max(wanted, 1.0), LARGEST_INPUT_GAIN[spec.dtype]) if np.isfinite(wanted) else 1.0

    suffixes = direction_suffixes(spec.bidirectional)
    per_layer = [gain(f"weight_hh_l{layer}{suffix}") for layer in range(spec.num_layers) for suffix in suffixes]
    return InputGains(gain("weight_ih_l0"), np.array(per_layer).reshape(-1, 1, 1))


LayerGains = Mapping[str, float]
"""The factors of a layer's weights, by the prefixes of nn.LSTM's parameter names."""


def layer_gains(spec: LSTMSpec, state: StateDict, *, folded: bool = False) -> tuple[LayerGains, ...] | None:
    """Powers of two, layer by layer, that make the gates move; None if they already move, or the weights are ordinary.

    `folded` says whether the file may have its projections folded into R.
    """
    wanted = dict(AMPLIFIED_HALF if spec.dtype == "float16" else AMPLIFIED)
    wanted["weight_hh"] *= _FOLDED_FACTOR if folded else 1.0
    gains = []
    for layer in range(spec.num_layers):

        def size(kind: str, *, layer: int = layer) -> float:
            names = [f"{kind}_l{layer}{suffix}" for suffix in direction_suffixes(spec.bidirectional)]
            return _row_size([state[name] for name in names if name in state])

        x = _H if layer else 1.0
        gains.append(
            {
                "weight_ih": _gain(wanted["weight_ih"], size("weight_ih") * x, spec.dtype),
                "weight_hh": _gain(wanted["weight_hh"], size("weight_hh") * _H0, spec.dtype),
                "bias": _gain(wanted["bias"], max(size("bias_ih"), size("bias_hh")), spec.dtype),
                "weight_hr": _gain(1.0, size("weight_hr"), spec.dtype),
            }
        )
    largest = change(factor for gain in gains for factor in gain.values())
    return tuple(gains) if largest >= LEAST_WEIGHT_GAIN[spec.dtype] else None


def weight_gain(kind: str, arrays: Sequence[np.ndarray], dtype: str) -> float:
    """The power of two for the weights of a layer of any module, for an input of typical size.

    Args:
        kind: "weight_ih", "weight_hh", "bias" or "weight_hr" of a recurrent layer, or "dense" for another matrix.
        arrays: the weights of that kind, each with a row for each output.
        dtype: the module's.
    """
    wanted = (AMPLIFIED_HALF if dtype == "float16" else AMPLIFIED)[kind]
    return _gain(wanted, _row_size(arrays) * _INPUTS.get(kind, 1.0), dtype)


def _row_size(arrays: Iterable[np.ndarray]) -> float:
    """The root mean square of a row's sum over inputs of 1, or of a bias; the largest of `arrays`."""
    wide = (array.astype(np.float64) for array in arrays)
    return math.sqrt(max((np.mean(a**2) * (a.shape[1] if a.ndim > 1 else 1) for a in wide), default=0.0))


def _gain(wanted: float, size: float, dtype: str) -> float:
    if not 0 < size < math.inf:
        return 1.0
    gain = wanted / size
    if 1 / _SATURATED < gain < 1:
        return 1.0
    most = _LARGEST_WEIGHT_GAIN[dtype]
    return float(2.0 ** round(math.log2(min(max(gain, 1 / most), most))))


def change(factors: Iterable[float]) -> float:
    """The largest factor by which weights are made larger, or smaller."""
    return max((max(factor, 1 / factor) for factor in factors), default=1.0)


def amplified_state(state: StateDict, gains: tuple[LayerGains, ...]) -> dict[str, np.ndarray]:
    """The parameters, by nn.LSTM's names, times their factors."""
    amplified = {}
    for name, array in state.items():
        layer = gains[int(name.removesuffix("_reverse").rpartition("_l")[2])]
        factor = next(factor for kind, factor in layer.items() if name.startswith(kind))
        amplified[name] = array * array.dtype.type(factor)
    return amplified


def amplified_graph(
    model: onnx.ModelProto, folder: str, spec: LSTMSpec, gains: tuple[LayerGains, ...]
) -> onnx.ModelProto | None:
    """A copy of a bare LSTM's graph with its weights amplified; None unless each layer's are initializers."""
    edit = Edit(deepcopy(model), folder)
    if len(edit.layers) != spec.num_layers:
        return None
    wanted = ("LSTM", spec.num_directions, spec.hidden_size, spec.bias, spec.proj_size > 0)
    for layer in edit.layers:
        projected = bool(layer.W_hr or edit.fold(layer)[1])
        if (layer.op_type, layer.directions, layer.hidden_size, bool(layer.B), projected) != wanted:
            return None
    return edit.model if scale_layers(edit, gains) else None


def scale_layers(edit: Edit, gains: Sequence[LayerGains]) -> bool:
    """Amplify the weights of each recurrent layer of a graph; returns False if one is not an initializer."""
    for layer, gain in zip(edit.layers, gains, strict=True):
        unproject, project = edit.fold(layer)
        # A folded R is R times W_hr, and h0 passes through its inverse.
        recurrent = gain["weight_hh"] * (gain["weight_hr"] if project else 1.0)
        factors = [(layer.W, gain["weight_ih"]), (layer.R, recurrent), ((*layer.B, *layer.Rb), gain["bias"])]
        factors += [((*layer.W_hr, *project), gain["weight_hr"]), (unproject, 1 / gain["weight_hr"])]
        if not all(_scale_weights(edit, ports, factor, whole=bool(project)) for ports, factor in factors):
            return False
    return True


def _scale_weights(edit: Edit, ports: Iterable[Port], factor: float, *, whole: bool = False) -> bool:
    """Multiply the weights that `ports` read; returns False if one is not an initializer.

    `whole` also refuses weights that have lost digits as subnormal numbers of float16.
    """
    for port in ports:
        array = edit.constant(port.value)
        if array is None or (whole and not _is_whole(array)):
            return False
        port.value = edit.array(array * array.dtype.type(factor))
    return True


def _is_whole(array: np.ndarray) -> bool:
    size = float(np.sqrt(np.mean(array.astype(np.float64) ** 2)))
    return size == 0 or size >= float(np.finfo(array.dtype).smallest_normal)

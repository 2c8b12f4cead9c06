"""torch's recurrent parameters as the ONNX operators', and the fold of a projection.

The gates of an LSTM are input, forget, cell, output in torch and input, output, forget, cell in ONNX
(onnx operator LSTM: "iofc").  Those of a GRU are reset, update, new in torch and update, reset, hidden in
ONNX ("zrh").  The rows of both weight matrices and of both biases are reordered.

Everything here is numpy; a state dict maps the module's parameter names to arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ExportError, WeightsError
from ..spec import RecurrentSpec, direction_suffixes

Array = NDArray[np.floating]
StateDict = Mapping[str, Array]
Shape = tuple[int, ...]

_MAX_LISTED = 8
"""More missing or unexpected tensors than this are grouped."""

GATE_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
"""For each gate of the ONNX operator, its index in torch's order."""

MAX_CONDITION = 200.0
"""Largest condition number of W_hr at which the projection is folded.

The fold multiplies h0 by pinv(W_hr) and the result by W_hr again, so rounding in the state grows with
cond(W_hr), in units of the dtype's own rounding and so alike for all dtypes.  Measured over 12 LSTMs
at each condition number, in units of PyTorch's own error, of which parity allows 32: the worst is 1.4
at 30, 7 at 200, 11 at 500, 36 at 1500.  The Scan lowering is exact for every W_hr.
"""


class ChangingWeightsError(ExportError):
    """A recurrent module has other weights than in an earlier call."""


@dataclass(frozen=True)
class LayerWeights:
    """One layer's parameters in ONNX's gate order, with the directions as first axis.

    With D directions, G gates (4 of an LSTM, 3 of a GRU, 1 of an RNN), H hidden_size, S proj_size or
    hidden_size, I the features of the layer's input.

    Attributes:
        W: ``(D, G*H, I)``.
        R: ``(D, G*H, S)``.
        B: ``(D, 2*G*H)``, the biases of W and then those of R; None without biases.
        W_hr: ``(D, proj_size, H)``; None without a projection.
        P: ``(D, 3*H)``, an LSTM's peepholes of the input, output and forget gate; None without, as in torch.
        reset_before: of a GRU, whether its reset gate acts on h before the product with R; torch's acts after it.
        folded: ``(D, G*H, H)``, R W_hr as the file has it that the module was made of; None where it is computed.
    """

    W: Array
    R: Array
    B: Array | None
    W_hr: Array | None
    P: Array | None = None
    reset_before: bool = False
    folded: Array | None = None


def layer_weights(spec: RecurrentSpec, state: StateDict, layer: int, folds: Sequence[Array] = ()) -> LayerWeights:
    """A layer of a module, in ONNX's gate order.

    Args:
        spec: the module's sizes.
        state: its state dict, as `validate_state_dict` returned it for `spec`.
        layer: the number of the layer.
        folds: each layer's product R W_hr, where it is known (see `kept_digest.kept_folds`).
    """
    suffixes = direction_suffixes(spec.bidirectional)

    def reordered(name: str) -> Array:
        gates = np.split(state[name], spec.gates)
        return np.concatenate([gates[gate] for gate in GATE_ORDER[spec.op_type]])

    def stacked(*names: str) -> Array:
        per_direction = [
            np.concatenate([reordered(f"{name}_l{layer}{suffix}") for name in names]) for suffix in suffixes
        ]
        return np.stack(per_direction)

    projected = spec.state_size != spec.hidden_size
    return LayerWeights(
        W=stacked("weight_ih"),
        R=stacked("weight_hh"),
        B=stacked("bias_ih", "bias_hh") if spec.bias else None,
        W_hr=np.stack([state[f"weight_hr_l{layer}{suffix}"] for suffix in suffixes]) if projected else None,
        folded=folds[layer] if folds else None,
    )


@dataclass(frozen=True)
class FoldedLayer:
    """A projected layer rewritten for the LSTM operator, which has no projection.

    The operator's state is the unprojected u, of hidden_size features, with h = W_hr u.  That is exact where
    W_hr has full row rank, since then W_hr pinv(W_hr) = 1.

    Attributes:
        R: ``(D, 4H, H)``, R W_hr, which replaces R.
        P_in: ``(D, P, H)``, pinv(W_hr) transposed; ``h0 @ P_in`` is the operator's initial_h.
        P_out: ``(D, H, P)``, W_hr transposed; the operator's Y and Y_h times it are the layer's.
    """

    R: Array
    P_in: Array
    P_out: Array


def fold_projection(R: Array, W_hr: Array, *, layer: int, known: Array | None = None) -> FoldedLayer:  # noqa: N803
    """Fold W_hr ``(D, P, H)`` into R ``(D, 4H, P)``, computed in float64; `known` is their product, where it is known.

    Raises:
        WeightsError: W_hr is too badly conditioned (`MAX_CONDITION`) for the fold to be exact.
    """
    dtype = R.dtype
    wide_R, wide_hr = R.astype(np.float64), W_hr.astype(np.float64)  # noqa: N806
    for direction, matrix in enumerate(wide_hr):
        condition = np.linalg.cond(matrix) if np.isfinite(matrix).all() else np.inf
        if not condition <= MAX_CONDITION:
            raise WeightsError(
                f"layer {layer}, direction {direction}: W_hr has condition number {condition:.3g}, and "
                f'projection = "fold" is only exact up to {MAX_CONDITION:g}; '
                'use projection = "scan", which is exact for every W_hr'
            )
    return FoldedLayer(
        R=(wide_R @ wide_hr).astype(dtype) if known is None else known,
        P_in=np.swapaxes(np.linalg.pinv(wide_hr), 1, 2).astype(dtype),
        P_out=np.swapaxes(W_hr, 1, 2),
    )


def require_own_names(spec: RecurrentSpec, names: Sequence[str], *, where: str) -> None:
    """Refuse a recurrent module whose attributes were changed by hand, so that they do not describe its weights.

    Args:
        spec: its sizes, from its attributes.
        names: of its weights, in the order in which PyTorch takes them.
        where: the module, for messages.

    Raises:
        ExportError: they were.
    """
    wanted = list(spec.parameter_shapes())
    # PyTorch takes as many as it needs; with fewer layers it leaves out the last ones.
    if wanted == list(names[: len(wanted)]) and (len(wanted) == len(names) or not getattr(spec, "proj_size", 0)):
        return
    found = [f"it has no {name}" for name in wanted if name not in names][:1]
    found += [f"it has {name}" for name in names if name not in wanted][:1]
    raise ExportError(
        f"{where}: its bias, num_layers, bidirectional or proj_size was changed after it was made: "
        f"{' and '.join(found)}; make a new module with these arguments, and load the weights into it"
    )


def validate_state_dict(spec: RecurrentSpec, state: Mapping[str, Array], *, where: str) -> dict[str, Array]:
    """`state` as exactly the parameters of `spec`, in torch's order and the spec's dtype.

    As in ``load_state_dict``, tensors of another float dtype are cast.

    Args:
        spec: the module's sizes.
        state: arrays by torch's parameter names.
        where: the source of `state`, for messages.

    Raises:
        WeightsError: tensors are missing, unexpected, of another shape, not floating point, or too
            large for the dtype; each is named.
    """
    dtype = np.dtype(spec.dtype)
    return cast_state_dict({name: (shape, dtype) for name, shape in spec.parameter_shapes().items()}, state, where)


def cast_state_dict(
    expected: Mapping[str, tuple[Shape, np.dtype[Any]]], state: Mapping[str, Array], where: str
) -> dict[str, Array]:
    """`state` in the order, shapes and dtypes of `expected`.

    Floats are cast to wider or narrower floats; others are not, unless the dtype has all their values.

    Args:
        expected: shape and dtype of each tensor.
        state: arrays by name.
        where: the source of `state`, for messages.

    Raises:
        WeightsError: see `validate_state_dict`.
    """
    shapes = {name: shape for name, (shape, _) in expected.items()}
    problems = state_dict_problems(shapes, {name: np.shape(array) for name, array in state.items()})
    problems += [
        f"{name} is of dtype {state[name].dtype} where the model has {dtype}"
        for name, (_, dtype) in expected.items()
        if name in state and not _can_cast(state[name].dtype, dtype)
    ]
    if problems:
        raise WeightsError(f"{where}: the weights do not fit the model: {'; '.join(problems)}")
    with np.errstate(over="ignore"):
        cast = {name: np.asarray(state[name], dtype, order="C") for name, (_, dtype) in expected.items()}
    large = [name for name, array in cast.items() if np.isinf(array).any() and not np.isinf(state[name]).any()]
    if large:
        names = shortened(large, "; ")
        raise WeightsError(f"{where}: {names} holds numbers too large for {cast[large[0]].dtype}; use a wider dtype")
    return cast


def _can_cast(dtype: np.dtype[Any], target: np.dtype[Any]) -> bool:
    return np.issubdtype(dtype, np.floating) if target.kind == "f" else np.can_cast(dtype, target)


def state_dict_problems(expected: Mapping[str, Shape], actual: Mapping[str, Shape]) -> list[str]:
    """How a state dict's names and shapes differ from a module's, empty where they do not.

    Where more than a few tensors are missing or unexpected, they are grouped by the submodule that they
    belong to, so that every prefix is shown.
    """
    wrong = {
        name: f"{name} is {actual[name]} where the model has {shape}"
        for name, shape in expected.items()
        if name in actual and actual[name] != shape
    }
    some, others = list(wrong.values())[:_MAX_LISTED], list(wrong)[_MAX_LISTED:]
    return [
        *_grouped("missing", {name: shape for name, shape in expected.items() if name not in actual}),
        *_grouped("unexpected", {name: shape for name, shape in actual.items() if name not in expected}),
        *some,
        *([f"and {len(others)} more of another shape ({grouped(others)})"] if others else []),
    ]


def _grouped(what: str, shapes: Mapping[str, Shape]) -> list[str]:
    """One entry for each tensor or, of many, for each submodule or top-level prefix."""
    if len(shapes) <= _MAX_LISTED:
        return [f"{what} {name} {shape}" for name, shape in shapes.items()]
    return [f"{what} {len(shapes)} tensors: {grouped(list(shapes))}"]


def grouped(names: Sequence[str]) -> str:
    """Names as text: each of a few, and of many the submodules or top-level prefixes with their numbers."""
    if len(names) <= _MAX_LISTED:
        return ", ".join(names)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    if len(groups) > _MAX_LISTED:
        groups = {}
        for name in names:
            groups.setdefault(name.partition(".")[0] if "." in name else "", []).append(name)
    parts = [
        f"{parent}.* ({len(inner)})" if parent else shortened(inner, ", ", _MAX_LISTED)
        for parent, inner in groups.items()
    ]
    return shortened(parts, ", ")


def shortened(items: Sequence[str], separator: str, most: int = 20) -> str:
    """The items joined, of many only the first `most` and the number of the others."""
    more = f"{separator}and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more

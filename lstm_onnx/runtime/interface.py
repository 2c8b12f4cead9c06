"""Reads the inputs, outputs, states and metadata of an open session, and validates them before it is used."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ..errors import ConfigError, ModelError, ProviderError, shown
from ..metadata import Metadata
from .counts import Count, counts_of
from .float64 import NOT_ON_CPU, REMEDY, cannot_run_float64
from .initial_states import cast_initial_states
from .tensor_info import ValueInfo

LSTM_STATES = {"h0": "hn", "c0": "cn"}
"""The states of a bare LSTM, and the outputs that feed them."""
_MOST_AXES, _LARGEST_ITEM = 64, 8
"""NumPy's limits: the number of axes, and the bytes of an array."""
_LSTM_INPUTS, _LSTM_OUTPUTS = ("input", "h0", "c0"), ("output", "hn", "cn")


@dataclass(frozen=True)
class Interface:
    """A model's inputs, outputs, states and metadata; the attributes are those of `Model`."""

    metadata: Metadata
    inputs: dict[str, ValueInfo]
    outputs: dict[str, ValueInfo]
    states: dict[str, str]
    counts: dict[str, Count]


def read_interface(path: str, session: Any, provider: str, states: Mapping[str, str] | None) -> Interface:
    """Read and validate the interface of an open session.

    Args:
        path: for messages.
        session: an ``InferenceSession``.
        provider: "cpu" or "cuda".
        states: the pairs of states that the caller passes; None for those of the metadata.

    Raises:
        ModelError: the metadata is damaged, or does not match the graph; a state is not in the graph; or an input is
            too large for any array.
        ProviderError: the model is float64, which the CPU provider opens but cannot run.
    """
    try:
        metadata = Metadata.from_metadata(session.get_modelmeta().custom_metadata_map)
        inputs = {arg.name: ValueInfo.of(arg, metadata.axis_limits) for arg in session.get_inputs()}
        outputs = {arg.name: ValueInfo.of(arg) for arg in session.get_outputs()}
        counts = counts_of(metadata, inputs)
        metadata = replace(metadata, initial=cast_initial_states(metadata.initial, inputs))
    except (ConfigError, ModelError) as error:
        raise ModelError(error.message, path=path, hint=error.hint, name=error.name) from error
    except UnicodeDecodeError as error:
        raise ModelError(f"is damaged: a name in it is not UTF-8 ({error})", path=path) from error
    _require_possible(path, inputs)
    interface = Interface(metadata, inputs, outputs, dict(metadata.states if states is None else states), counts)
    _require_states(path, interface)
    if metadata.spec is not None:
        _require_bare_lstm(path, interface)
    if provider == "cpu" and cannot_run_float64(session, interface.inputs, interface.outputs):
        raise ProviderError(NOT_ON_CPU, path=path, hint=REMEDY)
    return interface


def _require_possible(path: str, inputs: Mapping[str, ValueInfo]) -> None:
    for name, info in inputs.items():
        fixed = prod(dim for dim in info.shape if isinstance(dim, int) and dim > 0)
        if len(info.shape) > _MOST_AXES or fixed * _LARGEST_ITEM > sys.maxsize:
            raise ModelError(
                f"no NumPy array fits the input {name!r}: it has {len(info.shape)} axes, and its fixed ones "
                f"{fixed:.3g} elements",
                path=path,
                hint="export the model again",
                name=name,
            )


def _require_states(path: str, interface: Interface) -> None:
    for source, target in interface.states.items():
        for name, known, kind in ((source, interface.inputs, "input"), (target, interface.outputs, "output")):
            if name not in known:
                raise ModelError(
                    f"the state {kind} {name!r} does not exist",
                    path=path,
                    hint=f"its {kind}s are {', '.join(known)}",
                    name=name,
                )


def _require_bare_lstm(path: str, interface: Interface) -> None:
    """Refuse a bare LSTM whose states are paired with the wrong outputs, or that lacks an input or output.

    The rest of its metadata is compared when a stream is opened.
    """
    declared = interface.metadata.states
    for source, target in interface.states.items():
        if LSTM_STATES.get(source) != target and (declared.get(source) != target or source not in LSTM_STATES):
            pairs = ", ".join(f"{name} <- {output}" for name, output in LSTM_STATES.items())
            raise ModelError(f"is a bare LSTM with {pairs}: {target} does not feed {source}", path=path, name=source)
    absent = [name for name in _LSTM_INPUTS if name not in interface.inputs]
    absent += [name for name in _LSTM_OUTPUTS if name not in interface.outputs]
    if absent:
        raise ModelError(
            f"its metadata describes a bare LSTM, but it has no {', '.join(absent)}", path=path, hint="export it again"
        )


def validated_states_argument(states: Any) -> dict[str, str] | None:
    """The `states` argument of `load`, once it is known to map names to names (ModelError)."""
    if states is None:
        return None
    if not isinstance(states, Mapping) or not all(isinstance(name, str) for pair in states.items() for name in pair):
        raise ModelError(
            f"states = {shown(states)} is not possible",
            hint="it must map each state input to the output that feeds it, such as {'h': 'hN', 'c': 'cN'}",
            name="states",
        )
    return dict(states)

"""An inference request, independent of the protocol by which it came, and checks of its parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import shown
from .errors import Kind, RequestError

_LONGEST_ID = 256
_ELSEWHERE = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
SEQUENCE_PARAMETERS = ("sequence_id", "sequence_start", "sequence_end")
"""The parameters of a request that its answer repeats."""
Key = tuple[str, int | str]
"""A sequence id with its type, since 5 and "5" are different sequences."""


@dataclass(frozen=True)
class SequencePart:
    """The place of a request in a stateful sequence.

    Attributes:
        key: the sequence.
        start: whether the request is the first one, which starts from the initial states.
        end: whether it is the last one.
    """

    key: Key
    start: bool
    end: bool


@dataclass(frozen=True)
class InferenceRequest:
    """A request to run a model.

    Attributes:
        inputs: arrays by name.
        outputs: the names of the outputs to return; None for the default ones.
        sequence: its place in a stateful sequence; None where it holds a whole sequence.
        timeout: the client's limit in seconds, in addition to the server's deadline; None for no limit.
    """

    inputs: Mapping[str, np.ndarray]
    outputs: tuple[str, ...] | None = None
    sequence: SequencePart | None = None
    timeout: float | None = None


def require_values_here(name: str, parameters: Container[str]) -> None:
    """Refuse a tensor whose parameters say that it is in shared memory (RequestError)."""
    if any(key in parameters for key in _ELSEWHERE):
        raise RequestError(f"{name} is in shared memory, which is not supported", Kind.UNSUPPORTED)


def require_plain_output(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse an output that is asked for as classes or in shared memory (RequestError)."""
    if parameters.get("classification") or any(key in parameters for key in _ELSEWHERE):
        raise RequestError(f"{name}: outputs as classes or in shared memory are not supported", Kind.UNSUPPORTED)


def sequence_part(parameters: Mapping[str, Any]) -> SequencePart | None:
    """The sequence that a request's parameters name, or None (RequestError where they are not valid)."""
    value = parameters.get("sequence_id", 0)
    start, end = (_flag(parameters, name) for name in ("sequence_start", "sequence_end"))
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise RequestError(f"sequence_id is {shown(value)}; it must be an integer or a string")
    if isinstance(value, str) and len(value) > _LONGEST_ID:
        raise RequestError(f"sequence_id has {len(value)} characters; at most {_LONGEST_ID} are allowed")
    if isinstance(value, int) and not 0 <= value < 2**64:
        raise RequestError(f"sequence_id is {value}; it must be from 0 to 2**64 - 1, and 0 means none")
    if value in (0, ""):
        if start or end:
            raise RequestError("sequence_start and sequence_end need a sequence_id other than 0")
        return None
    return SequencePart((type(value).__name__, value), start, end)


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """The parameter `timeout`, converted from microseconds to seconds (RequestError where it is not valid)."""
    value = parameters.get("timeout")
    if value is None or value == 0:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
        raise RequestError(f"timeout is {shown(value)}; it must be a positive number of microseconds, an integer")
    return value / 1e6


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"{name} is {shown(value)}; it must be true or false")
    return value


def new_request(
    inputs: Mapping[str, np.ndarray], outputs: tuple[str, ...] | None, parameters: Mapping[str, Any]
) -> InferenceRequest:
    """Make a request, and validate its parameters (RequestError)."""
    for name, count in Counter(outputs or ()).items():
        if count > 1:
            raise RequestError(f"the output {shown(name)} is asked for twice")
    return InferenceRequest(inputs, outputs, sequence_part(parameters), timeout_of(parameters))

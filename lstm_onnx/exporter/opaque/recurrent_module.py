"""A recurrent module of a copy, and its calls in an eager run."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ...spec import RecurrentSpec
from ..user_code import format_place
from ..weights import Array

States = tuple[Tensor, ...]
"""(h, c) of an LSTM, (h,) of a GRU or RNN, each ``(L*D, batch, features)``."""


@dataclass(frozen=True)
class RecordedCall:
    """One call of a recurrent module in an eager run; a loop makes thousands, of which few are looked at.

    Attributes:
        given: the states that it was called with, None where the caller passed none.
        returned: the states that it returned.
        axes: those of ``(L*D, batch, features)`` that these states lack, in the order in which they are added.
        place: the file and the line of the user's code that called it.
    """

    given: States | None
    returned: States
    axes: Sequence[int]
    place: tuple[str, int] | None

    @property
    def initial(self) -> States | None:
        """`given`, each ``(L*D, batch, features)`` of the module's dtype."""
        return with_axes(self.given, self.axes)

    @property
    def final(self) -> States:
        """`returned`, likewise."""
        return with_axes(self.returned, self.axes) or ()

    @property
    def line(self) -> str:
        """The line of the user's code that called it."""
        return format_place(self.place)


@dataclass
class RecurrentModule:
    """One recurrent module of the copy.

    Attributes:
        path: of the submodule, as ``named_modules`` gives it.
        spec: its sizes.
        cell: whether it is an nn.LSTMCell, nn.GRUCell or nn.RNNCell.
        weights: its parameters by torch's names, as its last call used them.
        computed: whether one of them is no parameter, but computed before the call.
        folds: the known products of its projections (see `kept_digest.kept_folds`).
        calls: the calls of the last eager run.
        override: initial states by call number, which replace those that the module's code passes.
        tracing: whether the module is being traced.
        num_traced: calls in this pass of the tracer, which may run the forward more than once.
        peepholes: ``(1, 3*H)`` of the input, output and forget gate, of an LSTM in the user's own code.
        reset_before: of a GRU in the user's own code, whether r multiplies h before the product with the weights.
        own_forward: whether it is of a subclass with a forward of its own.
        branched: whether a branch of an ``if`` on a value calls it; then not every run of the forward makes all calls.
        compared: `weights`, parameters that are known to be equal to these, and where these are in memory.
    """

    path: str
    spec: RecurrentSpec
    cell: bool
    weights: dict[str, Array] = field(default_factory=dict)
    computed: bool = False
    folds: Sequence[Array] = ()
    calls: list[RecordedCall] = field(default_factory=list)
    override: dict[int, States] = field(default_factory=dict)
    tracing: bool = False
    num_traced: int = 0
    peepholes: Array | None = None
    reset_before: bool = False
    own_forward: bool = False
    branched: bool = False
    compared: tuple[dict[str, Array], list[Tensor], list[int]] | None = None

    @cached_property
    def weight_names(self) -> tuple[str, ...]:
        """The names of `weights`."""
        return tuple(self.spec.parameter_shapes())

    def reset_calls(self) -> None:
        """Start counting calls anew; while the module is traced, those of the last eager run are kept."""
        self.num_traced = 0
        if not self.tracing:
            self.calls.clear()


def with_axes(states: States | None, axes: Sequence[int]) -> States | None:
    """States with the axes that they lack, as of `RecordedCall`."""
    return None if states is None else tuple(functools.reduce(torch.unsqueeze, axes, state) for state in states)

"""Finds LSTM, GRU and RNN cells in a loop's body by the structure of their sigmoids, tanhs and products."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..aten import aten
from .program import Carry, Here, Loop

NONLINEARITIES = {aten.tanh.default: "tanh", aten.relu.default: "relu"}
"""The nonlinearities of an RNN."""


@dataclass(frozen=True)
class Gates:
    """A cell in a body, whose weights are still to be read from its gates.

    Attributes:
        op_type: "LSTM", "GRU" or "RNN".
        arguments: the argument of each gate's sigmoid or tanh, by the gate's name: "i", "f", "g" and "o" of an LSTM;
            "r", "z" (or "1-z") and "n" of a GRU, with "n of x" and "n of h" instead of "n" where r multiplies a part of
            n; "n" of an RNN.
        used: the positions of the nonlinear part.
        h: the state.
        c: the cell state of an LSTM.
        inner: values of the step itself on which gates may depend: "new c", and "r h" where r multiplies h itself.
        nonlinearity: that of an RNN.
    """

    op_type: str
    arguments: Mapping[str, Any]
    used: frozenset[int]
    h: Carry
    c: Carry | None = None
    inner: Mapping[str, Here] = field(default_factory=dict)
    nonlinearity: str = "tanh"

    @property
    def states(self) -> tuple[Carry, ...]:
        """h, and c of an LSTM."""
        return (self.h,) if self.c is None else (self.h, self.c)

    @property
    def variables(self) -> dict[str, Any]:
        """What gates may depend on besides the input, by name."""
        return {"h": self.h, **({} if self.c is None else {"c": self.c}), **self.inner}


def gates_in(loop: Loop, carries: Sequence[Carry]) -> Iterator[Gates]:
    """All cells that a body may have, judged by their nonlinear parts alone."""
    for h in carries:
        yield from _grus(Match(loop), h)
        others = [_rnn(loop, h), *(_lstm(Match(loop), h, c) for c in carries if c != h)]
        yield from (gates for gates in others if gates is not None)


class Match:
    """The search for the parts of a cell in a body; `used` are the positions of its nonlinear part."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.used: set[int] = set()
        self.sigmoid = partial(self.unary, target=aten.sigmoid.default)
        self.tanh = partial(self.unary, target=aten.tanh.default)

    def operator(self, value: Any, target: Any) -> tuple[Any, ...] | None:
        """The arguments of the operator that makes a value, if it is of this kind."""
        if not isinstance(value, Here) or self.loop.body[value.position].target is not target:
            return None
        if self.loop.body[value.position].kwargs:
            return None
        return self.loop.body[value.position].args  # type: ignore[no-any-return]

    def unary(self, value: Any, target: Any) -> Any:
        """The argument of an operator of this kind."""
        args = self.operator(value, target)
        if args is None:
            return None
        self.used.add(value.position)
        return args[0]

    def both(self, value: Any, target: Any, one: Callable[[Any], Any], two: Callable[[Any], Any]) -> Any:
        """What `one` and `two` find in the two operands of a sum or product, in either order."""
        args = self.operator(value, target)
        if args is None or len(args) != 2:
            return None
        for first, second in (args, args[::-1]):
            before = set(self.used)
            found_one, found_two = one(first), two(second)
            if found_one is not None and found_two is not None:
                self.used.add(value.position)
                return found_one, found_two
            self.used = before
        return None

    def mixture(self, h: Carry) -> tuple[str, Any, Any] | None:
        """The arguments of z (or "1-z") and n, where the new h interpolates between the old h and n by z."""
        return self._mixed(h) or self._moved(h)

    def _mixed(self, h: Carry) -> tuple[str, Any, Any] | None:
        """The arguments of z and n in ``z * h + (1 - z) * n``, or in ``(1 - z) * h + z * n``."""
        for name, kept, taken in (("z", self.sigmoid, self._complement), ("1-z", self._complement, self.sigmoid)):
            pair = self.both(
                Here(h.position),
                aten.add.Tensor,
                partial(self.times, gate=kept, h=h),
                partial(self.both, target=aten.mul.Tensor, one=taken, two=self.tanh),
            )
            if pair is not None:
                z, (other, n) = pair
                return (name, z, n) if other == z else None
        return None

    def _moved(self, h: Carry) -> tuple[str, Any, Any] | None:
        """The arguments of z and n in ``n + z * (h - n)``, or in ``h + z * (n - h)``."""

        def difference(value: Any, place: int) -> Any:
            """The argument of n, in a difference with h at this place."""
            args = self.operator(value, aten.sub.Tensor)
            if args is None or len(args) != 2 or args[place] != h:
                return None
            self.used.add(value.position)
            return self.tanh(args[1 - place])

        def product(value: Any, place: int) -> Any:
            return self.both(value, aten.mul.Tensor, self.sigmoid, partial(difference, place=place))

        pair = self.both(Here(h.position), aten.add.Tensor, self.tanh, partial(product, place=0))
        if pair is not None:
            n, (z, other) = pair
            return ("z", z, n) if other == n else None
        pair = self.both(Here(h.position), aten.add.Tensor, lambda v: v if v == h else None, partial(product, place=1))
        if pair is None:
            return None
        _, (z, n) = pair
        return "1-z", z, n

    def times(self, value: Any, gate: Callable[[Any], Any], h: Carry) -> Any:
        """The argument of the gate in ``gate * h``."""
        pair = self.both(value, aten.mul.Tensor, gate, lambda v: v if v == h else None)
        return None if pair is None else pair[0]

    def _complement(self, value: Any) -> Any:
        """The argument of the sigmoid z in ``1 - z``."""
        for target, place in ((aten.rsub.Scalar, 0), (aten.sub.Tensor, 1)):
            args = self.operator(value, target)
            if args is not None and len(args) == 2 and args[1 - place] == 1:
                self.used.add(value.position)
                return self.sigmoid(args[place])
        return None


def _lstm(match: Match, h: Carry, c: Carry) -> Gates | None:
    state = Here(c.position)
    top = match.both(
        Here(h.position), aten.mul.Tensor, match.sigmoid, lambda v: True if match.tanh(v) == state else None
    )
    low = match.both(
        state,
        aten.add.Tensor,
        lambda v: match.both(v, aten.mul.Tensor, match.sigmoid, lambda w: w if w == c else None),
        lambda v: match.both(v, aten.mul.Tensor, match.sigmoid, match.tanh),
    )
    if top is None or low is None:
        return None
    gates = {"i": low[1][0], "f": low[0][0], "g": low[1][1], "o": top[0]}
    return Gates("LSTM", gates, frozenset(match.used), h, c, {"new c": state})


def _grus(match: Match, h: Carry) -> Iterator[Gates]:
    """A GRU whose r multiplies a part of n, as in torch, and one whose r multiplies h itself."""
    mixture = match.mixture(h)
    if mixture is None:
        return
    (name, z, n), used = mixture, set(match.used)
    inner = match.both(n, aten.add.Tensor, lambda v: match.both(v, aten.mul.Tensor, match.sigmoid, _any), _any)
    if inner is not None:
        (r, of_h), of_x = inner
        yield Gates("GRU", {"r": r, name: z, "n of x": of_x, "n of h": of_h}, frozenset(match.used), h)
    match.used = used
    products = [Here(position) for position in sorted(match.loop.reached([n]))]
    resets = [(product, r) for product in products if (r := match.times(product, match.sigmoid, h)) is not None]
    if len(resets) == 1:
        ((product, r),) = resets
        yield Gates("GRU", {"r": r, name: z, "n": n}, frozenset(match.used), h, None, {"r h": product})


def _rnn(loop: Loop, h: Carry) -> Gates | None:
    item = loop.body[h.position]
    if item.target not in NONLINEARITIES or item.kwargs or len(item.args) != 1:
        return None
    return Gates("RNN", {"n": item.args[0]}, frozenset({h.position}), h, nonlinearity=NONLINEARITIES[item.target])


def _any(value: Any) -> Any:
    return value

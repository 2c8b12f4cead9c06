"""The nonlinear part of an LSTM and of a GRU in a loop's body: sigmoids, tanhs and products, matched by structure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from .program import Carry, Here, Loop

aten = torch.ops.aten


class Match:
    """The search for the parts of an LSTM or a GRU in a body; `used` are the positions of its nonlinear part."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.used: set[int] = set()

    def operator(self, value: Any, target: Any) -> tuple[Any, ...] | None:
        """The arguments of a value that an operator of this kind makes."""
        if not isinstance(value, Here) or self.loop.body[value.position].target is not target:
            return None
        if self.loop.body[value.position].kwargs:
            return None
        return self.loop.body[value.position].args  # type: ignore[no-any-return]

    def unary(self, value: Any, target: Any) -> Any:
        """What a sigmoid or a tanh is of."""
        args = self.operator(value, target)
        if args is None:
            return None
        self.used.add(value.position)
        return args[0]

    def sigmoid(self, value: Any) -> Any:
        """What a sigmoid is of."""
        return self.unary(value, aten.sigmoid.default)

    def tanh(self, value: Any) -> Any:
        """What a tanh is of."""
        return self.unary(value, aten.tanh.default)

    def both(self, value: Any, target: Any, one: Callable[[Any], Any], two: Callable[[Any], Any]) -> Any:
        """What the two operands of a sum or product are, in either order."""
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

    def lstm(self, h: Carry, c: Carry) -> dict[str, Any] | None:
        """What the gates i, f, g and o are of, where h and c are those of an LSTM."""
        state = Here(c.position)
        top = self.both(
            Here(h.position), aten.mul.Tensor, self.sigmoid, lambda v: True if self.tanh(v) == state else None
        )
        low = self.both(
            state,
            aten.add.Tensor,
            lambda v: self.both(v, aten.mul.Tensor, self.sigmoid, lambda w: w if w == c else None),
            lambda v: self.both(v, aten.mul.Tensor, self.sigmoid, self.tanh),
        )
        if top is None or low is None:
            return None
        return {"i": low[1][0], "f": low[0][0], "g": low[1][1], "o": top[0]}

    def gru(self, h: Carry) -> dict[str, Any] | None:
        """What the gates r and z are of, and the two parts of n, where h is that of a GRU; "1-z" instead of z."""
        found = self._mixed(h) or self._moved(h)
        if found is None:
            return None
        name, z, n = found
        inner = self.both(n, aten.add.Tensor, lambda v: self.both(v, aten.mul.Tensor, self.sigmoid, _any), _any)
        if inner is None:
            return None
        (r, of_h), of_x = inner
        return {"r": r, name: z, "n of x": of_x, "n of h": of_h}

    def _mixed(self, h: Carry) -> tuple[str, Any, Any] | None:
        """What z and n of ``z * h + (1 - z) * n`` are of, or of ``(1 - z) * h + z * n``."""
        for name, kept, taken in (("z", self.sigmoid, self._complement), ("1-z", self._complement, self.sigmoid)):
            pair = self.both(
                Here(h.position),
                aten.add.Tensor,
                partial(self._times, gate=kept, h=h),
                partial(self.both, target=aten.mul.Tensor, one=taken, two=self.tanh),
            )
            if pair is not None:
                z, (other, n) = pair
                return (name, z, n) if other == z else None
        return None

    def _moved(self, h: Carry) -> tuple[str, Any, Any] | None:
        """What z and n of ``n + z * (h - n)`` are of."""

        def difference(value: Any) -> Any:
            args = self.operator(value, aten.sub.Tensor)
            if args is None or len(args) != 2 or args[0] != h:
                return None
            self.used.add(value.position)
            return self.tanh(args[1])

        def product(value: Any) -> Any:
            return self.both(value, aten.mul.Tensor, self.sigmoid, difference)

        pair = self.both(Here(h.position), aten.add.Tensor, self.tanh, product)
        if pair is None:
            return None
        n, (z, other) = pair
        return ("z", z, n) if other == n else None

    def _times(self, value: Any, gate: Callable[[Any], Any], h: Carry) -> Any:
        """What the gate of ``gate * h`` is of."""
        pair = self.both(value, aten.mul.Tensor, gate, lambda v: v if v == h else None)
        return None if pair is None else pair[0]

    def _complement(self, value: Any) -> Any:
        """What the sigmoid z of ``1 - z`` is of."""
        for target, place in ((aten.rsub.Scalar, 0), (aten.sub.Tensor, 1)):
            args = self.operator(value, target)
            if args is not None and len(args) == 2 and args[1 - place] == 1:
                self.used.add(value.position)
                return self.sigmoid(args[place])
        return None


def _any(value: Any) -> Any:
    return value

"""Proves that a program is what was traced: unrolled, it has the trace's hash.

Each value's hash is that of its operator and its arguments, so two equal hashes are two equal computations.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from .program import Affine, Carry, Element, Here, Listed, Loop, Node, Program, Result, Run, Sizes, Trace


def _hash(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _constant(value: Any) -> str:
    return f"{type(value).__name__}:{value!r}"


def fingerprint(trace: Trace) -> tuple[Any, frozenset[str]]:
    """The hash of each of a trace's outputs, and those of all that it computes."""
    known: dict[Node, str] = {}

    def of(value: Any) -> Any:
        if isinstance(value, Node):
            return known[value]
        if isinstance(value, tuple):
            return tuple(of(part) for part in value)
        return _constant(value)

    for node in trace.nodes:
        known[node] = _hash(str(node.target), of(node.args), of(node.kwargs))
    return of(trace.outputs), frozenset(known.values())


class _Unrolled:
    """The hashes of a program at some lengths."""

    def __init__(self, program: Program, sizes: Sizes) -> None:
        self.program, self.sizes = program, sizes
        self.results: dict[int, str] = {}
        self.steps: dict[tuple[int, int, int], str] = {}

    def number(self, value: Any, step: int = 0) -> int:
        return int(value.at(self.sizes, step)) if isinstance(value, Affine) else value

    def of(self, value: Any, loop: int = -1, step: int = 0) -> Any:
        if isinstance(value, tuple):
            return tuple(self.of(part, loop, step) for part in value)
        if isinstance(value, Result):
            return self.results[value.index]
        if isinstance(value, Here):
            return self.steps[loop, value.position, step]
        if isinstance(value, Carry):
            if step < value.back:
                return self.of(value.initial[step])
            return self.steps[loop, value.position, step - value.back]
        if isinstance(value, Element):
            return self.steps[value.loop, value.position, self.number(value.step, step)]
        if isinstance(value, Affine):
            return _constant(self.number(value, step))
        if isinstance(value, Listed):
            return tuple(self.listed(value, loop, step))
        return _constant(value)

    def listed(self, value: Listed, loop: int, step: int) -> list[Any]:
        items: list[Any] = []
        for piece in value.pieces:
            if isinstance(piece, Run):
                start, count = self.number(piece.start, step), self.number(piece.count, step)
                items += [self.steps[run, at, start + piece.by * i] for i in range(count) for run, at in piece.block]
            else:
                items.append(self.of(piece, loop, step))
        return items

    def run(self) -> Any:
        for item in self.program.items:
            if not isinstance(item, Loop):
                self.results[item.index] = _hash(str(item.target), self.of(item.args), self.of(item.kwargs))
                continue
            for step in range(self.number(item.count)):
                for part in item.body:
                    key = item.index, part.index, step
                    args, kwargs = self.of(part.args, item.index, step), self.of(part.kwargs, item.index, step)
                    self.steps[key] = _hash(str(part.target), args, kwargs)
        return self.of(self.program.outputs)


def unrolled(program: Program, sizes: Sizes, known: frozenset[str] | None = None) -> Any:
    """The hash of each of a program's outputs at some lengths; None where it has none.

    Args:
        program: the program.
        sizes: the lengths.
        known: the hashes of all that the module computes; a program that computes anything else has no hash.  They
            reveal a step too many, which would otherwise go unnoticed, since nothing reads it.
    """
    unrolling = _Unrolled(program, sizes)
    try:
        outputs = unrolling.run()
    except KeyError:  # it reads a step that does not exist
        return None
    if known is not None and not known.issuperset([*unrolling.results.values(), *unrolling.steps.values()]):
        return None
    return outputs


def is_proven(program: Program, trace: Trace) -> bool:
    """Whether a trace is the program unrolled, with the same weights."""
    outputs, known = fingerprint(trace)
    same = all(
        name not in trace.leaves or torch.equal(tensor, trace.leaves[name]) for name, tensor in program.leaves.items()
    )
    return same and program.structure == trace.structure and unrolled(program, trace.sizes, known) == outputs

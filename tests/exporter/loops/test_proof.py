"""The proof of a program, and that it rejects programs with one place changed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.make_functional import make_functional
from lstm_onnx.exporter.loops.program import (
    Affine,
    Carry,
    Element,
    Here,
    Leaf,
    Loop,
    Operator,
    Program,
    Run,
    Trace,
    positions_in,
)
from lstm_onnx.exporter.loops.proof import is_proven
from lstm_onnx.exporter.loops.roll import rolled_up
from lstm_onnx.exporter.loops.trace import trace_at

from .test_files import made
from .zoo import ZOO

pytestmark = pytest.mark.sweep(9)

NAMES = ("PeepholeLSTM", "StackedCells", "TwoStepsBack", "MaskedSteps", "SelectiveScan", "FillsByIndex")
SIZES = ((7, 2), (8, 2), (3, 3), (10, 3))


def rolled(name: str) -> tuple[Program, list[Trace]]:
    """A module's program, and its traces at some lengths."""
    module, entry = made(ZOO[name]), ZOO[name]
    arguments = bind_arguments(module, entry.inputs(2, 5), tuple(entry.axes))
    functional = make_functional(module, arguments)
    found = rolled_up(functional, ["time"], {"time": 5, "batch": 2})
    assert found is not None
    axes = found.program.axes
    sizes = [dict(zip(axes, own, strict=True)) for own in SIZES]
    return found.program, [trace_at(functional, own, axes, lines=False) for own in sizes]


_KNOWN: dict[str, tuple[Program, list[Trace]]] = {}


def known(name: str) -> tuple[Program, list[Trace]]:
    if name not in _KNOWN:
        _KNOWN[name] = rolled(name)
    return _KNOWN[name]


def is_right(program: Program, traces: list[Trace]) -> bool:
    return all(is_proven(program, trace) for trace in traces)


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_program_unrolled_is_the_trace_at_every_length(name: str) -> None:
    assert is_right(*known(name))


def changes(value: Any, random_: random.Random, leaves: list[str], *, stepped: bool) -> Iterator[Any]:
    """Arguments with one place changed each: a weight, an index, a number, a carry, where a value comes from.

    Where no step is counted (not `stepped`), what a number grows by with the step changes nothing, and stays.
    """
    if isinstance(value, tuple):
        for place, part in enumerate(value):
            for new in changes(part, random_, leaves, stepped=stepped):
                yield (*value[:place], new, *value[place + 1 :])
    elif isinstance(value, Leaf):
        others = [name for name in leaves if name != value.name]
        if others:
            yield Leaf(random_.choice(others))
    elif isinstance(value, Affine):
        yield replace(value, const=value.const + random_.choice((-1, 1)))
        if stepped:
            yield replace(value, step=value.step + random_.choice((-2, 1)))
    elif isinstance(value, Carry):
        yield Here(max(value.position - 1, 0))
        yield replace(value, position=value.position + 1)
        before = changes(value.initial, random_, leaves, stepped=False)
        yield from (replace(value, initial=new) for new in before)
    elif isinstance(value, Here) and value.position:
        yield Here(value.position - 1)
    elif isinstance(value, float):
        yield value + 0.5
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value + 7


def read_of(program: Program, loop: Loop) -> set[int]:
    """The positions of a loop's body that the program's outputs are made of; a change elsewhere changes nothing."""
    todo = [element.position for element in program.all_of(Element) if element.loop == loop.index]
    todo += [at for run in program.all_of(Run) for index, at in run.block if index == loop.index]
    read: set[int] = set()
    while todo:
        if (position := todo.pop()) not in read:
            read.add(position)
            todo += positions_in(loop.body[position].arguments)
    return read


def mutants(program: Program, seed: int) -> Iterator[Program]:
    random_, leaves = random.Random(seed), sorted(program.leaves)  # noqa: S311 - not for secrets

    def with_item(place: int, item: Operator | Loop) -> Program:
        return replace(program, items=(*program.items[:place], item, *program.items[place + 1 :]))

    for place, item in enumerate(program.items):
        if isinstance(item, Operator):
            for args in changes(item.args, random_, leaves, stepped=False):
                yield with_item(place, replace(item, args=args))
            continue
        for more in (-1, 1):
            yield with_item(place, replace(item, count=item.count.plus(more)))
        for at in sorted(read_of(program, item)):
            operator = item.body[at]
            for args in changes(operator.args, random_, leaves, stepped=True):
                body = (*item.body[:at], replace(operator, args=args), *item.body[at + 1 :])
                yield with_item(place, replace(item, body=body))


def require_rejected(name: str, seed: int, most: int) -> int:
    program, traces = known(name)
    found = list(mutants(program, seed))
    random.Random(seed).shuffle(found)  # noqa: S311 - not for secrets
    for number, mutant in enumerate(found[:most]):
        assert mutant != program
        survives = is_right(mutant, traces)
        assert not survives, (name, number)
    return len(found[:most])


@pytest.mark.parametrize("name", NAMES[:3])
def test_programs_with_one_place_changed_are_rejected(name: str) -> None:
    assert require_rejected(name, 0, 25) == 25


@pytest.mark.slow
def test_a_thousand_programs_with_one_place_changed_are_rejected() -> None:
    rejected = 0
    for name in (name for name in sorted(ZOO) if ZOO[name].becomes != "refused" and len(ZOO[name].axes) == 1):
        rejected += require_rejected(name, 1, 45)
    assert rejected >= 1000


def test_another_weight_of_the_same_name_is_no_proof() -> None:
    program, traces = known("PeepholeLSTM")
    name = next(iter(program.leaves))
    other = replace(program, leaves={**program.leaves, name: torch.zeros_like(program.leaves[name])})
    assert is_proven(program, traces[0])
    assert not is_proven(other, traces[0])

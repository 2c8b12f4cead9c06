"""Elementwise operators: they never compute across steps."""

from __future__ import annotations

import operator as operator_
from collections.abc import Callable, Sequence
from dataclasses import replace

from onnx import TensorProto

from ...onnxgraph.nodes import END_OF_AXIS
from ..fact import NONE, Axis, Fact, join, length, open_names
from ..node import Call, operator
from ..size import Size

_NAMES = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BiasGelu BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil "
    "Celu Clip Cos Cosh Div Elu Erf Exp FastGelu Floor Gelu HardSigmoid HardSwish IsInf IsNaN LeakyRelu Log Max Mean "
    "Min Mish Mod Mul Neg Not Or PRelu Pow QuickGelu Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus "
    "Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor"
)
ELEMENTWISE = tuple(_NAMES.split())
COPIES = ("Identity", "Cast", "Dropout")
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_WHOLE = (TensorProto.INT64, TensorProto.INT32)


def _divided(a: Size, b: Size) -> Size:
    if b.number == 0:
        return Size.computed("floor", a, b)
    return _numeric(a, b, operator_.floordiv) or a.divided(b) or Size.computed("floor", a, b)


def _rest(a: Size, b: Size) -> Size:
    return (_numeric(a, b, operator_.mod) if b.number != 0 else None) or Size.computed("mod", a, b)


_ARITHMETIC: dict[str, Callable[[Size, Size], Size]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": _divided,
    "Mod": _rest,
    "Max": lambda a, b: _numeric(a, b, max) or _no_less(a, b) or _no_less(b, a) or Size.computed("max", a, b),
    "Min": lambda a, b: _numeric(a, b, min) or least(a, b) or least(b, a) or Size.computed("min", a, b),
}


def _numeric(a: Size, b: Size, compute: Callable[[int, int], int]) -> Size | None:
    """The function of two integers that an operator computes."""
    return Size.of(compute(a.number, b.number)) if a.number is not None and b.number is not None else None


def _no_less(a: Size, b: Size) -> Size | None:
    """`a` where it is a product of dynamic axes, each at least 1, and `b` is no more than 1."""
    return a if a == b or (a.is_product and b.number is not None and b.number <= 1) else None


def least(a: Size, b: Size) -> Size | None:
    """`a` where `b` is no less, or is the number that exporters write for the end of any axis."""
    if _no_less(b, a) is not None:
        return a
    return a if a.symbol is not None and b.number is not None and b.number >= END_OF_AXIS else None


@operator(*ELEMENTWISE)
def elementwise(call: Call) -> list[Fact]:
    """Any number of inputs, with broadcasting."""
    numbers = _numbers(call)
    if numbers is not None:
        rank = max((fact.rank for fact in call.given), default=0)
        return [Fact(_vector(len(numbers), rank), numbers=numbers)]
    return [computed(call, call.given)]


@operator(*COPIES, "CastLike")
def same(call: Call) -> list[Fact]:
    """The values of the first input; a Cast to integers keeps sizes unchanged."""
    first = call.fact(0)
    floats = call.op == "CastLike" or (call.op == "Cast" and call.attributes.get("to", 0) not in _WHOLE)
    if first.numbers is not None and floats:
        return [replace(first, numbers=None, sized=first.depends_on_sizes)]
    return [first, replace(first, numbers=None)]


@operator(*COMPARISONS)
def compared(call: Call) -> list[Fact]:
    """Positions compared with lengths: a mask, which is correct in a chunk as in the whole sequence."""
    facts = call.given
    if any(fact.positions for fact in facts) and any(fact.varies for fact in facts):
        masking = [fact for fact in facts if fact.varies]
        if all(fact.lengths for fact in masking):
            facts = [replace(fact, positions=NONE, sized=NONE, numbers=None) for fact in facts]
            return [replace(computed(call, facts), lengths=False)]
    return [computed(call, facts)]


def computed(call: Call, facts: Sequence[Fact]) -> Fact:
    """The fact of an elementwise result; records where steps of different positions are combined."""
    joined = join(facts)
    result = replace(joined, axes=broadcast(call, facts), spans=open_names(facts))
    require_steps_alone(call, facts, result)
    return result


def require_steps_alone(call: Call, facts: Sequence[Fact], result: Fact) -> None:
    """Record where a step is combined with the call's size, its first step or its last step."""
    if not result.varies:
        return
    call.meet(result.positions, "counts steps from the first of each call")
    call.meet(result.sized, "computes with the number of steps")
    findings = call.findings
    reached = findings.first_names(result.open)
    for fact in facts:
        late = {name for name in fact.last if findings.first_name(name) in reached - findings.first_names(fact.open)}
        call.meet(late, "combines the last step, or a summary of all steps, with every step")
        if fact.states:
            findings.handled(call)


def broadcast(call: Call, facts: Sequence[Fact]) -> tuple[Axis, ...] | None:
    """The axes after broadcasting; None if those of an input are unknown."""
    if any(fact.axes is None for fact in facts):
        return None
    rank = max((fact.rank for fact in facts), default=0)
    shapes = [fact.axes or () for fact in facts]
    return tuple(
        one_axis(call, [shape[-back] for shape in shapes if len(shape) >= back]) for back in range(rank, 0, -1)
    )


def one_axis(call: Call, axes: Sequence[Axis]) -> Axis:
    """The axis that results from one axis of each input, where those of size 1 are repeated."""
    wide = [axis for axis in axes if axis]
    # An axis with two factors says more than the same axis as one factor.
    first = max(wide, key=len, default=())
    for other in wide:
        a, b = length(first), length(other)
        if a == b:
            continue
        if a.symbol is not None and b.symbol is not None:
            call.findings.same(a.symbol, b.symbol)
        elif a.names or b.names:
            call.meet(a.names | b.names, f"joins an axis of {a} with one of {b}")
    return first


def _numbers(call: Call) -> tuple[Size, ...] | None:
    """The integer values of an elementwise result, if all operands are known integers."""
    operands = call.operands()
    if operands is None:
        return None
    if call.op == "Neg":
        return tuple(-size for size, *_ in operands)
    compute = _ARITHMETIC.get(call.op)
    return tuple(compute(a, b) for a, b in operands) if compute and len(call.facts) == 2 else None


def _vector(count: int, rank: int) -> tuple[Axis, ...]:
    return () if rank == 0 else ((Size.of(count),) if count != 1 else (),)

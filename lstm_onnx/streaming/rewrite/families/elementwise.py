"""Operators on each element by itself: streams meet step by step."""

from __future__ import annotations

from dataclasses import replace

from ...size import ONE
from ..facts import Fact, RefusedError, Shape, Static, Stream, with_size
from ..rewriter import Call, Rewriter, broadcast, family, normal, require_no_carry, require_shape
from ..stages import copy_aligned
from .shapes import arithmetic

_OPERATORS = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Celu "
    "Clip Cos Cosh DequantizeLinear Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid "
    "HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Min Mish Mod Mul Neg Not Or PRelu Pow "
    "QuantizeLinear Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan "
    "Tanh ThresholdedRelu Where Xor Mean"
)


@family(*_OPERATORS.split(), repeated=True)
def elementwise(p: Rewriter, call: Call) -> list[Fact]:
    """Broadcasting joins axes from the back."""
    sizes = arithmetic(p, call)
    if sizes is not None:
        return [sizes]
    if call.op in ("DequantizeLinear", "QuantizeLinear") and len(call.streams) == 1 and call.streams[0][0] == 0:
        return _scaled(p, call)
    if not call.streams:
        return _without_steps(p, call)
    require_no_carry(call)
    shapes = [_shape(fact) for fact in call.given]
    for place, fact in enumerate(call.facts):
        if fact is not None:
            p.name(call.node.input[place])  # refuses the number of steps as a number
    backs = {fact.axis - fact.rank for _, fact in call.streams}
    if len(backs) > 1:
        raise RefusedError("joins values that have time on different axes: every step meets every other")
    back = backs.pop()
    _require_steps_alone(call, back)
    count = copy_aligned(p, call)
    first = call.streams[0][1]
    shape = list(broadcast(shapes))
    axis = len(shape) + back
    shape[axis] = first.shape[first.axis]  # `aligned` has compared the numbers of steps
    return [Stream(tuple(shape), p.output_dtype(call), axis, count, first.fold)] * len(call.node.output)


def _shape(fact: Fact) -> Shape:
    """The axes of an input; time is 1 where it is checked elsewhere that lengths agree."""
    if isinstance(fact, Stream):
        return with_size(fact.shape, fact.axis, ONE)
    shape = require_shape(fact)
    return with_size(shape, fact.repeated[0], ONE) if isinstance(fact, Static) and fact.repeated else shape


def _require_steps_alone(call: Call, back: int) -> None:
    for place, fact in enumerate(call.facts):
        if fact is None or isinstance(fact, Stream) or fact.shape is None:
            continue
        if len(fact.shape) >= -back and fact.shape[back] != ONE:
            if isinstance(fact, Static) and fact.repeated is not None and fact.repeated[0] == len(fact.shape) + back:
                stream = next(stream for _, stream in call.streams)
                if fact.shape[back] != stream.shape[stream.axis]:
                    raise RefusedError("joins sequences of different numbers of steps")
                continue
            raise RefusedError(f"joins time with the {fact.shape[back]} steps of {call.node.input[place]}")
        if isinstance(fact, Static) and fact.repeated is not None:
            raise RefusedError("joins values that have time on different axes: every step meets every other")


def _without_steps(p: Rewriter, call: Call) -> list[Fact]:
    found = p.plain(call)
    repeated = [fact for fact in call.given if isinstance(fact, Static) and fact.repeated is not None]
    if not all(isinstance(fact, Static) for fact in found):
        if repeated:
            require_no_carry(call)
        return found
    try:
        shape = broadcast([require_shape(fact) for fact in call.given])
    except RefusedError:
        if repeated:
            raise
        shape = None
    place = None
    if repeated and shape is not None:
        places = {len(shape) - len(require_shape(fact)) + fact.repeated[0] for fact in repeated if fact.repeated}
        if len(places) > 1:
            raise RefusedError("joins values that have time on different axes: every step meets every other")
        first = repeated[0].repeated
        assert first is not None  # noqa: S101 - the filter above
        place = (places.pop(), first[1])
    one = call.given[0] if len(call.given) == 1 else None
    fill = one.fill if isinstance(one, Static) and call.op in ("Identity", "Cast") else None
    return [
        replace(fact, shape=shape or fact.shape, repeated=place, fill=fill)
        for fact in found
        if isinstance(fact, Static)
    ]


def _scaled(p: Rewriter, call: Call) -> list[Fact]:
    """A stored scale, per tensor or along another axis than time."""
    [(_, fact)] = call.streams
    scale = call.fact(1)
    axis = normal(int(call.attributes.get("axis", 1)), fact.rank)
    if (scale is None or scale.shape != ()) and axis == fact.axis:
        raise RefusedError("has a scale for each step")
    p.copy(call)
    return [replace(fact, dtype=p.output_dtype(call))]

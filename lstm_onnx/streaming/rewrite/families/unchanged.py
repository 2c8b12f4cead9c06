"""Operators that are the same for chunks, since they compute each step, or each element, separately.

What an operator does to axes is defined once, in `operators`; here it is applied to a single node, in which the time
axis of every stream has the same name.  A node that combines steps, or gives two time axes or none, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ....onnxgraph.recurrent import GATES
from ... import operators  # noqa: F401 - importing them registers them
from ...fact import Axis, axis_of, length
from ...fact import Fact as FollowedFact
from ...node import OPERATORS, Findings, Meeting
from ...node import Call as FollowedCall
from ...operators.elementwise import COMPARISONS, COPIES, ELEMENTWISE
from ...operators.products import PAIRS
from ...operators.reductions import NORMALIZATIONS, REDUCTIONS, SOFTMAXES
from ...operators.windows import GLOBAL_POOLS
from ...size import Size, normal, product
from ..errors import RefusedError
from ..facts import Fact, Fold, Static, Stream
from ..rewriter import OTHER_AXES, Call, Rewriter, broadcast, family, require_no_carry, require_shape
from ..stages import copy_aligned, give_where_none_is_due, require_one_fold
from .shapes import arithmetic

_EVERY = "combines every step with every other (attention): needs the whole sequence"
_ALL_STEPS = "all steps: needs the whole sequence"
_RUNNING = "a running mean (torch.cumsum), or a mean over a window of steps (AvgPool1d)"
_SUMS = (f"sums over {_ALL_STEPS}", "torch.cumsum, or a convolution")
BY_PLACE = ("selects steps by their position in the sequence", "the first step, x[:, 0], or the last, x[:, -1]")
_REASONS = {
    **dict.fromkeys(("Einsum", "Gemm", "MatMul", "MatMulInteger"), _SUMS),
    **dict.fromkeys((*NORMALIZATIONS, "BatchNormalization"), (f"normalises over {_ALL_STEPS}", _RUNNING)),
    **dict.fromkeys(SOFTMAXES, (f"computes a softmax over {_ALL_STEPS}", _RUNNING)),
    **{
        op: (f"computes {op.removeprefix('Reduce').lower()} over {_ALL_STEPS}", _RUNNING)
        for op in (*REDUCTIONS, "ArgMax", "ArgMin")
    },
    **dict.fromkeys(GLOBAL_POOLS, (f"pools over {_ALL_STEPS}", "a pool over a window of steps")),
    **dict.fromkeys(("GatherElements", "GatherND"), BY_PLACE),
    "DFT": (f"computes a Fourier transform over {_ALL_STEPS}", "torch.stft, or torch.fft.rfft of each frame"),
    "Split": ("divides the steps of a sequence", ""),
    "Tile": ("repeats the sequence", ""),
    "TopK": (f"sorts {_ALL_STEPS}", ""),
}
"""Why an operator that combines steps is refused, and what can be written instead."""
_VARYING = {
    **dict.fromkeys(("Concat", "Einsum", *ELEMENTWISE, *COMPARISONS), 2**31),
    **dict.fromkeys(("Gather", "GatherElements", "GatherND", "MatMul", "MatMulInteger"), 2),
    **dict.fromkeys(GATES, 7),
}
"""How many inputs, from the first, may have steps; only the first one for other operators."""
_CONSTANT = (*REDUCTIONS, "OneHot", "Split", "Squeeze", "Tile", "TopK", "Unsqueeze")
"""Operators with axes or sizes as input 1."""


@family(*(op for op in _REASONS if op != "Tile"), "OneHot")
def unchanged(p: Rewriter, call: Call) -> list[Fact]:
    """A node that computes a step from the same step of its inputs, unchanged."""
    if not call.streams:
        return p.plain(call)
    require_no_carry(call)
    if call.streams[-1][0] >= _VARYING.get(call.op, 1):
        raise RefusedError("has parameters that vary with time")
    found = _followed(p, call)
    if call.op in _CONSTANT and call.has(1) and call.integers(1) is None:
        raise RefusedError("has axes or sizes that are not constant")
    count, first = copy_aligned(p, call), call.streams[0][1]
    return [
        replace(_stream(p, fact, first), count=count, dtype=p.output_dtype(call, place))
        for place, fact in enumerate(found)
    ]


@family("Squeeze", "Unsqueeze", "Transpose")
def moved(p: Rewriter, call: Call) -> Sequence[Fact]:
    """Squeeze, Unsqueeze or Transpose of any value, also of sizes."""
    fact = call.fact(0)
    if isinstance(fact, Static) and fact.numbers is not None:
        if call.op == "Squeeze" and len(fact.numbers) == 1:
            return [replace(fact, shape=(), array=None)]
        if call.op == "Unsqueeze" and fact.shape == ():
            return [replace(fact, shape=(Size.of(1),), array=None)]
    if isinstance(fact, Stream):
        return unchanged(p, call)
    [found] = _followed(p, call)
    [result] = p.plain(call)
    if found.axes is None:
        return [result]
    shape = tuple(map(length, found.axes))
    if isinstance(result, Static) and isinstance(fact, Static):
        return [replace(result, shape=shape, fill=fact.fill)]
    return [replace(result, shape=shape)]


class _OneNode(Findings):
    """Follows time through one node."""

    def __init__(self, time: str) -> None:
        super().__init__()
        self.time = time

    def same(self, one: str, other: str) -> None:
        """Two axes have the same size: record it if one is time and the other another value's."""
        if self.time in (one, other) and one != other:
            self.meetings.setdefault(self.time, Meeting("", "", "joins time with another axis"))


def _followed(p: Rewriter, call: Call) -> list[FollowedFact]:
    """The results according to following time.

    Raises:
        RefusedError: the node combines steps.
    """
    time = p.lengths.time
    findings = _OneNode(time)
    facts = tuple(None if fact is None else _fact(fact, time, place) for place, fact in enumerate(call.facts))
    try:
        found = OPERATORS[call.op](FollowedCall(call.node, call.attributes, facts, p.graph.opset, findings))
    except (ArithmeticError, LookupError, TypeError, ValueError):  # the node lacks something that its operator needs
        raise RefusedError("is an operator that is not known to compute each step separately") from None
    if time in findings.meetings:
        how = findings.meetings[time].how
        if any(fact.shape is None for fact in call.given):
            raise RefusedError("the shape of its input is not known")
        if how == PAIRS:
            raise RefusedError(_EVERY)
        if how.startswith("joins"):
            require_one_fold(call)
            raise RefusedError(_joined(call))
        if how.startswith("is an Einsum"):
            raise RefusedError(how)
        raise RefusedError(*_REASONS.get(call.op, ("combines steps", "")))
    return list(found)[: len(call.node.output)]


def _joined(call: Call) -> str:
    """The reason for a node that joins time with an axis of another value."""
    _, stream = call.streams[0]
    back = stream.axis - stream.rank
    for name, fact in zip(call.node.input, call.facts, strict=True):
        shape = None if fact is None or isinstance(fact, Stream) else fact.shape
        if shape is not None and len(shape) >= -back and shape[back] != Size.of(1):
            return f"joins time with the {shape[back]} steps of {name}"
    return "joins time with an axis of another value"


def _fact(fact: Fact, time: str, place: int) -> FollowedFact:
    """`fact` in the form for following time, with the same size for the steps of all streams."""
    if fact.shape is None:
        return FollowedFact()
    axes: list[Axis] = list(map(axis_of, fact.shape))
    if isinstance(fact, Stream):
        fold = fact.fold or Fold(Size.of(1), Size.of(1))
        axes[fact.axis] = (*axis_of(fold.before), Size.of(time), *axis_of(fold.after))
    elif isinstance(fact, Static) and fact.repeated is not None:
        axes[fact.repeated[0]] = (Size.of(time),)
    numbers = fact.numbers if isinstance(fact, Static) and place else None
    return FollowedFact(tuple(axes), varies=not isinstance(fact, Static), numbers=numbers)


def _stream(p: Rewriter, fact: FollowedFact, first: Stream) -> Stream:
    """The result as a stream, with time where `fact` has it."""
    time = Size.of(p.lengths.time)
    if fact.axes is None:
        raise RefusedError("gives a value of unknown shape")
    places = [place for place, axis in enumerate(fact.axes) if p.lengths.depends(length(axis))]
    if len(places) != 1:
        raise RefusedError(_EVERY if places else "removes the time axis")
    [axis] = places
    own = fact.axes[axis]
    if time not in own:
        raise RefusedError("regroups the elements of several steps")
    fold = Fold(product(own[: own.index(time)]), product(own[own.index(time) + 1 :]))
    steps = fold.before * first.steps * fold.after
    shape = tuple(steps if place == axis else length(each) for place, each in enumerate(fact.axes))
    return replace(first, shape=shape, axis=axis, fold=None if fold == Fold(Size.of(1), Size.of(1)) else fold)


@family(*ELEMENTWISE, *COMPARISONS, *COPIES, "DequantizeLinear", "QuantizeLinear", repeated=True)
def elementwise(p: Rewriter, call: Call) -> Sequence[Fact]:
    """Broadcasting joins axes from the back."""
    sizes = arithmetic(p, call)
    if sizes is not None:
        return [sizes]
    if not call.streams:
        return _without_steps(p, call)
    divisor = call.fact(1)
    if call.op in ("Div", "Mod") and isinstance(divisor, Stream) and (divisor.dtype or np.dtype(bool)).kind in "iu":
        give_where_none_is_due(p, call.node.input[1], divisor, 1)
    if len({fact.axis - fact.rank for _, fact in call.streams}) > 1:
        raise RefusedError(OTHER_AXES)
    _, stream = call.streams[0]
    scaled = call.op in ("DequantizeLinear", "QuantizeLinear") and require_shape(call.given[1]) != ()
    if scaled and normal(int(call.attributes.get("axis", 1)), stream.rank) == stream.axis:
        raise RefusedError("has a scale for each step")
    for fact in call.given:
        repeated = fact.repeated if isinstance(fact, Static) else None
        if repeated is not None and require_shape(fact)[repeated[0]] != stream.shape[stream.axis]:
            raise RefusedError("joins sequences of different numbers of steps")
    return unchanged(p, call)


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
            raise RefusedError(OTHER_AXES)
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

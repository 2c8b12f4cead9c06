"""Says why an exported file is wrong at some sizes, and what to write instead."""

from __future__ import annotations

from functools import partial

from ...runtime.providers import runs_operator
from ..functional.undefined_results import FirstOfEqual
from ..tracing.size_decisions import Decision
from .agreement import HALF_ROUNDING, OTHER_DTYPE, UNSTABLE_SHAPE
from .row_order import SORTED_STABLY, sort_cause
from .shape_trial import NAN_ALONE, UNRUN, Outcome, ShapeTrial, Sizes

_SIGNS = {
    NAN_ALONE: (
        "its numbers outgrow their dtype at these sizes, or are not defined; bound the axis to where they are numbers, "
        "as by torch.export.Dim(name, min=..., max=...)"
    ),
    HALF_ROUNDING: "return float32, and convert it outside of the module",
    UNSTABLE_SHAPE: "no size may depend on whether numbers are exactly equal; round them before, or use a mask",
}
"""What to write instead, by what a message says about the numbers."""
_DTYPE = "give the output one dtype at all sizes, as by .float(), and sum numbers in float16 only after .float()"
_SCAN = (
    "a Python loop gives tensors of other sizes in other steps, as rows that are cut at their lengths; keep the padded "
    "rows, and use a mask"
)
_FOURIER = (
    "ONNX Runtime's Fourier transform is inexact where the length is not a power of two; leave its axis out of "
    "dynamic_shapes, or pad to a power of two"
)
_UNKNOWN = (
    "something in the module fixes a size or a value: a Python loop, a number in view or expand, or a tensor made of "
    "numbers"
)
_NEAR = 16
"""How far from a size another outcome of a decision is looked for."""
_REMAINDER = (
    "where it only cuts or pads steps, compute how many: x[:, : x.shape[1] // 2 * 2], F.pad(x, (0, 0, 0, "
    "-x.shape[1] % 2))"
)


def refusal(trial: ShapeTrial, sizes: Sizes, outcome: Outcome, decision: Decision | None) -> str:
    """Why the file is not kept.

    Args:
        trial: runs the file beside its module.
        sizes: those at which the file is wrong.
        outcome: how it is.
        decision: of the user's code, which has another outcome than the traced one at these sizes.
    """
    at = ", ".join(f"{name} {size}" for name, size in sizes.items()) or "its only shape"
    problem = f"{outcome.message} at {at}, {'where the module runs, ' if outcome.cause else ''}so it was not kept"
    cause = _cause(trial, sizes, outcome, decision)
    return f"{problem}; {cause}{f' ({outcome.cause})' if outcome.cause else ''}"


def _cause(trial: ShapeTrial, sizes: Sizes, outcome: Outcome, decision: Decision | None) -> str:
    """The first cause for which there is evidence, and what to write instead."""
    if trial.facts.sorts and not outcome.cause and max(sizes.values(), default=0) > SORTED_STABLY:
        return sort_cause(trial)
    if (line := _line(trial, sizes, decision)) is not None:
        return (
            f"at {line}: the module's code depends on the size, but the file has only one of its branches; write it "
            f"with torch.where or torch.cond{_advice(trial, sizes, decision)}"
        )
    if (remedy := next((remedy for sign, remedy in _SIGNS.items() if sign in outcome.message), None)) is not None:
        return remedy
    if "while running Scan node" in outcome.cause:
        return _SCAN
    if not outcome.cause and (tie := _tie(trial, sizes)) is not None:
        return tie
    if trial.facts.texts:
        return f"at {trial.facts.texts[0]}: a size is turned into text, which a file cannot do; compute with the size"
    if OTHER_DTYPE in outcome.message:
        return _DTYPE
    if not outcome.cause and runs_operator(trial.model.session, "DFT"):
        return _FOURIER
    return _UNKNOWN


def _tie(trial: ShapeTrial, sizes: Sizes) -> str | None:
    """The line that takes one of several equal numbers, if the file is right where the first one is taken."""
    found = FirstOfEqual()
    if not trial.agrees_under(found, sizes) or found.line is None:
        return None
    return (
        f"at {found.line}: PyTorch does not define which of equal numbers {found.name} takes; return their values "
        "alone, or use sort(stable=True), which keeps equal numbers in their order"
    )


def reason(trial: ShapeTrial, sizes: Sizes, outcome: Outcome) -> str:
    """Why an axis is limited to other sizes than these."""
    at = ", ".join(f"{name} {size}" for name, size in sizes.items())
    if outcome.kind == UNRUN:
        return f"at {at} {outcome.message}"
    line = _line(trial, sizes, None)
    where = f", since the module's code depends on the size at {line}" if line else ""
    return f"at {at} {outcome.message}{f': {outcome.cause}' if outcome.cause else ''}{where}"


def _advice(trial: ShapeTrial, sizes: Sizes, decision: Decision | None) -> str:
    """How to do without a decision, or to bound the one axis that it is about."""
    decisions = [decision] if decision is not None else _against(trial, sizes)
    if decisions and decisions[0].of_remainder:
        return f"; {_REMAINDER}"
    names = {trial.axes[axis] for found in decisions[:1] for axis in found.symbols.values()}
    if len(names) != 1 or (name := next(iter(names))) not in sizes:
        return ""
    own, size = trial.own[name], sizes[name]
    traced = partial(holds, trial, decisions[0], name)
    nearest, step = size, -1 if size > own else 1
    while not traced(nearest):
        nearest += step
        if nearest in (0, own) or abs(nearest - size) > _NEAR:
            return ""
    if size > own and any(traced(size + further) for further in range(1, _NEAR)):
        return ""  # such as a size modulo a number: no bound excludes the other outcome
    return f", or bound the axis: torch.export.Dim({name!r}, {'max' if size > own else 'min'}={nearest})"


def holds(trial: ShapeTrial, decision: Decision, name: str, size: int) -> bool:
    """Whether a decision has the traced outcome at another size of one axis."""
    return decision.holds(trial.axis_sizes({**trial.own, name: size}))


def importance(decision: Decision) -> tuple[bool, bool]:
    """A sort key of decisions: the user's own first, those about memory layout last."""
    return decision.inner, not decision.direct


def is_users(trial: ShapeTrial, sizes: Sizes, decision: Decision | None) -> bool:
    """Whether the user's own code decides by the sizes, rather than a torch function that handles a size of 1."""
    found = [*([] if decision is None else [decision]), *_against(trial, sizes)]
    line = _line(trial, sizes, decision)
    torchs = bool(found) and not any(item.direct for item in found) and line in [item.line for item in found]
    return line is not None and not torchs


def _line(trial: ShapeTrial, sizes: Sizes, decision: Decision | None) -> str | None:
    if decision is not None and decision.line is not None:
        return decision.line
    against = _against(trial, sizes)
    if against and not against[0].inner:
        return against[0].line
    return trial.diverging_line(trial.own, sizes) or (against[0].line if against else None)


def _against(trial: ShapeTrial, sizes: Sizes) -> list[Decision]:
    """`ShapeTrial.against`, the most important first."""
    return sorted(trial.against(sizes), key=importance)

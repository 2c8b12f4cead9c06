"""Reports of every kind, made by hand, so that their numbers are known."""

from __future__ import annotations

import math
from dataclasses import replace

from lstm_onnx.parity.criterion import Growth, TensorResult
from lstm_onnx.parity.report import ParityReport
from lstm_onnx.parity.results import CaseResult, Cause, Location, MutantResult, Range
from lstm_onnx.parity.tolerances import K

BOUND = 4e-6
OWN = BOUND / K
VERSIONS = {"lstm-onnx": "0.1.0", "torch": "2.13.0+cpu", "onnxruntime": "1.31.1"}


def growth(errors: tuple[float, ...], features: int = 3) -> Growth:
    """Each feature errs half as much as the one before."""
    return Growth(
        errors,
        (OWN,) * len(errors),
        BOUND,
        tuple(range(len(errors))),
        tuple(range(features)),
        tuple(tuple(error / 2**feature for feature in range(features)) for error in errors),
    )


def tensor(output: str, *errors: float, problem: str = "") -> TensorResult:
    worst = max(errors, key=lambda error: math.inf if math.isnan(error) else error)
    ratio = math.inf if problem or not math.isfinite(worst) else worst / OWN
    grown = growth(errors) if output not in ("hn", "cn") else None
    where = (errors.index(worst), 0, 2)
    return TensorResult(output, worst, OWN, ratio, where, problem=problem, growth=grown, allowed=BOUND)


RIGHT = CaseResult(
    "batch 3, time 4, states", (tensor("output", 6e-8, 9e-8, 1e-7, 8e-8), tensor("hn", 5e-8), tensor("cn", 7e-8))
)
SHORT = CaseResult("batch 1, time 1, states", (tensor("output", 1.1e-7), tensor("hn", 4e-8), tensor("cn", 3e-8)))
WRONG = CaseResult(
    "batch 5, time 4, states",
    (tensor("output", 1e-7, 1e-7, 0.25, 0.5), tensor("hn", 0.125), tensor("cn", 7e-8)),
    kind="data",
)
STOPPED = CaseResult("batch 2, time 1, states", error="node l0/Reshape: the input has 8 numbers, and the shape 12")
UNCLEAR = CaseResult("batch 9, time 400, states", (replace(tensor("output", 3e-3), inconclusive=True),))

passing = ParityReport(
    "net.onnx",
    "models/net.toml",
    "cpu",
    (SHORT, RIGHT, UNCLEAR),
    notes=("PyTorch's own error is too large in some cases",),
    mutants=(
        MutantResult("gates i and o exchanged", "rejected", 6.2e5, RIGHT.label),
        MutantResult("batch baked in", "rejected", math.inf, SHORT.label),
        MutantResult("bias added twice", "equivalent", 0.0, "", reason="the biases are zeros"),
    ),
    versions=VERSIONS,
    seconds=3.25,
)
failing = replace(
    passing,
    file="wrong.onnx",
    cases=(SHORT, RIGHT, WRONG, UNCLEAR),
    mutants=(),
    location=Location(WRONG.label, "output", 2, 0, 2, layer=1, direction="reverse", gate="f"),
    causes=(Cause("gate order of layer 1", "with it PyTorch gives the file's numbers", "ONNX wants i,o,f,c"),),
)
unproven = replace(
    passing, mutants=(*passing.mutants, MutantResult("time baked in", "survived", 14.25, "batch 3, time 4, states"))
)
unbounded = replace(
    failing,
    cases=(
        CaseResult(
            "batch 1, time 6, states",
            (
                tensor(
                    "output", 1e-7, math.nan, math.inf, math.inf, 1e-7, 0.0, problem="is not finite where PyTorch is"
                ),
                TensorResult(
                    "hn", math.inf, math.nan, math.inf, (), problem="has shape (1, 2), PyTorch's is (1, 1, 2)"
                ),
            ),
        ),
    ),
    location=None,
    causes=(),
)
stopped = replace(failing, cases=(STOPPED, replace(STOPPED, label="batch 2, time 7, states")), location=None, causes=())
ranged = replace(
    passing,
    ranges=(
        Range("batch", "sizes", 1, 9, (1, 2, 3, 9)),
        Range("tokens", "integers", 0, 99, tuple(range(100))),
        Range("x", "numbers", -310.25, 296.0),
    ),
)
undecided = replace(passing, cases=(UNCLEAR,), mutants=())

EVIL = (
    "<script>parent.hacked=1</script>",
    "\"'><img src=x onerror=parent.hacked=1>",
    "]]><!-- --></style></svg>&amp;",
    "\n::error::gone\r\n\x00\x1b[31m\x9b\u202e\u2028\ud800\uffff",
    "::stop-commands::x ##[group]y |`a`|*b*|[c](http://evil.example)|@you",
    "é中🙂" + "long" * 10_000,
)
"""Names as a hostile file can have them."""


def _evil(index: int) -> CaseResult:
    own = replace(tensor("output", 1e-7, 0.5), output=EVIL[index], problem=EVIL[index - 1])
    return CaseResult(EVIL[index], (own,))


hostile = ParityReport(
    EVIL[0],
    EVIL[1],
    EVIL[2],
    (*map(_evil, range(len(EVIL))), CaseResult(EVIL[3], error=EVIL[4])),
    notes=EVIL,
    location=Location(EVIL[0], EVIL[1], 1, module=EVIL[2]),
    causes=tuple(Cause(text, text, text) for text in EVIL),
    mutants=tuple(MutantResult(text, "survived", 1.0, text) for text in EVIL),
    versions={text: text for text in EVIL},
    ranges=tuple(Range(text, "numbers", -1.5, 1.5) for text in EVIL),
)

REPORTS = {
    "passing": passing,
    "failing": failing,
    "unproven": unproven,
    "unbounded": unbounded,
    "stopped": stopped,
    "undecided": undecided,
    "ranged": ranged,
    "hostile": hostile,
}

"""A file beside a bare nn.LSTM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
from torch import nn

from ..errors import InputError, LSTMOnnxError
from ..exporter.sources.torch_lstm import spec_of, state_of
from ..exporter.weights import digest
from ..runtime import Model
from ..spec import LSTMSpec
from .amplify import layer_gains, louder_file, louder_state
from .cases import LONG, SHAPES, Case, cases, gains, loud_cases, value_cases
from .compared import Compared, Sides
from .diagnosis.evidence import diagnose
from .expected import Call, Expected, farther, rounded_otherwise
from .lstm_sweeps import Pair, batch_sweep, judged, time_sweep
from .mutants import Subject, folder_of, opened, read_graph
from .reference import run_torch, windows
from .replay import replay
from .report import CaseResult, Cause, Location
from .sizes import Axes
from .user_data import fitting

_ROUNDINGS = 4
"""How often extreme numbers are rounded otherwise: of few runs, all may be right by luck."""
_EXTREME_ROUNDINGS = 16.0
"""How much more the largest state's rounding counts where states are extreme.

Right models with trained or large weights were off by up to 48 roundings of it there, as a rounding in one step
is multiplied in the next; wrong ones are off by the state itself.
"""
_NOT_EXTREME = "extreme inputs and states were not compared: in a chaotic model nobody's numbers can be judged there"


class LSTMVerification:
    """A file beside a bare nn.LSTM.

    `shapes` are the (batch, time) that are drawn; `data` inputs to be compared on beside those that are
    drawn, by the file's input names.
    """

    def __init__(
        self,
        model: Model,
        module: Any,
        *,
        seed: int = 0,
        data: Sequence[Mapping[str, Any]] = (),
        shapes: Sequence[tuple[int, int]] = (*SHAPES, LONG),
    ) -> None:
        self.started = perf_counter()
        self.model = model
        self.module = module
        self.seed = seed
        self.spec: LSTMSpec = spec_of(module)
        # Built anew from the weights: the caller's module stays as it is, and may be parametrised.
        self.state = state_of(module, self.spec)
        lengths = "lengths" in model.inputs
        streams = bool(model.states) and not self.spec.bidirectional
        self.sides = Sides.of(model, self.spec, self.state)
        self.louder = self._louder()
        loud = gains(self.spec, self.state)
        self.cases = cases(self.spec, lengths=lengths, streams=streams, seed=seed, loud=loud, shapes=shapes)
        self.cases += value_cases(self.spec, self.state, seed, folded=self._folded)
        self.cases += [_data_case(model, index, feeds) for index, feeds in enumerate(data)]
        self.sweeps: list[Callable[[], tuple[Case, list[Call]]]] = self._sweeps(lengths)
        self.loud_cases = loud_cases(self.spec, lengths=lengths, seed=seed) if self.louder else []
        self.compared: list[Compared] = []
        """So far."""
        self.notes: list[str] = []
        if model.metadata.digest is not None and model.metadata.digest != digest(self.state):
            self.notes.append("the file was exported from other weights than these (its digest differs)")
        if model.spec is not None and model.spec != self.spec:
            self.notes.append("the file was exported from an LSTM with other arguments")

    @property
    def _folded(self) -> bool:
        """Whether the file may have its projections folded into R."""
        options = self.model.metadata.options
        return self.spec.proj_size > 0 and (options is None or options.projection == "fold")

    def _louder(self) -> tuple[Sides, Any] | None:
        """Both sides with loud weights, and the file's graph, for a quiet model whose layers are found in the file."""
        factors = layer_gains(self.spec, self.state, folded=self._folded)
        if factors is None:
            return None
        graph = louder_file(read_graph(self.model), folder_of(self.model), self.spec, factors)
        if graph is None:
            return None
        try:
            return Sides.of(opened(self.model, graph), self.spec, louder_state(self.state, factors)), graph
        except LSTMOnnxError:
            return None

    @property
    def planned(self) -> int:
        """How many cases there are, but for the shorter ones that follow an inconclusive one."""
        return len(self.cases) + len(self.sweeps) + len(self.loud_cases)

    @property
    def expected(self) -> list[Expected]:
        """What was compared so far, of the file as it is."""
        return [done.expected for done in self.compared if done.sides is self.sides]

    @property
    def pairs(self) -> list[tuple[Expected, CaseResult]]:
        """The same, and what came of it."""
        return [(done.expected, done.result) for done in self.compared if done.sides is self.sides]

    @property
    def loud(self) -> Subject | None:
        """The file with loud weights, and what was compared of it so far."""
        if self.louder is None:
            return None
        sides, graph = self.louder
        return Subject(sides.model, graph, [done.expected for done in self.compared if done.sides is sides])

    def results(self) -> Iterator[CaseResult]:
        """Case by case, as they are done; an inconclusive one is followed by shorter ones from the exact states."""
        for case in self.cases:
            # In a chaotic model extreme numbers grow a rounding of anyone's without bound, be it right or wrong.
            chaotic = any(done.result.inconclusive for done in self.compared)
            if case.kind == "values" and chaotic:
                if _NOT_EXTREME not in self.notes:
                    self.notes.append(_NOT_EXTREME)
                continue
            yield from self._results(self.sides, case)
        for sweep in self.sweeps:
            case, calls = sweep()
            expected = judged(_expecting(self.sides.wide, self.spec, case, calls))
            if expected is not None:
                yield self._compared(self.sides, case, expected)
        for case in self.loud_cases:
            assert self.louder is not None  # noqa: S101 - or there are none
            yield from self._results(self.louder[0], case)

    def _results(self, sides: Sides, case: Case) -> Iterator[CaseResult]:
        result = None
        for part, expected in expectations(sides.own, sides.wide, self.spec, case):
            result = self._compared(sides, part, expected)
            yield result
        if result is not None and result.inconclusive:
            problem = "PyTorch's own error is too large even for a single step, so nothing can be said"
            yield CaseResult(case.label, error=problem)

    def _compared(self, sides: Sides, case: Case, expected: Expected) -> CaseResult:
        result = replay(sides.model, expected)
        self.compared.append(Compared(sides, case, expected, result))
        return result

    def _sweeps(self, lengths: bool) -> list[Callable[[], tuple[Case, list[Call]]]]:
        pair, metadata, seed = Pair(self.sides.own, self.sides.wide), self.model.metadata, self.seed
        axes = Axes(metadata.axis_limits, metadata.size_boundaries)
        return [
            lambda: batch_sweep(pair, self.spec, axes=axes, lengths=lengths, seed=seed),
            lambda: time_sweep(pair, self.spec, axes=axes, seed=seed),
        ]

    def diagnosis(self) -> tuple[Location | None, tuple[Cause, ...]]:
        """Where the file first differs, and why, as far as it can be told."""
        return diagnose(self.spec, self.compared)


def expectations(own: nn.LSTM, wide: nn.LSTM, spec: LSTMSpec, case: Case) -> Iterator[tuple[Case, Expected]]:
    """What `case` must give; where that is inconclusive, then its pairs of steps, and then its single steps."""
    expected = _expected(own, wide, spec, case)
    if case.kind == "values" and expected.inconclusive:
        return  # of extreme numbers PyTorch's own rounding decides everything here
    yield case, expected
    time = case.input.shape[1 if spec.batch_first else 0]
    for size in (2, 1):
        if expected.inconclusive and size < time:
            part = replace(windows(wide, case, size), kind="steps")
            expected = _expected(own, wide, spec, part)
            yield part, expected


def _expected(own: nn.LSTM, wide: nn.LSTM, spec: LSTMSpec, case: Case) -> Expected:
    mine, reference = run_torch(own, case), run_torch(wide, case)
    if case.kind == "values":
        for seed in range(_ROUNDINGS):
            moved = rounded_otherwise(case.feeds(), spec.dtype, seed)
            other = replace(case, input=moved["input"], states=(moved["h0"], moved["c0"]))
            mine = farther(mine, run_torch(wide, other), reference)
    return _expecting(wide, spec, case, [Call(case.feeds(), mine, reference)])


def _expecting(wide: nn.LSTM, spec: LSTMSpec, case: Case, calls: Sequence[Call]) -> Expected:
    """What `calls` must give, which are all of `case`."""
    scale = max(float(np.abs(call.reference["cn"]).max()) for call in calls)
    if case.states is not None:
        scale = max(scale, float(np.abs(case.states[1]).max()))
    time_axis = 1 if spec.batch_first else 0
    h_scale = _h_scale(wide)
    if case.kind == "values":
        # A sigmoid may be off by eps where it is next to nothing, and times a large c that is much to h.
        h_scale *= max(1.0, scale)
        scale *= _EXTREME_ROUNDINGS
    return Expected(
        case.label,
        tuple(calls),
        spec.dtype,
        scale,
        case.kind,
        case.chunkings,
        time_axes={"input": time_axis, "output": time_axis},
        batch_axes={"input": 1 - time_axis, "output": 1 - time_axis, "lengths": 0, "hn": 1, "cn": 1},
        scales=dict.fromkeys(("output", "hn"), h_scale),
        dtypes=dict.fromkeys(("output", "hn", "cn"), spec.dtype),
    )


def _h_scale(module: nn.LSTM) -> float:
    """The size of h where rounding is concerned: o tanh(c) is within 1, and a projection sums over that."""
    norms = [float(w.norm(dim=1).max()) for name, w in module.state_dict().items() if name.startswith("weight_hr")]
    return max(norms, default=1.0)


def _data_case(model: Model, index: int, feeds: Mapping[str, Any]) -> Case:
    """The user's own inputs, completed and checked as `Model.run` does it."""
    label = f"data {index}"
    try:
        arrays = fitting(model, feeds)
    except InputError as error:
        raise InputError(f"{label}: {error}") from error
    if "input" not in arrays:
        raise InputError(f"{label}: an nn.LSTM takes input, and {model.path} takes {', '.join(model.inputs)}")
    states = (arrays["h0"], arrays["c0"]) if "h0" in feeds or "c0" in feeds else None
    return Case(label, arrays["input"], states, arrays.get("lengths"), "data")

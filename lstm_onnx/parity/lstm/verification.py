"""Verifies a file against a bare nn.LSTM.

Its weights are known by name and its rows and steps are independent of what follows, so its verification can do more
than that of other modules: compare chaotic models step by step, try every size of an axis at the cost of a few runs,
and find the wrong gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from ...errors import InputError, LSTMOnnxError
from ...exporter.bare_lstm import STATES
from ...exporter.sources.torch_lstm import module_of, spec_of, state_of
from ...exporter.weights import StateDict
from ...input_spec import InputSpec
from ...onnxgraph.write import digest
from ...runtime import Model
from ...spec import LSTMSpec
from ..amplify import amplified_graph, amplified_state, input_gains, layer_gains
from ..cases import SHAPES, Case
from ..comparison import Comparison, Models, Planned, Verification, user_case
from ..criterion import magnitude
from ..diagnosis.fault_models import changed_parameters, fault_models, parameters_of, rounded
from ..diagnosis.search import Suspect, causes_of_the_file, diagnose, largest_error, tf32
from ..expected import Call, Expected, farther, perturbed
from ..growth import GROWTH_NOTE, MOST_CASES, with_grown_roundings
from ..mutants.self_test import Target, folder_of, opened, read_graph
from ..results import CaseResult, Cause, Location
from ..sizes import Axes
from ..tolerances import EXTREME_ROUNDINGS, ROUNDINGS
from .cases import LONG, amplified_cases, lstm_cases, lstm_value_cases
from .locate import locate
from .reference import run_rounded, run_torch, windows
from .sizes import batch_sweep, conclusive_calls, several_rows, time_sweep

LSTMModels = Models[nn.LSTM]
_NOT_EXTREME = (
    "extreme inputs and states were not compared: rounding errors grow without bound in a chaotic model, so no verdict "
    "is possible"
)

_HARMLESS = frozenset({"bias", "dropout", "dtype"})
"""Arguments that change no axis and no size, and whose numbers are compared."""


def _specs_of(spec: LSTMSpec, *, lengths: bool) -> list[InputSpec]:
    x = InputSpec("input", spec.sequence_shape("batch", "time", spec.input_size), spec.dtype)
    return [x, *([InputSpec("lengths", ("batch",), "int32", 1, "time")] if lengths else [])]


def models_of(model: Model, spec: LSTMSpec, state: StateDict) -> LSTMModels:
    """A file, and an LSTM with these parameters."""
    native = torch.float32 if spec.dtype == "float64" else getattr(torch, spec.dtype)
    return Models(model, module_of(spec, state).to(native), module_of(spec, state).to(torch.float64))


class LSTMVerification(Verification):
    """The verification of a file against a bare nn.LSTM.

    Args:
        model: the file, open.
        module: the nn.LSTM.
        seed: of the random inputs and states.
        data: inputs to compare in addition to the random ones, by the file's input names.
        shapes: the (batch, time) pairs that are drawn.
    """

    models: LSTMModels
    chaotic_note = "they were compared in pairs of steps and single steps"

    def __init__(
        self,
        model: Model,
        module: Any,
        *,
        seed: int = 0,
        data: Sequence[Mapping[str, Any]] = (),
        shapes: Sequence[tuple[int, int]] = (*SHAPES, LONG),
    ) -> None:
        super().__init__(model, module, seed)
        self.axes = Axes.of(model.metadata)
        self.spec: LSTMSpec = spec_of(module)
        # Rebuilt from the weights: the caller's module stays as it is, and may be parametrized.
        self.state = state_of(module, self.spec)
        self.models = models_of(model, self.spec, self.state)
        self.amplified_models = self._amplify()
        lengths = "lengths" in model.inputs
        self.specs = _specs_of(self.spec, lengths=lengths)
        streams = bool(model.states) and not self.spec.bidirectional
        gains = input_gains(self.spec, self.state)
        self.cases = lstm_cases(self.spec, lengths=lengths, streams=streams, seed=seed, gains=gains, shapes=shapes)
        self.cases += lstm_value_cases(self.spec, gains.input, seed, folded=self._folded)
        self.cases += [_data_case(model, index, feeds) for index, feeds in enumerate(data)]
        self.sweeps: list[Callable[[], tuple[Case, list[Call]]]] = self._sweeps(lengths)
        self.amplified_cases = amplified_cases(self.spec, lengths=lengths, seed=seed) if self.amplified_models else []
        self._unexplained = False
        self._grown = 0  # the cases that growing roundings explain
        self.note_digest(digest(self.state))
        self.other_sizes = ""
        """How the metadata's axes and sizes differ from the module's: calls use them, the numbers do not."""
        if model.spec is not None and model.spec != self.spec:
            theirs, own = asdict(model.spec), asdict(self.spec)
            different = [name for name in own if theirs[name] != own[name]]
            says = "; ".join(f"{name} is {theirs[name]}, not {own[name]}" for name in different)
            self.notes.append(f"the file was exported from an LSTM with other arguments: {says}")
            if not _HARMLESS.issuperset(different):
                self.other_sizes = f"the metadata are those of another LSTM: {says}"

    def _sweeps(self, lengths: bool) -> list[Callable[[], tuple[Case, list[Call]]]]:
        return [
            lambda: batch_sweep(self.models, self.spec, axes=self.axes, lengths=lengths, seed=self.seed),
            lambda: time_sweep(self.models, self.spec, axes=self.axes, seed=self.seed),
            lambda: several_rows(self.models, self.spec, axes=self.axes, lengths=lengths, seed=self.seed),
        ]

    @property
    def _folded(self) -> bool:
        """Whether the file may have its projections folded into R."""
        options = self.model.metadata.options
        return self.spec.proj_size > 0 and (options is None or options.projection == "fold")

    def _amplify(self) -> tuple[LSTMModels, Any] | None:
        """The models with amplified weights and the file's graph; None where that is not needed or not possible."""
        gains = layer_gains(self.spec, self.state, folded=self._folded)
        if gains is None:
            return None
        graph = amplified_graph(read_graph(self.model), folder_of(self.model), self.spec, gains)
        if graph is None:
            return None
        try:
            return models_of(opened(self.model, graph), self.spec, amplified_state(self.state, gains)), graph
        except LSTMOnnxError:
            return None

    @property
    def planned(self) -> int:
        """The number of cases, without the shorter ones that follow an inconclusive one."""
        return len(self.cases) + len(self.sweeps) + len(self.amplified_cases)

    @property
    def amplified(self) -> Target | None:
        """The file with amplified weights, and its cases so far."""
        if self.amplified_models is None:
            return None
        models, graph = self.amplified_models
        return Target(models.file, graph, [done.expected for done in self.compared if done.models is models])

    def _comparisons(self) -> Iterator[Planned | CaseResult]:
        """Each case; an inconclusive one is followed by shorter ones from the float64 states."""
        for case in self.cases:
            # In a chaotic model extreme values amplify every rounding without bound, right or wrong.
            chaotic = any(done.result.inconclusive for done in self.compared)
            if case.kind == "values" and chaotic:
                if _NOT_EXTREME not in self.notes:
                    self.notes.append(_NOT_EXTREME)
                continue
            yield from self._with_windows(self.models, case)
        for sweep in self.sweeps:
            case, calls = sweep()
            expected = conclusive_calls(expect_calls(self.models, self.spec, case, calls))
            if expected is not None:
                yield self.models, expected
        for case in self.amplified_cases:
            assert self.amplified_models is not None  # noqa: S101 - otherwise there are no such cases
            yield from self._with_windows(self.amplified_models[0], case)

    def _with_windows(self, models: LSTMModels, case: Case) -> Iterator[Planned | CaseResult]:
        before = len(self.compared)
        for expected in expectations(models, self.spec, case, lambda: self.compared[-1].result.inconclusive):
            yield models, expected
        if len(self.compared) > before and self.compared[-1].result.inconclusive:
            problem = "PyTorch's own error is too large even for a single step, so no verdict is possible"
            yield CaseResult(case.label, error=problem)

    def explained(self, models: LSTMModels, expected: Expected) -> Expected | None:
        """The case with roundings that grow, if they explain it."""
        if self._unexplained or self._grown == MOST_CASES:
            return None
        self._grown += 1
        found = with_grown_roundings(partial(run_rounded, models.float64), models.file, expected)
        self._unexplained = found is None
        if found is not None and GROWTH_NOTE not in self.notes:
            self.notes.append(GROWTH_NOTE)
        return found

    def probed(self, case: Case) -> tuple[Expected, bool] | None:
        """What PyTorch gives, and whether a recurrent operator hides what reached it."""
        expected = next(expectations(self.models, self.spec, case))
        finite = all(bool(np.isfinite(expected.calls[0].native[name]).all()) for name in ("hn", "cn"))
        return expected, self.model.hides_nan and not finite

    def diagnosis(self) -> tuple[Location | None, tuple[Cause, ...]]:
        """From all comparisons: PyTorch has the amplified weights as well."""
        return diagnose(
            self.compared,
            self.specs,
            STATES,
            located=self._located,
            suspects=self._suspects,
            from_the_file=self._causes_of_the_file,
        )

    def _located(self, done: Comparison, location: Location) -> Location:
        """`location` with step, layer, direction and gate."""
        return locate(done.models, self.spec, done.expected.calls[0].feeds, location)

    def _suspects(self, location: Location) -> Iterator[Suspect]:
        """The LSTM."""
        direction = None if location.direction is None else int(location.direction == "reverse")
        faults = fault_models(self.spec, location.layer, direction)
        yield Suspect(faults, lambda models: models.float64, lambda _: run_torch)

    def _causes_of_the_file(self, done: Comparison) -> Iterator[Cause]:
        """The causes, including TF32, tested by a run of the LSTM with weights and inputs rounded to it."""
        yield from causes_of_the_file(done)
        if done.models.file.provider != "cuda":
            return
        feeds, module = done.expected.calls[0].feeds, done.models.float64
        right = parameters_of(module)
        # cuDNN's tensor cores round weights and inputs so.
        with changed_parameters(module, right, {name: rounded(array, 10) for name, array in right.items()}):
            simulated = run_torch(module, {**feeds, "input": rounded(feeds["input"], 10)})
        errors = (largest_error(done.expected, outputs) for outputs in (done.models.file.run(feeds), simulated))
        yield from tf32(self.spec.dtype, *errors)


def expectations(
    models: LSTMModels, spec: LSTMSpec, case: Case, found_inconclusive: Callable[[], bool] = lambda: False
) -> Iterator[Expected]:
    """What PyTorch gives for `case`; if that is inconclusive, then for its pairs of steps and for its single steps.

    `found_inconclusive` says whether the last one turned out to be so when the file was compared.
    """
    expected = _expect(models, spec, case)
    if case.kind == "values" and expected.inconclusive:
        return  # the result for extreme values depends on PyTorch's own rounding alone
    yield expected
    time = case.feeds["input"].shape[1 if spec.batch_first else 0]
    for size in (2, 1):
        if (expected.inconclusive or found_inconclusive()) and size < time:
            part = windows(models.float64, case, size)
            if case.kind == "chunks" and size > 1:  # the second step starts from what the stream carries
                part = replace(part, kind="chunks", chunkings=((1,) * size,))
            expected = _expect(models, spec, part)
            yield expected


def _expect(models: LSTMModels, spec: LSTMSpec, case: Case) -> Expected:
    native, reference = run_torch(models.native, case.feeds), run_torch(models.float64, case.feeds)
    if case.kind == "values":
        for seed in range(ROUNDINGS):
            moved = run_torch(models.float64, perturbed(case.feeds, spec.dtype, seed))
            native = farther(native, moved, reference)
    return expect_calls(models, spec, case, [Call(case.feeds, native, reference)])


def expect_calls(models: LSTMModels, spec: LSTMSpec, case: Case, calls: Sequence[Call]) -> Expected:
    """`case` as these calls, with the scales and axes of an nn.LSTM."""
    started = [magnitude(case.feeds["c0"])] if "c0" in case.feeds else []
    scale = max([*started, *(magnitude(call.reference["cn"]) for call in calls)])
    time_axis = 1 if spec.batch_first else 0
    h_scale = _h_scale(models.float64)
    if case.kind == "values":
        # A sigmoid near 0 may be off by eps, which times a large c is a large error of h.
        h_scale *= max(1.0, scale)
        scale *= EXTREME_ROUNDINGS
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
    """The magnitude of h for rounding: o tanh(c) is within 1, and a projection is a sum of such."""
    norms = [float(w.norm(dim=1).max()) for name, w in module.state_dict().items() if name.startswith("weight_hr")]
    return max(norms, default=1.0)


def _data_case(model: Model, index: int, feeds: Mapping[str, Any]) -> Case:
    """The user's own inputs."""
    label, arrays = user_case(model, index, feeds)
    if "input" not in arrays:
        raise InputError(f"{label}: an nn.LSTM takes input, and {model.path} takes {', '.join(model.inputs)}")
    names = ["input", *(STATES if STATES.keys() & feeds.keys() else ()), *arrays.keys() & {"lengths"}]
    return Case(label, {name: arrays[name] for name in names}, "data")

"""Does a file give what a whole module gives?

The module is run as it is and as a float64 copy, with the same inputs and states by name as the
file; the inputs are drawn from the ranges that the file or its source gives, over a sweep of every
named axis.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import ConfigError, ExportError, InputError
from ..exporter.module import parameter_digest
from ..exporter.tracing.arguments import Arguments, arguments
from ..exporter.tracing.example_inputs import fitting_arguments
from ..exporter.tracing.functional import prepare
from ..input_spec import InputSpec, axes, draw, sizes_of
from ..metadata import Metadata
from ..runtime import Model
from ..runtime.tensor_info import ValueInfo
from .cases import SHAPES, gains
from .diagnosis.modules import diagnose_module
from .embeddings import Rows, opened_specs, rows_of_inputs
from .expected import Call, Expected, farther, rounded_otherwise, size_of
from .module_amplify import made_loud
from .module_run import ModuleRun, shape_of
from .module_streams import stream_cases
from .module_sweeps import sweeps, tells, value_cases
from .mutants import Subject
from .replay import replay
from .report import CaseResult, Cause, Location
from .sizes import Axes
from .user_data import fitting

_QUIET = 4.0
"""The gain past which a model's weights are so small that loud inputs are needed to move its gates."""
BATCH, TIME = 2, 3
"""Sizes by which the axes that go with batch and with time are told apart."""
_SHORT = 12
"""Steps up to which the sweep goes as it is; for a module that needs more, all of it is that much longer."""


@dataclass(frozen=True)
class ModuleCase:
    """One comparison: the sizes of the axes, the inputs, and the states (absent ones are the file's own start)."""

    label: str
    inputs: dict[str, np.ndarray]
    states: dict[str, np.ndarray]
    kind: str = "whole"

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        """Both, by name."""
        return {**self.inputs, **self.states}


class ModuleVerification:
    """A file beside the module that it came from."""

    def __init__(
        self,
        model: Model,
        module: nn.Module,
        *,
        seed: int = 0,
        inputs: Sequence[InputSpec] = (),
        example_inputs: Any = None,
        data: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.started = perf_counter()
        self.model = model
        self.module = module
        self.seed = seed
        self.metadata: Metadata = model.metadata
        self.notes: list[str] = []
        self.expected: list[Expected] = []
        """What is compared, once PyTorch has run."""
        self.done: list[tuple[Expected, CaseResult]] = []
        """What was compared so far, and what came of it."""
        specs, found = self._arguments(inputs, example_inputs, seed)
        self._check_names(found)
        names = _plain_outputs(model, self.metadata)
        own = prepare(module, found, output_names=names)
        dtype = str(own.dtype).removeprefix("torch.")
        wide = prepare(module, found, output_names=names, dtype=torch.float64)
        # A float64 model has no wider reference than itself: its own rounding is float32's, scaled down.
        narrow = prepare(module, found, output_names=names, dtype=torch.float32) if dtype == "float64" else own
        device = next(iter(found.tensors.values())).device
        self.dtype = dtype
        self.own, self.wide = (ModuleRun(prepared, model, device) for prepared in (narrow, wide))
        longest = max(own.arguments.sizes.values(), default=1)
        self.longer = longest - 1 if longest > _SHORT else 0
        metadata = self.metadata
        self.axes = Axes(metadata.axis_limits, metadata.size_boundaries)
        self.rows: dict[str, Rows] = {}
        """The integers that inputs can be which are looked up in tables."""
        self.specs = self._opened(self._varied(specs), inputs)
        self.cases = list(self._cases(self.specs, seed))
        self.cases += [self._data_case(index, feeds) for index, feeds in enumerate(data)]
        if example_inputs is not None:
            self.cases.insert(0, self._example_case(found))
        if self.metadata.digest is not None and self.metadata.digest != parameter_digest(own):
            self.notes.append("the file was exported from other weights than these (its digest differs)")

    def _arguments(
        self, inputs: Sequence[InputSpec], example_inputs: Any, seed: int
    ) -> tuple[tuple[InputSpec, ...], Arguments]:
        if example_inputs is not None:
            found = arguments(self.module, example_inputs, None)
            specs = tuple(self.metadata.inputs) or tuple(map(self._named_axes, found.specs()))
            device = next((parameter.device for parameter in self.module.parameters()), torch.device("cpu"))
            return specs, replace(found, tensors={name: tensor.to(device) for name, tensor in found.tensors.items()})
        specs = tuple(inputs) or tuple(self.metadata.inputs)
        if not specs:
            raise ConfigError(
                f"{self.model.path}: does not say what its inputs are, as lstm-onnx's own files do; pass example_inputs"
            )
        return specs, fitting_arguments(self.module, specs, seed=seed, limits=self.metadata.axis_limits)

    def _varied(self, specs: tuple[InputSpec, ...]) -> tuple[InputSpec, ...]:
        """Integers of which the example had only zeros, or only ones, drawn from both where the module takes that.

        Of a sequence of equal tokens nobody can tell in which direction it is read.
        """
        both = tuple(
            replace(spec, low=0, high=1) if spec.low == spec.high and spec.low in (0, 1) and axes([spec]) else spec
            for spec in specs
        )
        return both if both == specs or self._runs(both) else specs

    def _runs(self, specs: tuple[InputSpec, ...]) -> bool:
        try:
            self.wide(self._inputs(specs))
        except ExportError:
            return False
        return True

    def _inputs(self, specs: tuple[InputSpec, ...]) -> dict[str, np.ndarray]:
        return draw(specs, self.base_sizes(specs), np.random.default_rng(self.seed))

    def base_sizes(self, specs: Sequence[InputSpec]) -> dict[str, int]:
        """Small sizes of the axes, at which the module runs."""
        return self.sizes(specs, BATCH, TIME + self.longer)

    def sizes(self, specs: Sequence[InputSpec], batch: int, time: int) -> dict[str, int]:
        """The size of each axis, within its limits."""
        return {axis: self.axes.within(axis, size) for axis, size in sizes_of(specs, batch, time).items()}

    def _opened(self, specs: tuple[InputSpec, ...], declared: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
        """Integers that are looked up in a table drawn from all of its rows, unless a source says their range."""
        try:
            found = rows_of_inputs(self.wide, specs, self._inputs(specs))
        except ConfigError:
            return specs
        # A number without axes is a flag, which stays what it was.
        said = {spec.name for spec in declared if spec.low is not None} | {s.name for s in specs if not axes([s])}
        found = {name: rows for name, rows in found.items() if name not in said}
        opened = opened_specs(specs, found)
        if opened != specs and not self._runs(opened):
            return specs
        self.rows = found
        return opened

    def _named_axes(self, spec: InputSpec) -> InputSpec:
        """An example's input with the axes as a file of somebody else's calls them."""
        info = self.model.inputs.get(spec.name)
        if info is None or len(info.shape) != len(spec.shape):
            return spec
        dims = zip(info.shape, spec.shape, strict=True)
        shape = tuple(theirs if isinstance(theirs, str) and theirs.isidentifier() else own for theirs, own in dims)
        return replace(spec, shape=shape)

    def _check_names(self, found: Arguments) -> None:
        own = set(found.tensors)
        theirs = set(self.model.inputs) - (set(self.metadata.states) - own)
        if own != theirs:
            raise ConfigError(
                f"{self.model.path}: takes {', '.join(sorted(theirs))}, and the module {', '.join(sorted(own))}; "
                "is the file this module's?"
            )

    def _cases(self, specs: Sequence[InputSpec], seed: int) -> Iterator[ModuleCase]:
        rng = np.random.default_rng(seed)
        open_axes = axes(specs)
        longer = self.longer
        shapes = [(batch, time + longer) for batch, time in (SHAPES if open_axes else SHAPES[:1])]
        seen = []
        for batch, time in shapes:
            case = self._case(specs, rng, batch, time)
            if case.label not in seen:  # limits of the axes can make two shapes one
                seen.append(case.label)
                yield case
        if self.metadata.states:
            yield self._case(specs, rng, *shapes[-1], states=False)
        lengths = [spec.name for spec in specs if isinstance(spec.high, str)]
        if lengths and open_axes:
            case = self._case(specs, rng, 3, 7 + longer)
            cut = {name: np.maximum(array - 1, 1) for name, array in case.inputs.items() if name in lengths}
            yield ModuleCase(f"{case.label}, none whole", {**case.inputs, **cut}, case.states)
        gain = max((gains(site.spec, site.weights).input for site in self._lstm_sites()), default=1.0)
        floats = [spec.name for spec in specs if np.issubdtype(np.dtype(spec.dtype), np.floating) and spec.low is None]
        if gain > _QUIET and floats:
            case = self._case(specs, rng, 3, 7 + longer)
            loud = {name: (case.inputs[name] * gain).astype(case.inputs[name].dtype) for name in floats}
            yield ModuleCase(f"{case.label}, loud", {**case.inputs, **loud}, case.states)
        yield from value_cases(self, specs, rng, gain)

    def _example_case(self, found: Arguments) -> ModuleCase:
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in found.tensors.items()}
        return ModuleCase("the example", arrays, {})

    def _data_case(self, index: int, feeds: Mapping[str, Any]) -> ModuleCase:
        """The user's own inputs."""
        label = f"data {index}"
        arrays = {name: np.asarray(array) for name, array in feeds.items()}
        try:
            fitting(self.model, arrays)
        except InputError as error:
            raise InputError(f"{label}: {error}") from error
        own = set(self.own.arguments)
        inputs = {name: array for name, array in arrays.items() if name in own}
        states = {name: array for name, array in arrays.items() if name not in own}
        return ModuleCase(label, inputs, states, "data")

    def _lstm_sites(self) -> list[Any]:
        return [site for site in self.wide.sites.values() if site.spec.op_type == "LSTM" and not site.cell]

    def _case(
        self, specs: Sequence[InputSpec], rng: np.random.Generator, batch: int, time: int, *, states: bool = True
    ) -> ModuleCase:
        return self.case_at(specs, rng, self.sizes(specs, batch, time), states=states)

    def case_at(
        self, specs: Sequence[InputSpec], rng: np.random.Generator, sizes: Mapping[str, int], *, states: bool = True
    ) -> ModuleCase:
        """Drawn inputs of these sizes, and states beside them where the file has some."""
        inputs = draw(specs, sizes, rng)
        label = ", ".join(f"{name} {size}" for name, size in sizes.items()) or "the only shape"
        held: dict[str, np.ndarray] = {}
        for name in self.metadata.states:
            if name not in inputs and states:
                held[name] = _state(self.model.inputs[name], sizes, rng)
        if self.metadata.states:
            label += ", states" if states else ", no states"
        return ModuleCase(label, inputs, held)

    @property
    def planned(self) -> int:
        """How many cases there are."""
        louder = self.loud
        return len(self._all()) + (0 if louder is None else len(louder.expected))

    def results(self) -> Iterator[CaseResult]:
        """Case by case."""
        for expected in self._all():
            self.done.append((expected, replay(self.model, expected)))
            yield self.done[-1][1]
        louder = self.loud
        if louder is not None:
            yield from (replay(louder.model, expected) for expected in louder.expected)

    @property
    def pairs(self) -> list[tuple[Expected, CaseResult]]:
        """What was compared so far, and what came of it."""
        return self.done

    @functools.cached_property
    def loud(self) -> Subject | None:
        """The file with the weights of its recurrent layers made loud, where they are quiet."""
        return made_loud(self)

    def diagnosis(self) -> tuple[Location | None, tuple[Cause, ...]]:
        """Where the file first differs, and why, as far as it can be told."""
        return diagnose_module(self)

    def _all(self) -> list[Expected]:
        """What every case must give, with PyTorch's part done.

        The yardstick of an output is PyTorch's own error in any of the cases, since in a case of two
        numbers it can be nearly zero by luck.
        """
        if self.expected:
            return self.expected
        found = [expected for expected in map(self.whole, self.cases) if expected is not None]
        skipped = len(self.cases) - len(found)
        if skipped:
            self.notes.append(f"the module itself does not run at {skipped} of the {len(self.cases)} cases")
        found = [one for one in found if one.kind != "values" or tells(one)]
        found += sweeps(self)
        found += self._streamed()
        largest: dict[str, float] = {}
        # Not of chaotic cases, nor of the user's own, which may be: they would blunt all others.
        # Nor of extreme values and sizes, which are to be judged by what is usual.
        telling = [one for one in found if one.kind not in ("data", "values", "sweep") and not one.inconclusive]
        for call in (call for expected in telling for call in expected.calls):
            for name, reference in call.reference.items():
                largest[name] = max(largest.get(name, 0.0), _relative_error(call.own[name], reference))
        self.expected += [replace(expected, least=largest) for expected in found]
        return self.expected

    def whole(self, case: ModuleCase) -> Expected | None:
        """None where the module itself does not run, such as on less steps than a kernel has."""
        try:
            reference, case = self._reference(case)
            own = self.own(case.feeds)
            if case.kind == "values":
                own = farther(own, self.wide(rounded_otherwise(case.feeds, self.dtype)), reference)
                # An argmax of what large numbers saturate is of equals.
                floats = {name: array for name, array in reference.items() if array.dtype.kind == "f"}
                reference = floats or reference
                own = {name: own[name] for name in reference}
        except ExportError as error:
            if case.kind == "data":
                raise InputError(f"{case.label}: the module itself fails on it: {error}") from error
            return None
        call = Call(case.feeds, own, reference)
        return Expected(
            case.label,
            (call,),
            self.dtype,
            max(self.wide.largest_cell, *(size_of(state) for state in case.states.values()), 0.0),
            case.kind,
            time_axes=self._axes(TIME),
            batch_axes=self._axes(BATCH),
            dtypes=dict(self._dtypes),
        )

    @property
    def _dtypes(self) -> Mapping[str, str]:
        """Of the outputs of the run before; a float64 module is itself its reference."""
        return (self.wide if self.dtype == "float64" else self.own).dtypes

    def _axes(self, size: int) -> dict[str, int]:
        """The axis of every input and output that goes with the batch (`BATCH`) or with time (`TIME`)."""
        sizes = sizes_of(self.specs, BATCH, TIME)
        found = {}
        for name, info in {**self.model.inputs, **self.model.outputs}.items():
            axes = [axis for axis, dim in enumerate(info.shape) if isinstance(dim, str) and sizes.get(dim) == size]
            if len(axes) == 1:
                found[name] = axes[0]
        return found

    def _streamed(self) -> Iterator[Expected]:
        """What streams must give: the whole sequence or, where a call is one step whatever its size, call by call."""
        if not self.metadata.states:
            return
        try:
            self.model.stream()
        except InputError as error:
            self.notes.append(f"streams were not compared: {error.reason}")
            return
        if self.metadata.time_axes:
            yield from stream_cases(
                self.model, self.specs, self._axes(BATCH), 1 + self.longer, self.seed + 1, self._expect_stream
            )
            return
        for label, cases in self._sequences():
            yield from self._carried(label, cases)

    def _expect_stream(self, label: str, inputs: Mapping[str, Any], states: Mapping[str, Any]) -> Expected | None:
        """What PyTorch gives for a whole sequence; states that are arguments of the forward it wants in any case."""
        start = self.model.completed(dict(inputs)) if self._argument_states() else {}
        needed = {name: start[name] for name in self._argument_states()}
        return self.whole(ModuleCase(label, dict(inputs), {**needed, **states}))

    def _sequences(self) -> Iterator[tuple[str, list[ModuleCase]]]:
        """Calls to be made in turn, each from the states of the one before; equal ones also as streams of a pool."""
        rng = np.random.default_rng(self.seed + 1)
        for batch, sizes in ((1, (1, 1, 1, 1)), (3, (2, 1, 4)), (3, (1, 1, 1))):
            cases = []
            for size in sizes:
                case = self._case(self.specs, rng, batch, size + self.longer, states=False)
                inputs = {name: array for name, array in case.inputs.items() if name not in self.model.states}
                cases.append(replace(case, inputs=inputs, kind="chunks"))
            yield f"batch {batch}, chunks of {'+'.join(str(size + self.longer) for size in sizes)}", cases

    def _argument_states(self) -> list[str]:
        """Those that the forward has as arguments, which PyTorch does not fill in."""
        return [name for name in self.metadata.states if name in self.own.arguments]

    def _carried(self, label: str, cases: Sequence[ModuleCase]) -> Iterator[Expected]:
        """Several calls in turn.

        Where PyTorch's own error grows too large on the way, each call is also compared by itself, from the
        states that float64 came by.
        """
        start = self.model.completed(dict(cases[0].inputs))
        wide_states = {name: start[name] for name in self._argument_states()}
        own_states = dict(wide_states)
        # What is kept in attributes goes on as the module has it, whatever the file says.
        pairs = {**self.metadata.states, **self.wide.states}
        calls, steps, cell = [], [], 0.0
        try:
            for case in cases:
                given = {name: state.astype(self.model.inputs[name].dtype) for name, state in wide_states.items()}
                reference = self.wide({**case.inputs, **wide_states})
                cell = max(cell, self.wide.largest_cell)
                own = self.own({**case.inputs, **own_states})
                exact = {**case.inputs, **given}
                steps.append(Call(exact, self.own(exact), self.wide(exact)))
                calls.append(Call(case.inputs, own, reference))
                wide_states = {name: reference[after] for name, after in pairs.items()}
                own_states = {name: own[after] for name, after in pairs.items()}
        except ExportError:
            return
        axes = self._axes(BATCH)
        chunks = Expected(label, tuple(calls), self.dtype, cell, "chunks", (), self._axes(TIME), axes)
        yield chunks
        if chunks.inconclusive:
            yield replace(chunks, label=f"{label}, from float64 states", calls=tuple(steps), kind="steps")
        names = {*cases[0].inputs, *reference}
        equal = all(case.inputs[name].shape == array.shape for case in cases for name, array in cases[0].inputs.items())
        if equal and names <= axes.keys() and _batch_of(cases[0], axes) > 1:
            yield replace(chunks, label=f"{label}, in a pool", kind="pool")

    def _reference(self, case: ModuleCase) -> tuple[dict[str, np.ndarray], ModuleCase]:
        """The float64 outputs; lengths are sorted where the module (enforce_sorted) will not have them otherwise."""
        try:
            return self.wide(case.feeds), case
        except ExportError:
            ordered = {
                spec.name: -np.sort(-case.inputs[spec.name].astype(np.int64)).astype(case.inputs[spec.name].dtype)
                for spec in self.metadata.inputs
                if isinstance(spec.high, str)
            }
            if not ordered or case.kind == "data":
                raise
            sorted_case = replace(case, inputs={**case.inputs, **ordered})
            return self.wide(sorted_case.feeds), sorted_case


def _state(info: ValueInfo, sizes: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    """Never zero, and within what tanh gives, so that it serves for h and for c."""
    values: np.ndarray = np.tanh(rng.standard_normal(shape_of(info, sizes))).astype(info.dtype or np.float32)
    return values


def _plain_outputs(model: Model, metadata: Metadata) -> tuple[str, ...]:
    """The outputs that are the forward's own results; states that it returns itself are among them."""
    own = {spec.name for spec in metadata.inputs}
    added = {after for name, after in metadata.states.items() if name not in own}
    return tuple(name for name in model.outputs if name not in added)


def _batch_of(case: ModuleCase, batch_axes: Mapping[str, int]) -> int:
    name, array = next(iter(case.inputs.items()))
    return int(array.shape[batch_axes[name]])


def _relative_error(own: np.ndarray, reference: np.ndarray) -> float:
    size = size_of(reference)
    if reference.dtype.kind != "f" or size == 0 or own.shape != reference.shape:
        return 0.0
    with np.errstate(invalid="ignore"):
        error = np.abs(own - reference)
    return float(error[np.isfinite(error)].max(initial=0.0)) / size

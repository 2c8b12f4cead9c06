"""The verification of a file against any PyTorch module.

The module is run in its native precision and as a float64 copy, with the same inputs and states by name as the file;
inputs are drawn from the ranges in the file's metadata or its source, at many sizes of every named axis.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto
from torch import nn

from ...errors import ConfigError, ExportError, InputError
from ...exporter.module_metadata import parameter_digest
from ...exporter.trials.shape_trial import random_states
from ...input_spec import (
    InputSpec,
    axes,
    draw,
    longest_first,
    most_entries,
    named_sizes,
    sizes_of,
    unbounded_inputs,
)
from ...metadata import Metadata
from ...runtime import Model
from ...runtime.batch_axes import axis_roles
from ..cases import SHAPES, Case, shorter_cases
from ..comparison import Models, Planned, Verification, user_case
from ..criterion import magnitude
from ..diagnosis.search import causes_of_the_file, diagnose
from ..expected import Call, Expected, farther, largest_relative_errors, perturbed
from ..growth import GROWTH_NOTE, MOST_CASES, with_grown_roundings
from ..mutants.self_test import Target, read_graph
from ..own_states import file_only, with_own_states
from ..results import CaseResult, Cause, Location
from ..tolerances import LEAST_INPUT_GAIN, NATIVE_EPSILON
from .amplify import amplified_target
from .diagnosis import suspects, with_first_wrong_layer
from .harder import harder_targets
from .inputs import (
    BATCH,
    TIME,
    Rows,
    axes_of_size,
    find_arguments,
    require_same_inputs,
    rows_of_inputs,
    with_all_rows,
    with_wider_integers,
)
from .jumps import JUMPS_NOTE, with_jumps, with_ties
from .run import ModuleRun, runs_of
from .sizes import is_conclusive, multiples, sweeps
from .small_features import with_small_features
from .states import state_problems
from .streams import streamed_cases, streams_of_huge_inputs
from .values import cases_with_values, input_gain, values_at_other_sizes, with_other_integers

_EVEN = (12, 24)
"""Sizes with many divisors."""
_SHORT = 12
"""The largest number of steps that a module may need for the usual cases; for others each is that much longer."""
_MOST_ENTRIES = 2**21
"""Entries of an input from which axes other than batch and time are short."""


class ModuleVerification(Verification):
    """The verification of a file against the module that it was exported from.

    Args:
        model: the file, open.
        module: the module.
        seed: of the drawn inputs and states.
        inputs: the inputs as a source describes them, instead of the file's metadata.
        example_inputs: as in `export`; they are compared, too.
        data: inputs to compare in addition to the drawn ones, by the file's input names.
    """

    models: Models[ModuleRun]
    chaotic_note = "the other cases were judged"

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
        super().__init__(model, module, seed)
        self.metadata: Metadata = with_own_states(model.metadata)
        self.declared = tuple(inputs)
        self.example_inputs = example_inputs
        self.specs, found = find_arguments(model, module, inputs, example_inputs, seed)
        require_same_inputs(model, found)
        own, native, float64 = runs_of(model, module, found)
        self.dtype = str(own.dtype).removeprefix("torch.")
        self.models = Models(model, native, float64)
        self.input_gain = input_gain(float64)
        self.own = own
        """The module as a function, with its own names of its outputs."""
        self.kept_sizes: dict[str, int] = {}
        """The axes that have one size in every drawn case; see `_expected_cases`."""
        longest = max(own.arguments.sizes.values(), default=1)
        self.extra_steps = longest - 1 if longest > _SHORT else 0
        self._accepted = Case(
            "the example" if example_inputs is not None else "inputs that the module was found to accept",
            {name: tensor.detach().cpu().numpy() for name, tensor in found.tensors.items()},
        )
        self.accepted_sizes = named_sizes(self.specs, self._accepted.feeds)
        self._require_multiples(self.accepted_sizes)
        self.amplify: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        """Within it, the module has the weights of `amplified`; `amplified_target` sets it."""
        self._unexplained = False
        self._grown = 0  # the cases that growing roundings explain
        self._refusal = ""  # why the module did not run in the last case in which it did not
        self.rows: dict[str, Rows] = {}  # by input, the integers that are looked up in a table
        wider = with_wider_integers(model, tuple(self.specs), self._runs, declared=bool(inputs))
        self.specs = self._with_all_rows(wider, inputs)
        self.cases = list(self._draw_cases())
        self.cases += [self._data_case(index, feeds) for index, feeds in enumerate(data)]
        if example_inputs is not None:
            self.cases.insert(0, self._accepted)
        self.note_digest(parameter_digest(own))

    def _require_multiples(self, own: Mapping[str, int]) -> None:
        """Draw only multiples of a number as sizes of an axis, where the module takes no other sizes."""
        found = multiples(lambda sizes: self._draw(tuple(self.specs), sizes)[1], own, self.axes)
        if found:
            self.axes = replace(self.axes, multiples={**self.axes.multiples, **found})
            self.notes += [f"the module takes {name} in multiples of {number} alone" for name, number in found.items()]

    def _runs(self, specs: tuple[InputSpec, ...]) -> bool:
        return self._draw(specs, self.sizes(BATCH, TIME))[1]

    def accepts(self, feeds: Mapping[str, np.ndarray]) -> bool:
        """Whether the module runs on these inputs and states."""
        with contextlib.suppress(ExportError):
            return bool(self.models.float64(feeds))
        return False

    def _draw(self, specs: tuple[InputSpec, ...], sizes: Mapping[str, int]) -> tuple[dict[str, np.ndarray], bool]:
        """Inputs of these sizes, and whether the module runs on them."""
        drawn = draw(specs, sizes, np.random.default_rng(self.seed))
        for inputs in (drawn, *longest_first(specs, drawn)):
            if self.accepts(inputs):
                return inputs, True
        return drawn, False

    def sizes(self, batch: int, time: int) -> dict[str, int]:
        """The size of each axis, within its limits; `time` is without the steps that the module needs in any case.

        Other axes are short where inputs would be large: the height and width of a video's pictures.
        """
        sizes: dict[str, int] = {}
        for others in (None, TIME + self.extra_steps):
            drawn = sizes_of(self.specs, batch, time + self.extra_steps, others=others, known=axis_roles(self.model))
            sizes = {axis: self.kept_sizes.get(axis, self.axes.within(axis, size)) for axis, size in drawn.items()}
            if most_entries(self.specs, sizes) <= _MOST_ENTRIES:
                break
        return sizes

    def _with_all_rows(self, specs: tuple[InputSpec, ...], declared: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
        """Integers that index a table, drawn from all of its rows unless a source declares their range."""
        try:
            found = rows_of_inputs(self.models.float64, specs, self._draw(specs, self.sizes(BATCH, TIME))[0])
        except ConfigError:
            return specs
        # A number without axes is a flag, which keeps its value.
        kept = {spec.name for spec in declared if spec.low is not None} | {s.name for s in specs if not axes([s])}
        found = {name: rows for name, rows in found.items() if name not in kept}
        opened = with_all_rows(specs, found)
        if opened != specs and not self._runs(opened):
            return specs
        self.rows = found
        return opened

    def _draw_cases(self) -> Iterator[Case]:
        rng = np.random.default_rng(self.seed)
        open_axes = axes(self.specs)
        shapes = SHAPES if open_axes else SHAPES[:1]
        seen = []
        for batch, time in shapes:
            case = self.case(rng, batch, time)
            if case.label not in seen:  # limits of the axes can make two shapes equal
                seen.append(case.label)
                yield case
        if self.metadata.states:
            yield self.case(rng, *shapes[-1], states=False)
        lengths = [spec.name for spec in self.specs if isinstance(spec.high, str)]
        if lengths and open_axes:
            for batch in (3, 1):
                yield from shorter_cases(self.case(rng, batch, 7), lengths)
        inputs = unbounded_inputs(self.specs)
        if self.input_gain > LEAST_INPUT_GAIN and inputs:
            yield self.case(rng, 3, 7).multiplied("amplified", dict.fromkeys(inputs, self.input_gain))
        yield from cases_with_values(self, rng, 3, 4)

    def _even_cases(self) -> Iterator[Case]:
        """Cases with all axes grown together: a module may only take equal sizes, or whole groups of rows."""
        rng = np.random.default_rng([self.seed, 11])
        names = list(axes(self.specs))
        doubled = {name: 2 * self.accepted_sizes.get(name, _EVEN[0]) for name in names}
        for sizes in (*(dict.fromkeys(names, size) for size in _EVEN), doubled) if len(names) > 1 else ():
            yield self.case_at(rng, {name: self.axes.within(name, size) for name, size in sizes.items()})

    def _data_case(self, index: int, feeds: Mapping[str, Any]) -> Case:
        """The user's own inputs."""
        label, arrays = user_case(self.model, index, feeds)
        # Without caches, which PyTorch does not have.
        return Case(label, {name: arrays[name] for name in feeds if name not in file_only(self.model.metadata)}, "data")

    def case(self, rng: np.random.Generator, batch: int, time: int, *, states: bool = True) -> Case:
        """Random inputs, and random states where the file has some; see `sizes`."""
        return self.case_at(rng, self.sizes(batch, time), states=states)

    def case_at(self, rng: np.random.Generator, sizes: Mapping[str, int], *, states: bool = True) -> Case:
        """The same at these sizes of the axes."""
        inputs = draw(self.specs, sizes, rng)
        label = ", ".join(f"{name} {size}" for name, size in sizes.items()) or "the only shape"
        if self.metadata.states:
            label += ", states" if states else ", no states"
        inputs |= self.draw_states(sizes, rng, without=inputs) if states else {}
        return Case(label, self.models.float64.with_possible_states(inputs))

    def draw_states(
        self, sizes: Mapping[str, int], rng: np.random.Generator, *, without: Container[str] = ()
    ) -> dict[str, np.ndarray]:
        """Random states, never zero, and in the range of tanh, so that each serves as h and as c; integers 0 or 1."""
        return random_states(self.model, [name for name in self.metadata.states if name not in without], sizes, rng)

    @property
    def planned(self) -> int:
        """The number of cases."""
        return len(self._expectations) + (0 if self.amplified is None else len(self.amplified.expected))

    def _comparisons(self) -> Iterator[Planned | CaseResult]:
        yield from ((self.models, expected) for expected in self._expectations)
        yield from state_problems(self, self._expectations)
        if self.amplified is not None:
            models = replace(self.models, file=self.amplified.model)
            yield from ((models, expected) for expected in self.amplified.expected)

    @functools.cached_property
    def amplified(self) -> Target | None:
        """The file with the weights of its recurrent layers amplified, where they are small."""
        return amplified_target(self)

    def explained(self, models: Models[ModuleRun], expected: Expected) -> Expected | None:
        """The case with the jumps of a module that rounds, such as to bfloat16, or with growing roundings."""
        if self._unexplained:
            return None
        run, note = self.models.float64, JUMPS_NOTE
        with contextlib.nullcontext() if models.file is self.model else self.amplify():
            found = with_jumps(run, models.file, expected)
            if found is None and self._grown < MOST_CASES and not run.roundings.found:  # those that jump do not grow
                found, note = with_grown_roundings(run.with_rounded_operators, models.file, expected), GROWTH_NOTE
                self._grown += 1
        if found is None:
            self._unexplained = True
            return None
        if models.file is not self.model and self.amplified is not None:
            cases = [found if one is expected else one for one in self.amplified.expected]
            self.amplified = replace(self.amplified, expected=cases)
        if note not in self.notes:
            self.notes.append(note)
        return found

    def probed(self, case: Case) -> tuple[Expected, bool] | None:
        """What PyTorch gives, and whether a recurrent operator hides what reached it."""
        native, expected = self.models.native, self.expect(case)
        if expected is None:
            return None
        hidden = self.model.hides_nan and not (native.sites and native.has_finite_states)
        return replace(expected, least=self.expected[0].least), hidden

    def with_ties(self, models: Models[ModuleRun], expected: Expected) -> Expected:
        """A case in which some integers differ, with those that runs with other roundings give."""
        with contextlib.nullcontext() if models.file is self.model else self.amplify():
            return with_ties(self.models.float64, models.file, expected)

    @functools.cached_property
    def graph(self) -> ModelProto:
        """The file's graph, without its external data."""
        return read_graph(self.model)

    def harder(self) -> Iterator[Target]:
        """Further cases for mutants that the others do not reject."""
        return harder_targets(self)

    def diagnosis(self) -> tuple[Location | None, tuple[Cause, ...]]:
        """From the comparisons of the file as it is, and the states that the module itself keeps in attributes."""
        return diagnose(
            [done for done in self.compared if done.models is self.models],
            self.specs,
            self.models.float64.states,
            located=functools.partial(with_first_wrong_layer, self),
            suspects=functools.partial(suspects, self),
            from_the_file=causes_of_the_file,
        )

    @functools.cached_property
    def _expectations(self) -> list[Expected]:
        """What PyTorch gives in every case.

        The lower bound of PyTorch's own error of an output is its largest in any of the cases, since in a case of
        two numbers it can be nearly 0 by chance.
        """
        found = self._expected_cases()
        skipped = len(self.cases) - len(found)
        if skipped:
            why = f": {self._refusal}" if self._refusal and not found else ""
            self.notes.append(f"the module itself does not run at {skipped} of the {len(self.cases)} cases{why}")
            found += filter(None, map(self.expect, self._even_cases()))
        found = [one for one in found if one.kind != "values" or is_conclusive(one)]
        found += [*values_at_other_sizes(self), *sweeps(self), *streamed_cases(self)]
        found += with_other_integers(self, found)
        # Without chaotic cases and the user's own, which would hide errors in others, and extreme values and sizes.
        usual = [one for one in found if one.kind not in ("data", "values", "sweep") and not one.inconclusive]
        least = largest_relative_errors(usual)
        found += streams_of_huge_inputs(self)
        return with_small_features(self.models.float64, [replace(expected, least=least) for expected in found])

    def _expected_cases(self) -> list[Expected]:
        """What PyTorch gives in the cases that the module runs on.

        Where these are few, as of pictures whose height and width are right within a narrow range, more are drawn in
        which the axes other than those of batch and time have the sizes that the module was found to accept.
        """

        def run(cases: Iterable[Case]) -> list[Expected]:
            return [expected for expected in map(self.expect, cases) if expected is not None]

        found = run(self.cases)
        if 2 * len(found) > len(self.cases):
            return found
        roles = sizes_of(self.specs, BATCH, TIME, known=axis_roles(self.model))
        others = [axis for axis, size in roles.items() if size > TIME and axis in self.accepted_sizes]
        self.kept_sizes = {axis: self.accepted_sizes[axis] for axis in others}
        if self.kept_sizes:
            cases = [case for case in self._draw_cases() if case.label not in {one.label for one in found}]
            more = run(cases)
            if len(more) > len(found):
                self.cases += cases
                sizes = ", ".join(f"{axis} {size}" for axis, size in self.kept_sizes.items())
                self.notes.append(f"the module itself runs at few sizes of other axes than these: {sizes}")
                found += more
            else:
                self.kept_sizes = {}
        if not found:
            self.cases.append(self._accepted)
            found = run([self._accepted])
        return found

    def expect(self, case: Case) -> Expected | None:
        """What PyTorch gives; None where the module itself does not run, such as on fewer steps than its kernel."""
        native_run, float64_run = self.models.native, self.models.float64
        try:
            reference, case = self._reference(case)
            as_in = float64_run.roundings
            native = native_run(case.feeds, as_in)
            if case.kind == "values":
                native = farther(native, float64_run(perturbed(case.feeds, self.dtype), as_in), reference)
                rounded = float64_run.with_rounded_layers(case.feeds, NATIVE_EPSILON[self.dtype], as_in=as_in)
                native = farther(native, rounded, reference)
                # With saturated gates an argmax is of equal numbers.
                reference = {name: array for name, array in reference.items() if array.dtype.kind == "f"} or reference
                native = {name: native[name] for name in reference}
        except ExportError as error:
            if case.kind == "data":
                raise InputError(f"{case.label}: the module itself fails on it: {error}") from error
            self._refusal = str(error)
            return None
        states = [array for name, array in case.feeds.items() if name not in native_run.arguments]
        return Expected(
            case.label,
            (Call(case.feeds, native, reference),),
            self.dtype,
            max(float64_run.largest_cell, *(magnitude(state) for state in states), 0.0),
            case.kind,
            time_axes=axes_of_size(self.model, self.specs, TIME),
            batch_axes=axes_of_size(self.model, self.specs, BATCH),
            # A float64 module is itself the reference.
            dtypes=dict((float64_run if self.dtype == "float64" else native_run).dtypes),
        )

    def _reference(self, case: Case) -> tuple[dict[str, np.ndarray], Case]:
        """The float64 outputs, with the longest sequences first if the module (enforce_sorted) needs that."""
        try:
            return self.models.float64(case.feeds), case
        except ExportError:
            if case.kind == "data":
                raise
            for feeds in longest_first(self.specs, case.feeds):
                with contextlib.suppress(ExportError):
                    return self.models.float64(feeds), replace(case, feeds=feeds)
            raise

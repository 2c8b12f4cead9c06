"""Verifies a file against any PyTorch module, step by step."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from torch import nn

from ...exporter.module_metadata import parameter_digest
from ...input_spec import InputSpec, sizes_of
from ...runtime import Model
from ...runtime.batch_axes import axis_roles
from ..cases import Case
from ..comparison import Models, Planned, Verification, user_case
from ..diagnosis.search import causes_of_the_file, diagnose
from ..expected import Expected, largest_relative_errors
from ..growth import GROWTH_NOTE, MOST_CASES, with_grown_roundings
from ..mutants.self_test import Target
from ..own_states import file_only
from ..results import CaseResult, Cause, Location
from .amplify import AmplifiedTarget, amplified_target
from .diagnosis import suspects, with_first_wrong_layer
from .harder import harder_targets
from .inputs import BATCH, TIME
from .jumps import JUMPS_NOTE, with_jumps, with_near_ties, with_ties
from .run import ModuleRun
from .sizes import is_conclusive, sweeps
from .small_features import with_small_features
from .states import state_problems
from .streams import streamed_cases, streams_of_huge_inputs
from .subject import Subject
from .tables import table_problems
from .thresholds import threshold_case
from .unused_weights import weight_problems
from .usual import even_cases, usual_cases
from .values import values_at_other_sizes, with_other_integers


class ModuleVerification(Verification):
    """The verification of a file against the module that it was exported from.

    Args:
        model: the file, open.
        module: the module.
        seed: of the random inputs and states.
        inputs: the inputs as a source describes them, instead of the file's metadata.
        example_inputs: as in `export`; they are compared, too.
        data: inputs to compare in addition to the random ones, by the file's input names.
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
        self.subject = Subject.of(model, module, seed=seed, inputs=inputs, example_inputs=example_inputs)
        self.specs, self.models = self.subject.specs, self.subject.models
        self.notes += [
            f"the module takes {name} only in multiples of {number}" for name, number in self.subject.multiples.items()
        ]
        self._unexplained = False
        self._grown = 0  # the cases that growing roundings explain
        self.cases = list(usual_cases(self.subject))
        self.cases += [self._data_case(index, feeds) for index, feeds in enumerate(data)]
        self.note_digest(parameter_digest(self.subject.own))

    def _data_case(self, index: int, feeds: Mapping[str, Any]) -> Case:
        """The user's own inputs."""
        label, arrays = user_case(self.model, index, feeds)
        # Without caches, which PyTorch does not have.
        return Case(label, {name: arrays[name] for name in feeds if name not in file_only(self.model.metadata)}, "data")

    @property
    def planned(self) -> int:
        """The number of cases."""
        return len(self._expectations) + (0 if self.amplified is None else len(self.amplified.expected))

    def _comparisons(self) -> Iterator[Planned | CaseResult]:
        yield from ((self.models, expected) for expected in self._expectations)
        yield from state_problems(self.subject, self._expectations)
        yield from table_problems(self.subject, self._expectations)
        yield from weight_problems(self.subject, self._expectations)
        if self.amplified is not None:
            models = replace(self.models, file=self.amplified.model)
            yield from ((models, expected) for expected in self.amplified.expected)

    @functools.cached_property
    def amplified(self) -> AmplifiedTarget | None:
        """The file with the weights of its recurrent layers amplified, where they are small."""
        return amplified_target(self.subject)

    def explained(self, models: Models[ModuleRun], expected: Expected) -> Expected | None:
        """The case with the jumps of a module that rounds, such as to bfloat16, or with growing roundings."""
        if self._unexplained:
            return None
        run, note = self.models.float64, JUMPS_NOTE
        with self._weights_of(models.file):
            found = with_jumps(run, models.native, models.file, expected)
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

    def _weights_of(self, file: Model) -> AbstractContextManager[None]:
        """A context in which the module has the weights of a file: its own, or amplified ones."""
        if file is self.model or self.amplified is None:
            return contextlib.nullcontext()
        return self.amplified.scaled()

    def probed(self, case: Case) -> tuple[Expected, bool] | None:
        """What PyTorch gives, and whether a recurrent operator hides what reached it."""
        native, expected = self.models.native, self.subject.expect(case)
        if expected is None:
            return None
        hidden = self.model.hides_nan and not (native.sites and native.has_finite_states)
        return replace(expected, least=self.expected[0].least), hidden

    def with_ties(self, models: Models[ModuleRun], expected: Expected) -> Expected:
        """A case in which some integers differ, with those that runs with other roundings give."""
        with self._weights_of(models.file):
            return with_ties(self.models.float64, models.file, expected)

    def with_near_ties(self, expected: Expected) -> Expected:
        """A case with the integers that runs with other roundings give."""
        return with_near_ties(self.models.float64, expected)

    def harder(self) -> Iterator[Target]:
        """Further cases for mutants that the others do not reject."""
        return harder_targets(self.subject, self.expected)

    def diagnosis(self) -> tuple[Location | None, tuple[Cause, ...]]:
        """From the comparisons of the file as it is, and the states that the module itself keeps in attributes."""
        return diagnose(
            [done for done in self.compared if done.models is self.models],
            self.specs,
            self.models.float64.states,
            located=functools.partial(with_first_wrong_layer, self.subject),
            suspects=functools.partial(suspects, self.subject),
            from_the_file=causes_of_the_file,
        )

    @functools.cached_property
    def _expectations(self) -> list[Expected]:
        """What PyTorch gives in every case.

        The lower bound of PyTorch's own error of an output is its largest in any of the cases, since in a case of
        two numbers it can be nearly 0 by chance.
        """
        found = self._expected_cases()
        ran = {one.label for one in found}
        failing = [case for case in self.cases if case.label not in ran]
        if failing:
            why = f"in the last of them, {failing[-1].label}: {self.subject.refusal(failing[-1])}"
            self.notes.append(f"the module itself fails in {len(failing)} of the {len(self.cases)} cases; {why}")
            found += filter(None, map(self.subject.expect, even_cases(self.subject)))
        found = [one for one in found if one.kind != "values" or is_conclusive(one)]
        found += values_at_other_sizes(self.subject, self.cases)
        found += sweeps(self.subject, self.notes)
        found += streamed_cases(self.subject, self.notes)
        found += with_other_integers(self.subject, found)
        # Without chaotic cases and the user's own, which would hide errors in others, and extreme values and sizes.
        usual = [one for one in found if one.kind not in ("data", "values", "sweep") and not one.inconclusive]
        least = largest_relative_errors(usual)
        found += streams_of_huge_inputs(self.subject)
        found += filter(None, [threshold_case(self.subject)])
        return with_small_features(self.models.float64, [replace(expected, least=least) for expected in found])

    def _expected_cases(self) -> list[Expected]:
        """What PyTorch gives in the cases that the module runs on.

        Where these are few, as of pictures whose height and width are right within a narrow range, more are made in
        which the axes other than those of batch and time have the sizes that the module was found to accept.
        """

        def run(cases: Iterable[Case]) -> list[Expected]:
            return [expected for expected in map(self.subject.expect, cases) if expected is not None]

        found = run(self.cases)
        if 2 * len(found) > len(self.cases):
            return found
        subject = self.subject
        roles = sizes_of(self.specs, BATCH, TIME, known=axis_roles(self.model))
        others = [axis for axis, size in roles.items() if size > TIME and axis in subject.accepted_sizes]
        kept = {axis: subject.accepted_sizes[axis] for axis in others}
        if kept:
            self.subject = replace(subject, kept_sizes=kept)
            cases = [case for case in usual_cases(self.subject) if case.label not in {one.label for one in found}]
            more = run(cases)
            if len(more) > len(found):
                self.cases += cases
                sizes = ", ".join(f"{axis} {size}" for axis, size in kept.items())
                self.notes.append(f"the module itself runs only at few sizes of other axes, besides {sizes}")
                found += more
            else:
                self.subject = subject
        if not found:
            self.cases.append(self.subject.accepted)
            found = run([self.subject.accepted])
        return found

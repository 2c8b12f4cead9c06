"""Verifies a generating file against its module in a Python loop, in two precisions.

Tokens must be equal one by one.  Where two are so close that rounding may decide between them, nothing after that can
be compared, so a case ends before the first such step.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from onnx import numpy_helper
from torch import nn

from ...errors import ConfigError, ExportError, InputError, RunError
from ...exporter.module_metadata import parameter_digest
from ...generation.layout import state_axes_of
from ...generation.proof import draw_prompt, with_steps
from ...generation.python_loop import Arrays, Looped, repeat
from ...generation.stop import STOPS_AT, stop_constant
from ...generation_spec import COUNTS, GENERATED, MAX_STEPS, NOISE, GeneratingStep
from ...input_spec import InputSpec
from ...metadata import Metadata
from ...runtime import Model
from ..comparison import Models, Planned, Verification, user_case
from ..expected import Call, Expected, first_difference, largest_relative_errors
from ..modules.inputs import find_arguments
from ..modules.run import runs_of
from ..mutants.self_test import Target, opened, read_graph
from ..own_states import with_own_states
from ..results import CaseResult, Cause, Location
from ..tolerances import NATIVE_EPSILON, K
from .prompts import prompts

_NEAR = 4 * K
"""A choice is near if numbers that are off by this many of PyTorch's errors would change it."""
_ENDING, _ENDING_ATTEMPTS = (6, 2, 24), 30
"""The sizes, as in `Prompt`, of the batch whose sequences end at different steps, and how often it is drawn."""
_ATTEMPTS = 4
"""How many prompts are tried for a case if one leads to a near choice in its first step."""


@dataclass(frozen=True)
class _StepView:
    path: str
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    metadata: Metadata


def view_of_step(model: Model) -> Model:
    """A stand-in for the step's `Model`, from what a generating file says about its step; it cannot be run."""
    described = generation_of(model)
    metadata = replace(model.metadata, inputs=described.inputs, generation=None)
    return cast("Model", _StepView(model.path, model.inputs, described.outputs, metadata))


def generation_of(model: Model) -> GeneratingStep:
    """The step that a generating file repeats."""
    described = model.metadata.generation
    assert described is not None  # noqa: S101 - the caller's condition
    return described


class GenerationVerification(Verification):
    """The verification of a generating file against a step in a Python loop.

    Args:
        model: the file, open.
        module: the module that gives the step.
        native: the step in its own precision: arrays by name to arrays by name, and `largest_cell` of its last run.
        float64: the same in float64.
        dtype: the step's.
        argument_states: the states that the step cannot start itself.
        own_states: the states that the step can be given; without them, each step processes all earlier steps again.
        seed: of the random prompts, states and noise.
        data: inputs to compare in addition to the random ones, by the file's input names.

    Raises:
        ExportError: the step can neither be given some state nor process earlier steps again.
    """

    chaotic_note = "the other cases were judged"

    def __init__(
        self,
        model: Model,
        module: Any,
        native: Any,
        float64: Any,
        *,
        dtype: str,
        argument_states: Sequence[str],
        own_states: Mapping[str, str],
        seed: int = 0,
        data: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(model, module, seed)
        self.described = generation_of(model)
        self.models = Models(model, native, float64)
        self.dtype = dtype
        self.argument_states = argument_states
        self.own_states = own_states
        self.state_axes = state_axes_of(model)
        self.anew = len(own_states) < len(model.states)
        if self.anew and self.described.time_axis is None:
            raise ExportError(
                f"{model.path}: has states that PyTorch cannot be given, and no time axis to start again on"
            )
        self.data = data
        self.cut = 0
        self.ended = False

    @classmethod
    def of_module(
        cls,
        model: Model,
        module: nn.Module,
        *,
        seed: int = 0,
        inputs: Sequence[InputSpec] = (),
        example_inputs: Any = None,
        data: Sequence[Mapping[str, Any]] = (),
    ) -> GenerationVerification:
        """The verification against the module whose step the file repeats.

        Args:
            model: the file, open.
            module: the module.
            seed: of the random prompts, states and noise.
            inputs: the module's inputs as a source describes them, instead of the file's metadata.
            example_inputs: as in `export`, where the file does not describe the module's inputs.
            data: inputs to compare in addition to the random ones, by the file's input names.

        Raises:
            ConfigError: the module's inputs differ from those of the file's step.
            ExportError: it cannot be run as the step.
        """
        view = view_of_step(model)
        _, found = find_arguments(view, module, inputs, example_inputs, seed)
        arguments = set(found.tensors)
        argument_states = [name for name in model.states if name in arguments]
        fed = {*(spec.name for spec in model.metadata.inputs), *argument_states} - {MAX_STEPS, NOISE, "temperature"}
        if arguments != fed:
            raise ConfigError(
                f"{model.path}: repeats a step of {', '.join(sorted(fed))}, and the module takes "
                f"{', '.join(sorted(arguments))}; is the file this module's?"
            )
        own, native, float64 = runs_of(view, module, found)
        verification = cls(
            model,
            module,
            native,
            float64,
            dtype=str(own.dtype).removeprefix("torch."),
            argument_states=argument_states,
            own_states=with_own_states(model.metadata).states,
            seed=seed,
            data=data,
        )
        verification.note_digest(parameter_digest(own))
        return verification

    @property
    def planned(self) -> int:
        """The number of cases."""
        return len(prompts(self.described, anew=self.anew)) + self.described.generation.stops + len(self.data)

    @functools.cached_property
    def amplified(self) -> Target | None:
        """The file with a stop token that does occur, if no sequence ended."""
        stops = self.described.generation.stop_token
        if self.ended or not stops:
            return None
        feeds = draw_prompt(self.model, _ENDING, np.random.default_rng(self.seed + 2), states=not self.anew)
        token = self._occurring(feeds)
        proto = read_graph(self.model)
        named = [tensor for tensor in proto.graph.initializer if tensor.name == stop_constant(stops[0])]
        found = None
        if token is not None and len(named) == 1:
            named[0].CopyFrom(numpy_helper.from_array(np.array([[token]], np.int64), named[0].name))
            generation = self.described.generation
            other = replace(generation, stop_token=(token, *stops[1:]), pad=generation.padding)
            described = replace(self.described, generation=other)
            found = self._expected(
                f"with the stop token {token}, as no random sequence ended", feeds, described=described
            )
        note = f"with the stop token {token} some do" if found is not None else "pass data with prompts that do"
        self.notes.append(f"no random sequence ended before others of its batch; {note}")
        return Target(opened(self.model, proto), proto, [found]) if found is not None else None

    def diagnosis(self) -> tuple[Location | None, tuple[Cause, ...]]:
        """The first output that differs; the step's own file, verified like any other, shows more."""
        return first_difference([(one.expected, one.result) for one in self.compared if not one.result.passed]), ()

    def _comparisons(self) -> Iterator[Planned | CaseResult]:
        yield from self._wrong_constants()
        ending = self._ending() if self.described.generation.stops else ()
        expected = [one for one in (*self._drawn(), *ending, *self._users()) if one is not None]
        if self.cut:
            self.notes.append(
                f"{self.cut} of {len(expected)} cases end before a step in which rounding may decide between two tokens"
            )
        if not any(call.reference[GENERATED].size for one in expected for call in one.calls):
            yield CaseResult("generated", error="every random prompt leads to a near tie at once; pass your own data")
        usual = [one for one in expected if one.kind not in ("data", "values") and not one.inconclusive]
        exact = {GENERATED, COUNTS} if self.described.generation.choose != "value" else {COUNTS}
        least = {name: error for name, error in largest_relative_errors(usual).items() if name not in exact}
        for one in expected:
            yield self.models, replace(one, least=least)
        if self.amplified is not None:
            models = replace(self.models, file=self.amplified.model)
            yield from ((models, one) for one in self.amplified.expected)

    def _wrong_constants(self) -> Iterator[CaseResult]:
        """A failing case if the graph's stop tokens differ from the file's metadata, which few sequences would show."""
        wanted = {stop_constant(token): token for token in self.described.generation.stop_token}
        initializers = read_graph(self.model).graph.initializer
        found = {item.name: item for item in initializers if item.name.startswith(STOPS_AT)}
        for name, token in wanted.items():
            if name not in found or not bool((numpy_helper.to_array(found[name]) == token).all()):
                yield CaseResult(
                    "stop tokens", error=f"the metadata say that {token} ends a sequence, but in the graph it does not"
                )
        for name in found.keys() - wanted:
            token = name.removeprefix(STOPS_AT)
            yield CaseResult("stop tokens", error=f"{token} ends a sequence, but the metadata do not say so")

    def _drawn(self) -> Iterator[Expected | None]:
        rng = np.random.default_rng(self.seed)
        for prompt in prompts(self.described, anew=self.anew):
            for _ in range(_ATTEMPTS):
                kind = "values" if prompt.extreme else "whole"
                found = self._expected(prompt.label, prompt.drawn(self.model, rng), kind=kind)
                if found is not None:
                    if not (prompt.extreme and found.inconclusive):
                        yield found
                    break

    def _ending(self) -> Iterator[Expected]:
        """A batch whose sequences end at different steps; stop tokens are rare, so more prompts are tried for it."""
        rng = np.random.default_rng(self.seed + 1)
        batch, _, steps = _ENDING
        for attempt in range(_ENDING_ATTEMPTS):
            feeds = draw_prompt(self.model, _ENDING, rng, states=bool(attempt % 2) and not self.anew)
            counts = self._loop(self.models.float64, self._with_states(feeds), self.described)[0].results[COUNTS]
            if counts.min() < counts.max() <= steps:
                found = self._expected(f"batch {batch}, ends at {', '.join(map(str, sorted(counts)))} steps", feeds)
                ends = found.calls[0].reference[COUNTS] if found is not None else np.zeros(1)
                if found is not None and ends.min() < ends.max():
                    self.ended = True
                    yield self._with_file_states(found) if self.anew else found
                    return
        if not self.described.generation.stop_token:
            self.notes.append("no random sequence ended before others of its batch; pass data with prompts that do")

    def _with_file_states(self, expected: Expected) -> Expected:
        """Expect states that only the file has to be those of each sequence alone, which ends with its last step."""
        (call,) = expected.calls
        batch = self.model.inputs[self.described.generation.input].shape[self.described.batch_axis]

        def row_of(name: str, row: int) -> np.ndarray:
            shape = self.model.inputs[name].shape
            array = call.feeds[name]
            return np.take(array, [row], shape.index(batch)) if batch in shape else array

        count = len(call.reference[COUNTS])
        try:
            rows = [self.model.run({name: row_of(name, row) for name in call.feeds}) for row in range(count)]
        except (InputError, RunError):
            return expected  # other cases of one row fail
        others = {name: after for name, after in self.model.states.items() if name not in self.own_states}
        alone = {
            after: np.concatenate([row[after] for row in rows], self.state_axes[name]).astype(np.float64)
            for name, after in others.items()
        }
        return replace(expected, calls=(Call(call.feeds, {**call.native, **alone}, {**call.reference, **alone}),))

    def _occurring(self, feeds: Arrays) -> int | None:
        """A token that ends some sequences of a batch before others."""
        tokens = self._loop(self.models.float64, feeds, self.described)[0].results[GENERATED]
        rows = np.moveaxis(tokens, self.described.batch_axis, 0).reshape(tokens.shape[self.described.batch_axis], -1)
        for token in dict.fromkeys(rows[:, 1:].reshape(-1).tolist()):
            found = rows == token
            counts = np.where(found.any(axis=1), found.argmax(axis=1) + 1, rows.shape[1])
            if token not in self.described.generation.stop_token and counts.min() < counts.max():
                return int(token)
        return None

    def _users(self) -> Iterator[Expected | None]:
        for index, feeds in enumerate(self.data):
            label, arrays = user_case(self.model, index, feeds)
            try:
                found = self._expected(label, dict(arrays), kind="data")
            except ExportError as error:
                raise InputError(f"{label}: the module itself fails on it: {error}") from error
            if found is None:
                self.notes.append(f"{label} leads to a near tie in its first step, and was not compared")
            yield found

    def _expected(
        self, label: str, feeds: Arrays, kind: str = "whole", described: GeneratingStep | None = None
    ) -> Expected | None:
        """The results of the Python loop; None where rounding may decide its first step."""
        described = described or self.described
        given = self._with_states(feeds)
        reference, largest = self._loop(self.models.float64, given, described)
        native, _ = self._loop(self.models.native, given, described)
        near = first_near_choice(reference, native, self.dtype)
        if near is not None:
            self.cut += 1
            if near == 0:
                return None
            feeds, given = (with_steps(each, described, near) for each in (feeds, given))
            label = f"{label}, cut at {near}"
            reference, _ = self._loop(self.models.float64, given, described)
            native, _ = self._loop(self.models.native, given, described)
        return Expected(
            label,
            (Call(feeds, _floats(native.results), _floats(reference.results)),),
            self.dtype,
            largest,
            kind,
            time_axes={} if described.time_axis is None else {described.generation.input: described.time_axis},
            batch_axes={described.generation.input: described.batch_axis},
            scales={} if described.generation.choose == "value" else {GENERATED: 1.0, COUNTS: 1.0},
            dtypes={GENERATED: str(self.model.outputs[GENERATED].dtype), COUNTS: "int64"},
        )

    def _with_states(self, feeds: Arrays) -> Arrays:
        """The inputs with the states that PyTorch does not start itself."""
        completed = self.model.completed(dict(feeds))
        return {**feeds, **{name: completed[name] for name in self.argument_states}}

    def _loop(self, run: Any, feeds: Arrays, described: GeneratingStep) -> tuple[Looped, float]:
        """The results of the loop, and the largest |c| of its steps."""
        read: list[np.ndarray] = []
        largest = 0.0

        def step(arrays: Arrays) -> Mapping[str, np.ndarray]:
            nonlocal largest
            if self.anew:
                read.append(arrays[described.generation.input])
                arrays = {name: array for name, array in arrays.items() if name not in self.own_states}
                given = {name: feeds[name] for name in self.argument_states}
                arrays |= given | {described.generation.input: np.concatenate(read, described.time_axis)}
            outputs: Arrays = run(arrays)
            largest = max(largest, run.largest_cell)
            return outputs

        return repeat(step, described, self.own_states, self.state_axes, feeds), largest


def first_near_choice(reference: Looped, native: Looped, dtype: str) -> int | None:
    """The first step in which rounding may choose another token, or end a sequence elsewhere; None without one.

    Args:
        reference: in float64.
        native: in the module's own dtype.
        dtype: that.
    """
    for number, decisions in enumerate(reference.decisions):
        if number >= len(native.decisions):
            return number
        for one, other in zip(decisions, native.decisions[number], strict=True):
            if one.numbers.shape != other.numbers.shape:
                return number  # another sequence has ended
            with np.errstate(invalid="ignore"):
                difference = np.abs(one.numbers - other.numbers)
            error = np.where(np.isfinite(difference), difference, 0.0)
            if one.is_near(_NEAR * np.maximum(error, NATIVE_EPSILON[dtype] * np.abs(one.numbers))):
                return number
    return None


def _floats(results: Arrays) -> Arrays:
    """The results with tokens also as floats, which must all be right: the criterion lets a few integers differ."""
    return {name: array.astype(np.float64) for name, array in results.items()}

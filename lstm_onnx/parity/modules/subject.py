"""The subject of a verification: a file, the PyTorch module from which it came, and the inputs that both take.

The module is run in its native precision and as a float64 copy, with the same inputs and states by name as the file;
inputs are random, within the ranges in the file's metadata or its source, at many sizes of every named axis.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from onnx import ModelProto
from torch import nn

from ...errors import ConfigError, ExportError, InputError
from ...exporter.functional.functional_module import FunctionalModule, OutputCountError
from ...exporter.trials.shape_trial import random_states
from ...input_spec import InputSpec, axes, draw, longest_first, most_entries, named_sizes, sizes_of
from ...metadata import Metadata
from ...runtime import Model
from ...runtime.batch_axes import axis_roles
from ..amplify import input_gains
from ..cases import Case
from ..comparison import Models
from ..criterion import magnitude
from ..expected import Call, Expected, farther, perturbed
from ..mutants.self_test import read_graph
from ..own_states import with_own_states
from ..sizes import Axes
from ..tolerances import NATIVE_EPSILON
from .inputs import (
    BATCH,
    TIME,
    Rows,
    axes_of_size,
    find_arguments,
    multiples,
    require_same_inputs,
    rows_of_inputs,
    with_all_rows,
    with_wider_integers,
)
from .run import ModuleRun, runs_of

_SHORT = 12
"""If a module needs more steps than this, each case is that much longer than usual."""
_MOST_ENTRIES = 2**21
"""If an input has more elements than this, axes other than batch and time are short."""
_UNITS, _RUNS = 16, 4
"""How many roundings operators are off by in so many runs: integers of unusual values that change are not compared."""


@dataclass(frozen=True)
class Subject:
    """A file, the module that it came from, and what is known of their inputs.

    Attributes:
        model: the file, open.
        module: the module.
        declared: the inputs as a source describes them, instead of the file's metadata.
        example_inputs: as in `export`.
        seed: of the random inputs and states.
        unsaved: the graph of an open file that is not on disk.
        own: the module as a function, with its own names for its outputs.
        models: the file, and the module's runs in both precisions.
        accepted: the example, or inputs that the module was found to accept.
        specs: the inputs that are not states, to draw from.
        multiples: by axis, the number of which its size must be a multiple, if the module accepts no other sizes.
        rows: by input, the integers that are looked up in a table.
        kept_sizes: the axes that have the same size in every random case.
    """

    model: Model
    module: nn.Module
    declared: Sequence[InputSpec]
    example_inputs: Any
    seed: int
    unsaved: ModelProto | None
    own: FunctionalModule
    models: Models[ModuleRun]
    accepted: Case
    specs: tuple[InputSpec, ...]
    multiples: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, Rows] = field(default_factory=dict)
    kept_sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Model,
        module: nn.Module,
        *,
        seed: int = 0,
        inputs: Sequence[InputSpec] = (),
        example_inputs: Any = None,
        unsaved: ModelProto | None = None,
    ) -> Subject:
        """A file and its module, with what runs of the module show about the inputs.

        Args:
            model: the file, open.
            module: the module.
            seed: of the random inputs and states.
            inputs: the inputs as a source describes them, instead of the file's metadata.
            example_inputs: as in `export`.
            unsaved: the graph of an open file that is not on disk.

        Raises:
            ConfigError: the inputs or outputs of the file and the module differ, or nothing describes them.
            ExportError: the module fails.
        """
        specs, found = find_arguments(model, module, inputs, example_inputs, seed)
        require_same_inputs(model, found)
        own, native, float64 = runs_of(model, module, found)
        accepted = Case(
            "the example" if example_inputs is not None else "inputs that the module was found to accept",
            {name: tensor.detach().cpu().numpy() for name, tensor in found.tensors.items()},
        )
        models = Models(model, native, float64)
        subject = cls(model, module, tuple(inputs), example_inputs, seed, unsaved, own, models, accepted, tuple(specs))
        return _with_all_rows(_with_wider_integers(_with_multiples(subject)))

    @property
    def metadata(self) -> Metadata:
        """The file's metadata, with the states that only it has."""
        return with_own_states(self.model.metadata)

    @functools.cached_property
    def graph(self) -> ModelProto:
        """The file's graph, without its external data."""
        return read_graph(self.model) if self.unsaved is None else self.unsaved

    @property
    def dtype(self) -> str:
        """The module's."""
        return str(self.own.dtype).removeprefix("torch.")

    @functools.cached_property
    def axes(self) -> Axes:
        """The sizes that the file and the module take."""
        of_file = Axes.of(self.model.metadata)
        return replace(of_file, multiples={**of_file.multiples, **self.multiples})

    @functools.cached_property
    def accepted_sizes(self) -> dict[str, int]:
        """Sizes of the axes at which the module was found to run."""
        return named_sizes(self.specs, self.accepted.feeds)

    @functools.cached_property
    def input_gain(self) -> float:
        """The factor that inputs need where the weights of a module's LSTMs are small."""
        sites = self.models.float64.sites.values()
        lstms = [site for site in sites if site.spec.op_type == "LSTM" and not site.cell]
        return max((input_gains(site.spec, site.weights).input for site in lstms), default=1.0)  # type: ignore[arg-type]

    @property
    def extra_steps(self) -> int:
        """The steps that the module needs in any case, where they are many."""
        longest = max(self.own.arguments.sizes.values(), default=1)
        return longest - 1 if longest > _SHORT else 0

    def accepts(self, feeds: Mapping[str, np.ndarray]) -> bool:
        """Whether the module runs on these inputs and states."""
        try:
            return bool(self.models.float64(feeds))
        except ExportError as error:
            return isinstance(error, OutputCountError)  # `expect` reports it

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

    def expect(self, case: Case) -> Expected | None:
        """PyTorch's outputs; None where the module itself fails, such as on fewer steps than its kernel.

        Raises:
            OutputCountError: the module runs, but returns more or fewer tensors than the file.
        """
        try:
            return self._expected(case)
        except OutputCountError:
            raise  # the file has a result where the module has none
        except ExportError as error:
            if case.kind == "data":
                raise InputError(f"{case.label}: the module itself fails on it: {error}") from error
            return None

    def refusal(self, case: Case) -> str:
        """Why the module itself fails on a case; "" where it does not."""
        try:
            self._expected(case)
        except ExportError as error:
            return str(error)
        return ""

    def _expected(self, case: Case) -> Expected:
        native_run, float64_run = self.models.native, self.models.float64
        reference, case = self._reference(case)
        as_in = float64_run.roundings
        native = native_run(case.feeds, as_in)
        if case.kind == "values":
            native = farther(native, float64_run(perturbed(case.feeds, self.dtype), as_in), reference)
            rounded = float64_run.with_rounded_layers(case.feeds, NATIVE_EPSILON[self.dtype], as_in=as_in)
            native = farther(native, rounded, reference)
            # With saturated gates an argmax compares equal numbers.
            integers = {name: array for name, array in reference.items() if array.dtype.kind in "iub"}
            for seed in range(_RUNS if integers else 0):
                unit = _UNITS * NATIVE_EPSILON[self.dtype]
                native |= farther(native, float64_run.with_rounded_operators(case.feeds, unit, seed), integers)
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


def _drawn(
    subject: Subject, specs: tuple[InputSpec, ...], sizes: Mapping[str, int]
) -> tuple[dict[str, np.ndarray], bool]:
    """Inputs of these sizes, and whether the module runs on them."""
    drawn = draw(specs, sizes, np.random.default_rng(subject.seed))
    for inputs in (drawn, *longest_first(specs, drawn)):
        if subject.accepts(inputs):
            return inputs, True
    return drawn, False


def _runs(subject: Subject, specs: tuple[InputSpec, ...]) -> bool:
    return _drawn(subject, specs, subject.sizes(BATCH, TIME))[1]


def _with_multiples(subject: Subject) -> Subject:
    """Only multiples of a number as sizes of an axis, where the module takes no other sizes."""

    def runs(sizes: Mapping[str, int]) -> bool:
        return _drawn(subject, subject.specs, sizes)[1]

    return replace(subject, multiples=multiples(runs, subject.accepted_sizes, subject.axes))


def _with_wider_integers(subject: Subject) -> Subject:
    """Integers in wider ranges than the example's, where the module runs on them."""
    runs, declared = functools.partial(_runs, subject), bool(subject.declared)
    return replace(subject, specs=with_wider_integers(subject.model, subject.specs, runs, declared=declared))


def _with_all_rows(subject: Subject) -> Subject:
    """Integers that index a table, drawn from all of its rows unless a source declares their range."""
    specs = subject.specs
    try:
        found = rows_of_inputs(subject.models.float64, specs, _drawn(subject, specs, subject.sizes(BATCH, TIME))[0])
    except ConfigError:
        return subject
    # A number without axes is a flag, which keeps its value.
    kept = {spec.name for spec in subject.declared if spec.low is not None} | {s.name for s in specs if not axes([s])}
    found = {name: rows for name, rows in found.items() if name not in kept}
    opened = with_all_rows(specs, found)
    if opened != specs and not _runs(subject, opened):
        return subject
    return replace(subject, specs=opened, rows=found)

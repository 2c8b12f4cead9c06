"""Compares an exported file with its module at shapes other than the example's.

This is not `verify`'s proof of parity: it makes sure that tracing has fixed no size, step or state, and finds the sizes
at which a file is right.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from onnx import helper
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ...atomic_io import temporary_folder
from ...errors import ExportError, InputError, MissingDependencyError, RunError
from ...onnxgraph.write import write_model
from ...runtime import Model, load
from ...symbolic_dims import size_of
from ..call.arguments import holds_integers, resize_tensor
from ..functional.call_with_states import call_with_states
from ..functional.functional_module import FunctionalModule, OutputCountError, Tensors
from ..result import BuiltModel
from ..tracing.roundings import Axis
from ..tracing.size_decisions import Decision, SizeFacts, axis_names
from .agreement import first_difference
from .code_paths import diverging_line, new_branch_line, numbers_in_code

Sizes = dict[str, int]
"""A size for each dynamic axis of the file, by its name."""
RIGHT, WRONG, UNRUN = "right", "wrong", "unrun"
NAN_ALONE = "has numbers where the module gives only NaN"


@dataclass(frozen=True)
class Outcome:
    """The result of a file at some sizes.

    Attributes:
        kind: RIGHT, WRONG, or UNRUN where the module itself fails.
        message: how the file is wrong, or what the module raises.
        cause: what ONNX Runtime raises, if the file fails.
    """

    kind: str
    message: str = ""
    cause: str = ""


def open_for_trial(path: Path) -> Model:
    """The file, opened on the CPU with one thread.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
    """
    try:
        return load(path, provider="cpu", threads=1)
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"{error} (an exported file is tested before it is kept; check=False skips that)"
        ) from None


def written_for_trial(built: BuiltModel) -> Model:
    """The model, opened by the runtime from a temporary file.

    Args:
        built: the model, whose metadata is set.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
        ModelError: ONNX Runtime cannot open it.
    """
    helper.set_model_props(built.model, built.metadata.to_metadata())
    with temporary_folder() as folder:
        write_model(built.model, built.initializers, folder / "trial.onnx")
        return open_for_trial(folder / "trial.onnx")


def random_states(
    model: Model, names: Iterable[str], sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Random state inputs of a file at these sizes of its axes, in (-1, 1); integers are 0 or 1."""
    found = {}
    for name in names:
        info = model.inputs[name]
        shape = info.smallest_shape(sizes)
        drawn = rng.integers(0, 2, shape) if info.is_whole else np.tanh(rng.standard_normal(shape))
        found[name] = np.asarray(drawn, info.dtype or np.float32)
    return found


class ShapeTrial:
    """A file and its module, run on the same inputs at any sizes; each result is cached.

    Args:
        model: the file, opened on the CPU.
        functional: the module.
        facts: the decisions that tracing made about sizes.
        guarded: the calls of recurrent modules, as ``(path, number)``, that fail in the file where they get 0 steps.
        chooses: whether one number chooses between values in the file.
    """

    def __init__(
        self,
        model: Model,
        functional: FunctionalModule,
        facts: SizeFacts | None = None,
        guarded: Collection[tuple[str, int]] = (),
        *,
        chooses: bool = False,
    ) -> None:
        self.model, self.functional, self.facts = model, functional, facts or SizeFacts()
        self.metadata = model.metadata
        self.guarded, self.chooses = guarded, chooses
        self.axes = axis_names(self.metadata)
        self.names = list(dict.fromkeys(self.axes.values()))
        self.own: Sizes = {}
        for (key, axis), name in self.axes.items():
            self.own.setdefault(name, functional.arguments.tensors[key].shape[axis])
        self.lengths = {spec.name: str(spec.high) for spec in self.metadata.inputs if spec.high in self.own}
        """The axis of each input that holds lengths."""
        self.parameters = max(1, sum(item.numel() for item in functional.stateful.parameters()))
        self.shapes: dict[str, list[tuple[tuple[int, ...], Sizes]]] = {}
        """The shapes of each output where the file is right, each with the sizes of the axes."""
        self._known: dict[tuple[tuple[str, int], ...], Outcome] = {}

    def at(self, sizes: Sizes) -> Outcome:
        """The outcome at these sizes, each of which runs only once."""
        key = tuple(sorted(sizes.items()))
        if key not in self._known:
            self._known[key] = self._run(sizes)
        return self._known[key]

    def with_other_rows(self, sizes: Sizes) -> Outcome:
        """The outcome where no two sequences are equal, unlike those of a resized example; lengths stay equal."""
        inputs, states = self._example(sizes)
        inputs = {name: tensor if name in self.lengths else _varied(tensor) for name, tensor in inputs.items()}
        outcome = self._outcome(inputs, states)
        if outcome.kind == RIGHT and self.metadata.origins:
            # The order of a sort is defined only in a call with explicit states, where sorts are made stable.
            own = {name: state for name, state in states.items() if name not in self.metadata.origins}
            results = call_with_states(self.functional, self.metadata, inputs, own)
            outcome = self._compare(inputs, own, {name: results[name] for name in self.functional.outputs})
        return outcome

    def with_other_lengths(self, sizes: Sizes) -> Outcome:
        """The outcome with lengths that differ, as an example's may not, in any order that the module takes."""
        inputs, states = self._example(sizes)
        for descending in (False, True):
            others = {name: _different(inputs[name], sizes[axis], descending) for name, axis in self.lengths.items()}
            outcome = self._outcome({**inputs, **others}, states)
            if outcome.kind == WRONG:
                return outcome
        vectors = {name: tensor.flip(0) for name, tensor in inputs.items() if tensor.dim() == 1}
        return self._outcome({**inputs, **vectors}, states) if vectors else outcome

    def agrees_under(self, mode: TorchDispatchMode, sizes: Sizes) -> bool:
        """Whether the file gives what the module gives while a mode changes its operators."""
        inputs, states = self._example(sizes)
        try:
            with mode:
                expected = call_with_states(self.functional, self.metadata, inputs, states)
        except ExportError:
            return False
        return self._compare(inputs, states, expected).kind == RIGHT

    @property
    def ran(self) -> bool:
        """Whether the module ran at any of the sizes tried so far."""
        return any(outcome.kind != UNRUN for outcome in self._known.values())

    def against(self, sizes: Mapping[str, int]) -> list[Decision]:
        """The user's decisions whose outcome at these sizes differs from the traced one."""
        at = self.axis_sizes(sizes)
        return [item for item in self.facts.decisions if item.choice and item.line is not None and not item.holds(at)]

    def refusals(self) -> Iterator[tuple[Sizes, str | None, str]]:
        """Sizes tried so far that the file takes and a decision of the module refuses: its line, and what it raises."""
        for key, outcome in self._known.items():
            sizes = dict(key)
            if outcome.kind == UNRUN and (against := self.against(sizes)) and not self._empty_call(sizes):
                inputs, states = self._example(sizes)
                if self._compare(inputs, states, {}).kind == RIGHT:
                    yield sizes, against[0].line, outcome.message

    def axis_sizes(self, sizes: Mapping[str, int]) -> dict[Axis, int]:
        """The sizes by input and axis, as `Decision` takes them."""
        return {axis: sizes[name] for axis, name in self.axes.items()}

    def cost(self, sizes: Mapping[str, int]) -> int:
        """An upper estimate of a run's multiplications: each parameter once for every entry of the dynamic axes."""
        entries = (
            math.prod(max(size_of(dim, sizes) or 1, 1) for dim in spec.shape if isinstance(dim, str))
            for spec in self.metadata.inputs
        )
        return self.parameters * max(entries, default=1)

    def diverging_line(self, one: Sizes, other: Sizes) -> str | None:
        """The line at which the module's code branches differently at `other` than at `one`."""
        find = new_branch_line if self.facts.looped else diverging_line
        return find(lambda: self._expected(one), lambda: self._expected(other))

    def numbers_in_code(self) -> list[int]:
        """The integer constants in the module's code."""
        return numbers_in_code(lambda: self._expected(self.own))

    def short_lengths_note(self) -> str | None:
        """A note if the file differs from the module when every sequence is shorter than the padded input.

        pad_packed_sequence cuts its output to the longest sequence.  A module that joins it with the padded input
        then fails, or broadcasts a single step, while the file has one time axis for both.
        """
        if not self.lengths:
            return None
        inputs, states = self._example(self.own)
        axis = next(iter(self.lengths.values()))
        longest = self.own[axis]
        for length in sorted({1, longest - 1} - {0, longest}):
            shorter = {name: inputs[name].clamp(max=length) for name in self.lengths}
            outcome = self._outcome({**inputs, **shorter}, states)
            if outcome.kind == WRONG:  # not if PyTorch refuses it, too
                return (
                    f"the file is right only where the longest of {', '.join(self.lengths)} equals {axis}: at "
                    f"{axis} {longest} with lengths of at most {length} {outcome.message}; cut the padded input to "
                    "the longest sequence"
                )
        return None

    def _outcome(self, inputs: Tensors, states: Tensors) -> Outcome:
        try:
            expected = call_with_states(self.functional, self.metadata, inputs, states)
        except ExportError as error:
            return _failed(error)
        return self._compare(inputs, states, expected)

    def _expected(self, sizes: Sizes) -> Tensors:
        inputs, states = self._example(sizes)
        return call_with_states(self.functional, self.metadata, inputs, states)

    def _run(self, sizes: Sizes) -> Outcome:
        inputs, states = self._example(sizes)
        problem: ExportError | None = None
        expected: Tensors | None = None
        for given in self._valid_examples(inputs, sizes):
            try:
                expected, inputs = call_with_states(self.functional, self.metadata, given, states), given
                break
            except ExportError as error:
                problem = problem or error
        if expected is None:
            return _failed(problem)
        if empty := self._empty_call(sizes):
            return Outcome(WRONG, f"the exported file gives {empty}")
        outcome = self._compare(inputs, states, expected, () if sizes == self.own else self._numbers)
        if outcome.kind == RIGHT and self.chooses:
            outcome = self._with_other_signs(inputs, states)
        if outcome.kind == RIGHT:
            for name, tensor in expected.items():
                self.shapes.setdefault(name, []).append((tuple(tensor.shape), sizes))
        if outcome.kind == RIGHT and self.metadata.origins and not self.ran:
            # Also without explicit states, where the file starts from what the module's own code passes.
            own = {name: state for name, state in states.items() if name not in self.metadata.origins}
            outcome = self._compare(inputs, own, call_with_states(self.functional, self.metadata, inputs, own))
        return outcome

    def _empty_call(self, sizes: Sizes) -> str:
        """The call that gets 0 steps or rows, for which ONNX Runtime may abort the process; "" where none does."""
        axes = self.axis_sizes(sizes)
        for recurrent in self.facts.recurrent:
            if (recurrent.path, recurrent.call) not in self.guarded and recurrent.at(axes) < 1:
                return f"{recurrent.path or 'the module'} 0 {recurrent.what}"
        return ""

    def _with_other_signs(self, inputs: Tensors, states: Tensors) -> Outcome:
        """The outcome with negated inputs, since ``if x.shape[1] > 2 and x.mean() > 0`` depends on size and sign."""
        others = {name: -tensor if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
        try:
            expected = call_with_states(self.functional, self.metadata, others, states)
        except ExportError:
            return Outcome(RIGHT)
        if any(bool(tensor.isnan().any()) for tensor in expected.values() if tensor.is_floating_point()):
            return Outcome(RIGHT)  # NaN, such as of a logarithm, for which ONNX Runtime's LSTM gives numbers
        return self._compare(others, states, expected)

    def _valid_examples(self, inputs: Tensors, sizes: Sizes) -> Iterator[Tensors]:
        """The example's inputs, and changed ones in case the module fails on these at these sizes.

        Integers may be indices of steps that do not exist at these sizes.  Of the lengths, none may fill its axis any
        more, or one may be 0.  A mask may select more places than there are rows to put into them.
        """
        yield inputs
        least = min(sizes.values(), default=1)
        clamped = {
            name: tensor.clamp(max=least) if holds_integers(tensor) else tensor for name, tensor in inputs.items()
        }
        yield clamped
        full = {spec.name: sizes[str(spec.high)] for spec in self.metadata.inputs if spec.high in sizes}
        full |= {spec.name: 1 for spec in self.metadata.inputs if isinstance(spec.high, float) and spec.high == 1}
        if full:
            longest = {name: torch.full_like(inputs[name], size) for name, size in full.items()}
            yield {**clamped, **longest}
        sparse = {name: _first_set(tensor, least) for name, tensor in inputs.items() if _is_mask(tensor)}
        if any(not torch.equal(tensor, inputs[name]) for name, tensor in sparse.items()):
            yield {**clamped, **sparse}
        below = {name: tensor.clamp(max=least - 1) for name, tensor in clamped.items() if holds_integers(tensor)}
        yield {**clamped, **below}  # as indices of an axis of this size

    @functools.cached_property
    def _numbers(self) -> list[str]:
        """The floating-point outputs that are not all NaN at the example's sizes."""
        expected = self._expected(self.own)
        return [name for name, tensor in expected.items() if tensor.is_floating_point() and not _all_nan(tensor)]

    def _compare(self, inputs: Tensors, states: Tensors, expected: Tensors, numbers: Iterable[str] = ()) -> Outcome:
        """Run the file and compare its outputs with the module's.

        Where one of `numbers` is all NaN, such as after a standard deviation over one step, the file must give NaN,
        too: ONNX Runtime's LSTM turns NaN into numbers.
        """
        try:
            actual = self.model.run({name: tensor.cpu().numpy() for name, tensor in {**inputs, **states}.items()})
        except (InputError, RunError) as error:
            return Outcome(WRONG, "the exported file fails", error.reason)

        def run(others: Tensors) -> Tensors:
            return call_with_states(self.functional, self.metadata, others, states)

        problem = first_difference(self.functional, inputs, run, expected, actual)
        for name in numbers:
            if problem is None and _all_nan(expected[name]) and not np.isnan(actual[name]).all():
                problem = f"{name} {NAN_ALONE}"
        return Outcome(WRONG, f"the exported file's {problem}") if problem else Outcome(RIGHT)

    def _example(self, sizes: Sizes) -> tuple[Tensors, Tensors]:
        """The example inputs at these sizes, and random states.

        The inputs are those of the example, resized: other values may not be valid for the module.  Lengths are
        clipped to the size of their axis.
        """
        rng = np.random.default_rng(sum(sizes.values()))
        inputs: Tensors = {}
        for spec in self.metadata.inputs:
            own = {axis: size_of(dim, sizes) or 1 for axis, dim in enumerate(spec.shape) if isinstance(dim, str)}
            tensor = resize_tensor(self.functional.arguments.tensors[spec.name], own)
            inputs[spec.name] = tensor.clamp(max=sizes[str(spec.high)]) if spec.high in sizes else tensor
        names = [name for name in self.metadata.states if name not in {*inputs, *self.metadata.loop_states}]
        device = next(iter(inputs.values())).device
        drawn = random_states(self.model, names, sizes, rng)
        states = {name: torch.from_numpy(values).to(device) for name, values in drawn.items()}
        return inputs, states


def _failed(problem: ExportError | None) -> Outcome:
    """The outcome where the module fails, such as for sequences shorter than a kernel, or returns other outputs."""
    return Outcome(WRONG, problem.outcome) if isinstance(problem, OutputCountError) else Outcome(UNRUN, str(problem))


def _all_nan(tensor: Tensor) -> bool:
    return tensor.numel() > 0 and bool(tensor.isnan().all())


def _varied(tensor: Tensor) -> Tensor:
    """Different numbers in each row: floats are changed a little, integers get another order."""
    generator = torch.Generator().manual_seed(0)
    if tensor.is_floating_point():
        noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
        return tensor * (0.5 + noise)
    return torch.stack([row.roll(index) for index, row in enumerate(tensor)]) if tensor.dim() > 1 else tensor


def _different(lengths: Tensor, longest: int, descending: bool) -> Tensor:
    """Lengths from 1 to `longest`, at least one of which is `longest`."""
    found = torch.arange(lengths.numel(), dtype=lengths.dtype, device=lengths.device) * 5 % longest + 1
    found[lengths.numel() // 2] = longest
    return (found.sort(descending=True)[0] if descending else found).reshape(lengths.shape)


def _is_mask(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bool or (holds_integers(tensor) and bool(((tensor == 0) | (tensor == 1)).all()))


def _first_set(mask: Tensor, count: int) -> Tensor:
    """A mask that selects only the first `count` of its places."""
    return torch.where(mask.bool().flatten().cumsum(0).reshape(mask.shape) <= count, mask, torch.zeros_like(mask))

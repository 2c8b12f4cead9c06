"""Does a file give what a whole module gives?

The module is run as it is and as a float64 copy, with the same inputs and states by name as the
file; the inputs are drawn from the ranges that the file or its source gives, over a sweep of every
named axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, ExportError, InputError, RunError
from ..exporter.arguments import Arguments, arguments
from ..exporter.fitting import fitting_arguments
from ..exporter.module import parameter_digest
from ..exporter.prepared import Prepared, prepare
from ..exporter.stepwise import call_with_states
from ..inputs import InputSpec, axes, draw, sizes_of
from ..runtime import Model
from ..runtime.axes import size_of
from ..runtime.values import ValueInfo
from ..story import Story
from .criterion import compare
from .report import CaseResult
from .sweep import SHAPES, gains

_QUIET = 4.0
"""The gain past which a model's weights are so small that loud inputs are needed to move its gates."""
_SHORT = 12
"""Steps up to which the sweep goes as it is; for a module that needs more, all of it is that much longer."""


@dataclass(frozen=True)
class ModuleCase:
    """One comparison: the sizes of the axes, the inputs, and the states (absent ones are the file's own start)."""

    label: str
    inputs: dict[str, np.ndarray]
    states: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Run:
    """What came of a case: the file's outputs and PyTorch's, or why there are none."""

    case: ModuleCase
    actual: dict[str, Any]
    own: dict[str, np.ndarray]
    reference: dict[str, np.ndarray]
    cell: float
    error: str = ""


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
    ) -> None:
        self.model = model
        self.module = module
        self.story: Story = model.story
        self.notes: list[str] = []
        specs, found = self._arguments(inputs, example_inputs, seed)
        self._check_names(found)
        names = _plain_outputs(model, self.story)
        own = prepare(module, found, output_names=names)
        dtype = str(own.dtype).removeprefix("torch.")
        # A float64 model has no wider reference than itself: its own rounding is float32's, scaled down.
        self.own = prepare(module, found, output_names=names, dtype=torch.float32) if dtype == "float64" else own
        self.wide = prepare(module, found, output_names=names, dtype=torch.float64)
        self.dtype = dtype
        self.device = next(iter(found.tensors.values())).device
        self.cases = list(self._cases(specs, seed))
        if example_inputs is not None:
            self.cases.insert(0, self._example_case(found))
        if self.story.digest is not None and self.story.digest != parameter_digest(own):
            self.notes.append("the file was exported from other weights than these (its digest differs)")

    def _arguments(
        self, inputs: Sequence[InputSpec], example_inputs: Any, seed: int
    ) -> tuple[tuple[InputSpec, ...], Arguments]:
        if example_inputs is not None:
            found = arguments(self.module, example_inputs, None)
            specs = tuple(self.story.inputs) or tuple(map(self._named_axes, found.specs()))
            device = next((parameter.device for parameter in self.module.parameters()), torch.device("cpu"))
            return specs, replace(found, tensors={name: tensor.to(device) for name, tensor in found.tensors.items()})
        specs = tuple(inputs) or tuple(self.story.inputs)
        if not specs:
            raise ConfigError(
                f"{self.model.path}: does not say what its inputs are, as lstm-onnx's own files do; pass example_inputs"
            )
        return specs, fitting_arguments(self.module, specs, seed=seed)

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
        theirs = set(self.model.inputs) - (set(self.story.states) - own)
        if own != theirs:
            raise ConfigError(
                f"{self.model.path}: takes {', '.join(sorted(theirs))}, and the module {', '.join(sorted(own))}; "
                "is the file this module's?"
            )

    def _cases(self, specs: Sequence[InputSpec], seed: int) -> Iterator[ModuleCase]:
        rng = np.random.default_rng(seed)
        open_axes = axes(specs)
        longest = max(self.own.arguments.sizes.values(), default=1)
        longer = longest - 1 if longest > _SHORT else 0
        shapes = [(batch, time + longer) for batch, time in (SHAPES if open_axes else SHAPES[:1])]
        for batch, time in shapes:
            yield self._case(specs, rng, batch, time)
        if self.story.states:
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

    def _example_case(self, found: Arguments) -> ModuleCase:
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in found.tensors.items()}
        return ModuleCase("the example", arrays, {})

    def _lstm_sites(self) -> list[Any]:
        return [site for site in self.wide.sites.values() if site.spec.op_type == "LSTM" and not site.cell]

    def _case(
        self, specs: Sequence[InputSpec], rng: np.random.Generator, batch: int, time: int, *, states: bool = True
    ) -> ModuleCase:
        sizes = sizes_of(specs, batch, time)
        inputs = draw(specs, sizes, rng)
        label = ", ".join(f"{name} {size}" for name, size in sizes.items()) or "the only shape"
        held: dict[str, np.ndarray] = {}
        for name in self.story.states:
            if name not in inputs and states:
                held[name] = _state(self.model.inputs[name], sizes, rng)
        if self.story.states:
            label += ", states" if states else ", no states"
        return ModuleCase(label, inputs, held)

    @property
    def planned(self) -> int:
        """How many cases there are."""
        return len(self.cases)

    def results(self) -> Iterator[CaseResult]:
        """Case by case.

        The yardstick of an output is PyTorch's own error in any of the cases, since in a case of two
        numbers it can be nearly zero by luck.
        """
        runs = [run for run in map(self._run, self.cases) if run is not None]
        skipped = len(self.cases) - len(runs)
        if skipped:
            self.notes.append(f"the module itself does not run at {skipped} of the {len(self.cases)} cases")
        largest: dict[str, float] = {}
        for run in runs:
            for name, reference in run.reference.items():
                largest[name] = max(largest.get(name, 0.0), _relative_error(run.own[name], reference))
        for run in runs:
            yield self._judged(run, largest)

    def _run(self, case: ModuleCase) -> _Run | None:
        """None where the module itself does not run, such as on less steps than a kernel has."""
        try:
            reference, case = self._reference(case)
            own, _ = self._torch(self.own, case)
        except ExportError:
            return None
        cell = _largest_cell(self.wide)
        try:
            actual = self.model.run({**case.inputs, **case.states})
        except (InputError, RunError) as error:
            return _Run(case, {}, {}, {}, cell, str(error))
        return _Run(case, actual, own, reference, cell)

    def _reference(self, case: ModuleCase) -> tuple[dict[str, np.ndarray], ModuleCase]:
        """The float64 outputs; lengths are sorted where the module (enforce_sorted) will not have them otherwise."""
        try:
            return self._torch(self.wide, case)
        except ExportError:
            ordered = {
                spec.name: -np.sort(-case.inputs[spec.name].astype(np.int64)).astype(case.inputs[spec.name].dtype)
                for spec in self.story.inputs
                if isinstance(spec.high, str)
            }
            if not ordered:
                raise
            return self._torch(self.wide, replace(case, inputs={**case.inputs, **ordered}))

    def _torch(self, prepared: Prepared, case: ModuleCase) -> tuple[dict[str, np.ndarray], ModuleCase]:
        inputs = {name: self._tensor(array, prepared) for name, array in case.inputs.items()}
        start = self._start(prepared, inputs)
        states = {**start, **{name: self._tensor(array, prepared) for name, array in case.states.items()}}
        outputs = call_with_states(prepared, self.story, inputs, states)
        return {name: _wide_array(tensor) for name, tensor in outputs.items()}, case

    def _start(self, prepared: Prepared, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What attribute states are when they are absent; explicit ones are then the module's own affair."""
        sizes = {
            dim: inputs[spec.name].shape[axis]
            for spec in self.story.inputs
            for axis, dim in enumerate(spec.shape)
            if isinstance(dim, str) and spec.name in inputs
        }
        start = {}
        for name in self.story.states:
            if name not in inputs and name not in self.story.origins:
                info = self.model.inputs[name]
                shape = _shape(info, sizes)
                initial = self.story.initial.get(name)
                array = np.zeros(shape, info.dtype) if initial is None else np.broadcast_to(initial, shape)
                start[name] = self._tensor(np.ascontiguousarray(array), prepared)
        return start

    def _tensor(self, array: np.ndarray, prepared: Prepared) -> Tensor:
        tensor = torch.from_numpy(array).to(self.device)
        return tensor.to(prepared.dtype) if tensor.is_floating_point() else tensor

    def _judged(self, run: _Run, largest: Mapping[str, float]) -> CaseResult:
        if run.error:
            return CaseResult(run.case.label, error=run.error)
        tensors = []
        for name, reference in run.reference.items():
            if name not in run.actual:
                names = ", ".join(run.actual)
                return CaseResult(run.case.label, error=f"the file has no output {name}; it has {names}")
            size = _size(reference)
            tensors.append(
                compare(
                    name,
                    np.asarray(run.actual[name]),
                    run.own[name],
                    reference,
                    dtype=self.dtype,
                    cell_scale=max(run.cell, size),
                    least_error=largest[name] * size,
                )
            )
        return CaseResult(run.case.label, tuple(tensors))


def _shape(info: ValueInfo, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(size_of(dim, sizes) or 1 if isinstance(dim, str) else dim or 1 for dim in info.shape)


def _state(info: ValueInfo, sizes: Mapping[str, int], rng: np.random.Generator) -> np.ndarray:
    """Never zero, and within what tanh gives, so that it serves for h and for c."""
    values: np.ndarray = np.tanh(rng.standard_normal(_shape(info, sizes))).astype(info.dtype or np.float32)
    return values


def _plain_outputs(model: Model, story: Story) -> tuple[str, ...]:
    """The outputs that are the forward's own results; states that it returns itself are among them."""
    own = {spec.name for spec in story.inputs}
    added = {after for name, after in story.states.items() if name not in own}
    return tuple(name for name in model.outputs if name not in added)


def _wide_array(tensor: Tensor) -> np.ndarray:
    array = tensor.detach().cpu()
    return array.double().numpy() if array.is_floating_point() else array.numpy()


def _size(reference: np.ndarray) -> float:
    finite = reference[np.isfinite(reference)] if reference.dtype.kind == "f" else reference.reshape(-1)[:0]
    return float(np.abs(finite).max(initial=0.0))


def _relative_error(own: np.ndarray, reference: np.ndarray) -> float:
    size = _size(reference)
    if reference.dtype.kind != "f" or size == 0 or own.shape != reference.shape:
        return 0.0
    with np.errstate(invalid="ignore"):
        error = np.abs(own - reference)
    return float(error[np.isfinite(error)].max(initial=0.0)) / size


def _largest_cell(prepared: Prepared) -> float:
    """The largest |c| (or |h|) that the float64 run came by."""
    finals = [state for site in prepared.sites.values() for call in site.calls for state in call.final]
    return max((float(state.abs().max()) for state in finals if state.numel()), default=0.0)

"""A file is tried out before it is kept: at shapes other than the example's, against the module.

This is no proof of parity, which is `verify`'s business: it is there so that nothing leaves the
exporter in which a size, a step or a state was frozen, and so that a file says at which sizes it is right.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import ExportError, InputError, MissingDependencyError, ProviderError, RunError
from ...metadata import Metadata
from ...runtime import Model, load
from ...runtime.symbolic_dims import size_of
from ..tracing.arguments import resized_tensor
from ..tracing.call_with_states import call_with_states
from ..tracing.functional import Prepared, Tensors
from .agreement import first_difference
from .code_paths import numbers_in_code, parting_line
from .size_decisions import Axis, SizeFacts, axis_names

Sizes = dict[str, int]
"""A size for each open axis of the file, by the axis' name."""
RIGHT, WRONG, UNRUN = "right", "wrong", "unrun"


@dataclass(frozen=True)
class Outcome:
    """How a file did at some sizes: "right", "wrong", or "unrun" where the module itself does not run.

    `message` says how it is wrong, or what the module raises.
    """

    kind: str
    message: str = ""


class Trial:
    """A file and its module, run side by side at any sizes; what was run once is remembered.

    `guarded` are the calls of recurrent modules that fail in the file where they get 0 steps.

    Raises:
        MissingDependencyError: there is no ONNX Runtime to try it with.
        ProviderError: ONNX Runtime cannot open the file.
    """

    def __init__(
        self,
        path: Path,
        prepared: Prepared,
        metadata: Metadata,
        facts: SizeFacts | None = None,
        guarded: Collection[tuple[str, int]] = (),
    ) -> None:
        try:
            self.model: Model = load(path, provider="cpu", threads=1)
        except MissingDependencyError as error:
            raise MissingDependencyError(
                f"{error} (an exported file is tried out before it is kept; check=False leaves that out)"
            ) from error
        except ProviderError as error:
            raise ProviderError(error.message, hint=error.hint, name=error.name) from error
        self.prepared, self.metadata, self.facts = prepared, metadata, facts or SizeFacts()
        self.guarded = guarded
        self.axes = axis_names(metadata)
        self.names = list(dict.fromkeys(self.axes.values()))
        self.own: Sizes = {}
        for (key, axis), name in self.axes.items():
            self.own.setdefault(name, prepared.arguments.tensors[key].shape[axis])
        self.parameters = max(1, sum(item.numel() for item in prepared.stateful.parameters()))
        self._known: dict[tuple[tuple[str, int], ...], Outcome] = {}

    def at(self, sizes: Sizes) -> Outcome:
        """Run both at these sizes."""
        key = tuple(sorted(sizes.items()))
        if key not in self._known:
            self._known[key] = self._run(sizes)
        return self._known[key]

    @property
    def ran(self) -> bool:
        """Whether the module ran at any of the sizes so far."""
        return any(outcome.kind != UNRUN for outcome in self._known.values())

    def axis_sizes(self, sizes: Mapping[str, int]) -> dict[Axis, int]:
        """The sizes by input and axis, as decisions take them."""
        return {axis: sizes[name] for axis, name in self.axes.items()}

    def cost(self, sizes: Mapping[str, int]) -> int:
        """About how many multiplications a run takes, or more: each parameter once for every entry of the open axes."""
        entries = (math.prod(sizes[dim] for dim in spec.shape if isinstance(dim, str)) for spec in self.metadata.inputs)
        return self.parameters * max(entries, default=1)

    def parting_line(self, one: Sizes, other: Sizes) -> str | None:
        """The line at which the module's code goes another way at `other` than at `one`."""
        return parting_line(lambda: self._expected(one), lambda: self._expected(other))

    def numbers_in_code(self) -> list[int]:
        """The integers that the module's code is written with."""
        return numbers_in_code(lambda: self._expected(self.own))

    def _expected(self, sizes: Sizes) -> Tensors:
        inputs, states = self._example(sizes)
        return call_with_states(self.prepared, self.metadata, inputs, states)

    def _run(self, sizes: Sizes) -> Outcome:
        inputs, states = self._example(sizes)
        try:
            expected = call_with_states(self.prepared, self.metadata, inputs, states)
        except ExportError as error:
            # The example's integers may count steps that are not there at these sizes.
            inputs = {name: _at_most(tensor, min(sizes.values(), default=1)) for name, tensor in inputs.items()}
            try:
                expected = call_with_states(self.prepared, self.metadata, inputs, states)
            except ExportError:
                return Outcome(UNRUN, str(error))  # such as shorter than a kernel
        axes = self.axis_sizes(sizes)
        for recurrent in self.facts.recurrent:
            if (recurrent.path, recurrent.call) not in self.guarded and recurrent.at(axes) < 1:
                # ONNX Runtime may end the process.
                return Outcome(WRONG, f"the exported file gives {recurrent.path or 'the module'} 0 {recurrent.what}")
        message = self._compared(inputs, states, expected)
        if not message and self.metadata.origins and not self.ran:
            # Without its explicit states, too: the file then starts as the module's own code does.
            own = {name: state for name, state in states.items() if name not in self.metadata.origins}
            message = self._compared(inputs, own, call_with_states(self.prepared, self.metadata, inputs, own))
        return Outcome(WRONG, message) if message else Outcome(RIGHT)

    def _compared(self, inputs: Tensors, states: Tensors, expected: Tensors) -> str:
        try:
            actual = self.model.run({name: tensor.cpu().numpy() for name, tensor in {**inputs, **states}.items()})
        except (InputError, RunError) as error:
            return f"the exported file fails: {error.reason}"

        def run(others: Tensors) -> Tensors:
            return call_with_states(self.prepared, self.metadata, others, states)

        problem = first_difference(self.prepared, inputs, run, expected, actual)
        return f"the exported file's {problem}" if problem else ""

    def _example(self, sizes: Sizes) -> tuple[Tensors, Tensors]:
        """The example inputs at these sizes, and random states.

        The inputs are those of the example, since only the user knows what else makes sense (a mask in
        which nothing is left, for one, does not); lengths stay within their sequences.
        """
        rng = np.random.default_rng(sum(sizes.values()))
        inputs: Tensors = {}
        for spec in self.metadata.inputs:
            own = {axis: sizes[dim] for axis, dim in enumerate(spec.shape) if isinstance(dim, str)}
            tensor = resized_tensor(self.prepared.arguments.tensors[spec.name], own)
            inputs[spec.name] = tensor.clamp(max=sizes[str(spec.high)]) if spec.high in sizes else tensor
        states: Tensors = {}
        for name in self.metadata.states:
            if name in inputs:
                continue
            info = self.model.inputs[name]
            shape = [size_of(dim, sizes) or 1 if isinstance(dim, str) else dim or 1 for dim in info.shape]
            values = np.asarray(np.tanh(rng.standard_normal(shape)), info.dtype or np.float32)
            states[name] = _on(values, next(iter(inputs.values())))
        return inputs, states


def _at_most(tensor: Tensor, size: int) -> Tensor:
    whole = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
    return tensor.clamp(max=size) if whole else tensor


def _on(values: np.ndarray, other: Tensor) -> Tensor:
    return torch.from_numpy(values).to(other.device)

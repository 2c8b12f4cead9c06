"""A module as a function: a copy that maps named inputs and states to named outputs and next states.

The exporter traces it; trials and verification run it, in the module's own dtype or in float64.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ExportError, InputError, LSTMOnnxError
from ..call.arguments import Arguments
from ..copies.caller_state import without_global_hooks
from ..opaque.recurrent_module import RecurrentModule
from ..user_code import error_line, first_line
from ..wrappers import without_compiler
from .attribute_states import (
    AttributeState,
    StatefulModule,
    forward_error,
)
from .dtype_mode import DtypeMode

Tensors = dict[str, Tensor]


class OutputCountError(ExportError):
    """The module runs, but returns more or fewer tensors than for the example; `outcome` says so of a file."""

    def __init__(self, found: int, usual: int) -> None:
        super().__init__(
            f"forward returns {found} tensors, but {usual} for the example; a file has a fixed number of outputs: "
            "return one tensor, such as torch.stack of a list"
        )
        self.outcome = f"forward returns {found} tensors, and {usual} for the example and in the exported file"


class FixedSizeError(ExportError):
    """Tracing fixed a size; at other example sizes it may stay dynamic.

    `axes` are the fixed axes, as inputs and axes, if they are known.  `unexplained` are sizes at which the file is
    wrong although the user's code takes the traced branches: a size may be 1 only in the trace.
    """

    def __init__(
        self, message: str, axes: Collection[tuple[str, int]] = (), unexplained: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(message)
        self.axes = frozenset(axes)
        self.unexplained = unexplained


class OtherSizesFailError(FixedSizeError):
    """The module itself fails at other example sizes."""


class ForwardFailedError(ExportError):
    """The user's code raised an error."""


class PartsError(FixedSizeError):
    """A tensor is split into a number of parts that depends on a size."""


@dataclass(frozen=True)
class FunctionalModule:
    """A module as a function of its inputs and states.

    Attributes:
        stateful: the copy of the module, which is run and traced.
        recurrent_modules: its LSTMs, GRUs, RNNs and cells by their paths.
        arguments: the example inputs.
        outputs: the names of its outputs.
        native: the dtype of the original module, if the copy was converted to another.
        converted: that other dtype.
    """

    stateful: StatefulModule
    recurrent_modules: dict[str, RecurrentModule]
    arguments: Arguments
    outputs: tuple[str, ...]
    native: torch.dtype | None = None
    converted: torch.dtype | None = None

    @property
    def attribute_states(self) -> tuple[AttributeState, ...]:
        """The attributes in which the module keeps state."""
        return self.stateful.attribute_states

    @property
    def states(self) -> dict[str, str]:
        """Each attribute state's input and output."""
        names = [(state.input_names, state.output_names) for state in self.attribute_states]
        return {name: after for inputs, outputs in names for name, after in zip(inputs, outputs, strict=True)}

    def run(self, inputs: Mapping[str, Tensor], states: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        """Call the module.

        Args:
            inputs: a tensor for each name in `arguments`, of any sizes that the module accepts.
            states: the attribute states by their inputs' names.

        Returns:
            The outputs by name, and the states after the call by their outputs' names.

        Raises:
            ExportError: the forward fails (the message quotes its error and the line).
            OutputCountError: it returns a different number of tensors than for the example, such as where Python's
                sum() of no tensors is the number 0.
        """
        tensors, values = [inputs[name] for name in self.arguments.tensors], [states[name] for name in self.states]
        with inference_context(self.dtype, self.native):
            results, after = call_forward(lambda: self.stateful(tensors, values))
        if len(results) != len(self.outputs):
            raise OutputCountError(len(results), len(self.outputs))
        return dict(zip(self.outputs, results, strict=True)), dict(zip(self.states.values(), after, strict=True))

    @property
    def dtype(self) -> torch.dtype:
        """That it was converted to, or of the first recurrent module; without one, of the first parameter."""
        return self.converted or recurrent_dtype(self.stateful.inner, self.recurrent_modules)


@contextlib.contextmanager
def inference_context(dtype: torch.dtype, native: torch.dtype | None = None) -> Iterator[None]:
    """A context without gradients, in which float64 is the default dtype for a float64 copy, whose code creates zeros.

    With `native`, the dtype of the module before its conversion, code that names it computes in `dtype`.
    """
    before = torch.get_default_dtype()
    if dtype == torch.float64:
        torch.set_default_dtype(dtype)
    try:
        mode = contextlib.nullcontext() if native is None else DtypeMode(native, dtype)
        with torch.no_grad(), without_global_hooks(), mode:
            yield
    finally:
        torch.set_default_dtype(before)


def call_forward(forward: Any) -> Any:
    """Call the user's code.

    Raises:
        ExportError: it raised an error; the message has the line of the user's code.
    """
    try:
        with without_compiler():
            return forward()
    except Exception as error:
        # An InputError comes from a module of `to_torch`, not from the export.
        if isinstance(error, LSTMOnnxError) and not isinstance(error, InputError):
            raise
        raise _forward_problem(forward_error(error)) from error


def _forward_problem(error: BaseException) -> ExportError:
    line = error_line(error)
    at = f" at {line}" if line else ""
    return within_operator(error) or ForwardFailedError(
        f"the module's forward fails{at}: {type(error).__name__}: {first_line(error)}"
    )


def within_operator(error: BaseException) -> ExportError | None:
    """The refusal of a recurrent module called within torch.cond, for which torch's own error is misleading.

    torch's compiler accepts neither an nn.LSTM nor, in its place, our function, which looks at the stack for the line.
    """
    text = str(error)
    looks = "captured completely" in text and "sys._getframe" in text
    if not looks and "Attempted to wrap RNN, GRU, or LSTM" not in text:
        return None
    line = error_line(error)
    return ExportError(
        f"a recurrent module is called within torch.cond or another such operator{f' at {line}' if line else ''}; "
        "compute both branches and choose with torch.where"
    )


def recurrent_dtype(copy: nn.Module, recurrent: Mapping[str, RecurrentModule]) -> torch.dtype:
    """The dtype of the first recurrent module; without one, of the first parameter."""
    first = next(iter(recurrent.values()), None)
    if first is not None:
        dtype: torch.dtype = getattr(torch, first.spec.dtype)
        return dtype
    floats = (item.dtype for item in copy.parameters() if item.is_floating_point())
    return next(floats, torch.get_default_dtype())


def trace_sizes(functional: FunctionalModule) -> list[dict[str, int]]:
    """Up to three sets of sizes of the dynamic axes to trace at, in the order in which they are tried.

    torch specialises on 1: no axis is 1, and in the second set none becomes 1 after kernels and
    strides either.  In the third no two are equal, since comparing equal ones ties them to each
    other.  All are within the requested limits.
    """
    example, clamp = functional.arguments.sizes, functional.arguments.within
    larger = itertools.count(2)
    first = {name: clamp(name, next(larger)) if size == 1 else size for name, size in example.items()}
    second = {name: clamp(name, 4 * size + 3) for name, size in first.items()}
    third: dict[str, int] = {}
    for name, size in second.items():
        third[name] = clamp(name, next(n for n in itertools.count(size) if n not in third.values()))
    return [sizes for index, sizes in enumerate((first, second, third)) if sizes not in (first, second, third)[:index]]

"""A module as a function: a copy that maps named inputs and states to named outputs and next states.

The exporter traces it, and whoever compares a file with PyTorch runs it, in the module's own dtype or
in float64.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ExportError, LSTMOnnxError
from ..call.arguments import Arguments
from ..copies.caller_state import without_global_hooks
from ..copies.clone import clone
from ..copies.kept_values import KeptValues
from ..opaque.operators import RecurrentModule, replace_recurrent_modules
from ..user_code import error_line, first_line
from ..wrappers import remove_observers, without_compiler
from .attribute_states import (
    AttributeSnapshot,
    AttributeState,
    StatefulModule,
    are_equal,
    forward_error,
    name_of,
    version_of,
)
from .dtype_mode import DtypeMode
from .number_states import find_number_states
from .repeated_calls import select_states
from .results import named_tensors

Tensors = dict[str, Tensor]


class FixedSizeError(ExportError):
    """Tracing fixed a size; at other example sizes it may stay dynamic.

    `axes` are the fixed ones, by input and axis, where they are known.  `unexplained` are sizes at which the file is
    wrong although the user's code takes the traced branches: a size that was 1 in the trace may not be 1 there.
    """

    def __init__(
        self, message: str, axes: Collection[tuple[str, int]] = (), unexplained: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(message)
        self.axes = frozenset(axes)
        self.unexplained = unexplained


class OtherSizesFailError(FixedSizeError):
    """The module itself does not run at other example sizes."""


class ForwardFailedError(ExportError):
    """The user's code raised something."""


class PartsError(FixedSizeError):
    """A tensor is split into a number of parts that depends on a size."""


@dataclass(frozen=True)
class FunctionalModule:
    """A module as a function of its inputs and states.

    Attributes:
        stateful: the copy of the module that is run and traced.
        recurrent_modules: its LSTMs, GRUs, RNNs and cells by their paths.
        arguments: the example inputs.
        outputs: the names of its outputs.
        native: the dtype of the original module, where the copy was converted to another one.
    """

    stateful: StatefulModule
    recurrent_modules: dict[str, RecurrentModule]
    arguments: Arguments
    outputs: tuple[str, ...]
    native: torch.dtype | None = None

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
            inputs: a tensor for each name in `arguments`, of any sizes that the module takes.
            states: the attribute states by their inputs' names.

        Returns:
            The outputs by name, and the states after the call by their outputs' names.

        Raises:
            ExportError: the forward fails, and the message has its own, and the line; or it returns another number of
                tensors than for the example, such as where Python's sum() of no tensors is the number 0.
        """
        tensors, values = [inputs[name] for name in self.arguments.tensors], [states[name] for name in self.states]
        with inference_context(self.dtype, self.native):
            results, after = call_forward(lambda: self.stateful(tensors, values))
        if len(results) != len(self.outputs):
            raise ExportError(f"forward returns {len(results)} tensors, and for the example {len(self.outputs)}")
        return dict(zip(self.outputs, results, strict=True)), dict(zip(self.states.values(), after, strict=True))

    @property
    def dtype(self) -> torch.dtype:
        """That of the first recurrent module; without one, of the first parameter."""
        return _dtype_of(self.stateful.inner, self.recurrent_modules)


@contextlib.contextmanager
def inference_context(dtype: torch.dtype, native: torch.dtype | None = None) -> Iterator[None]:
    """No gradients, and for a float64 copy float64 as the default dtype, for zeros that its code creates.

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
        ExportError: it raised something; the message has the line of the user's code.
    """
    try:
        with without_compiler():
            return forward()
    except LSTMOnnxError:
        raise
    except Exception as error:
        raise _forward_problem(forward_error(error)) from error


def _forward_problem(error: BaseException) -> ExportError:
    line = error_line(error)
    at = f" at {line}" if line else ""
    return within_operator(error) or ForwardFailedError(
        f"the module's forward fails{at}: {type(error).__name__}: {first_line(error)}"
    )


def within_operator(error: BaseException) -> ExportError | None:
    """The refusal of a recurrent module that is called within torch.cond, of which torch's error says other things.

    Its compiler takes no nn.LSTM, and in its place no function that looks at the stack, as ours does for the line.
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


def make_functional(
    module: nn.Module,
    arguments: Arguments,
    *,
    output_names: tuple[str, ...] | None = None,
    dtype: torch.dtype | None = None,
) -> FunctionalModule:
    """Copy a module, run it on its example inputs, and find the states that it keeps in attributes.

    Args:
        module: the module; it is not changed.
        arguments: its example inputs.
        output_names: names of its outputs, in order; None derives them from its result.
        dtype: converts the copy and floating-point inputs to it; None keeps theirs.

    Raises:
        ExportError: it fails on the example, is not deterministic, or keeps something else than tensors from call to
            call.
    """
    cloned = clone(module, dtype)
    copy = cloned.module
    remove_observers(copy)
    recurrent = replace_recurrent_modules(copy)
    native = None if dtype is None else _native_dtype(module, dtype)
    if dtype is not None:
        tensors = arguments.tensors.items()
        converted = {name: item.to(dtype) if item.is_floating_point() else item for name, item in tensors}
        arguments = replace(arguments, tensors=converted)

    def reset_calls() -> None:
        for item in recurrent.values():
            item.reset_calls()

    copied = {name: tensor.clone() for name, tensor in arguments.tensors.items()}
    versions = {name: version_of(tensor) for name, tensor in copied.items()}
    args, kwargs = arguments.args_and_kwargs(copied)
    kept = KeptValues(copy, cloned.mutable)
    with inference_context(_dtype_of(copy, recurrent), native), kept.restored():
        parts = len(list(copy.modules()))
        before = AttributeSnapshot(copy)
        shared = [(tensor, tensor.clone()) for tensor in cloned.shared]
        reset_calls()
        with kept.recorded() as changes:
            result = named_tensors(call_forward(lambda: copy(*args, **kwargs)))
        if not result:
            raise ExportError(f"{type(module).__name__}.forward returns no tensor")
        _require_real(result)
        if len(list(copy.modules())) != parts:
            raise ExportError(
                f"the forward of {type(module).__name__} adds submodules, with random weights; call it once before "
                "the export, so that they exist"
            )
        states = before.changed(copy)
        written = {name for name, tensor in copied.items() if version_of(tensor) != versions[name]}

        def call_arguments(tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            # Clones of those into which the forward writes: it must get the caller's numbers at each call.
            named = zip(arguments.tensors, tensors, strict=True)
            return arguments.args_and_kwargs({name: one.clone() if name in written else one for name, one in named})

        if states:
            args, kwargs = call_arguments(list(arguments.tensors.values()))
            # Apart from the first: what every other call sets back is as before after both.
            with kept.recorded() as later:
                call_forward(lambda: copy(*args, **kwargs))
            known = {(id(change.part), change.key) for change in changes}
            changes += [change for change in later if (id(change.part), change.key) not in known]
            # Only attributes with tensors of the same structure after a second call; a list that grows is not a state.
            states = tuple(state for state in states if state.tensors(copy) is not None)
        for tensor, then in shared:
            if not are_equal(tensor, then):
                raise ExportError(
                    f"{name_of(copy, tensor)} shares its memory with another tensor that the module keeps, as a view "
                    "does, and forward writes into it; keep one of the two, and take the view of it within forward"
                )
    outputs = _output_names([name for name, _ in result], output_names, arguments)
    stateful = StatefulModule(copy, states, kept, reset_calls, call_arguments)
    functional = FunctionalModule(stateful, recurrent, arguments, outputs, native)
    select_states(functional, [tensor for _, tensor in result], changes, find_number_states(copy, changes))
    return functional


def _dtype_of(copy: nn.Module, recurrent: Mapping[str, RecurrentModule]) -> torch.dtype:
    first = next(iter(recurrent.values()), None)
    if first is not None:
        dtype: torch.dtype = getattr(torch, first.spec.dtype)
        return dtype
    floats = (item.dtype for item in copy.parameters() if item.is_floating_point())
    return next(floats, torch.get_default_dtype())


def _native_dtype(module: nn.Module, dtype: torch.dtype) -> torch.dtype | None:
    """The dtype of the module's recurrent parameters, None where it is `dtype` already."""
    recurrent = (part for part in module.modules() if isinstance(part, (nn.RNNBase, nn.RNNCellBase)))
    found = next((item.dtype for part in recurrent for item in part.parameters()), torch.get_default_dtype())
    return None if found == dtype else found


def _output_names(derived: list[str], requested: tuple[str, ...] | None, arguments: Arguments) -> tuple[str, ...]:
    if requested is not None:
        if len(requested) != len(derived) or len(set(requested)) != len(requested):
            raise ExportError(
                f"{len(requested)} output names were given ({', '.join(requested)}) for {len(derived)} tensors "
                f"({', '.join(derived)}); give each a name"
            )
        taken = next((name for name in requested if not name or name in arguments.tensors), None)
        if taken is not None:
            raise ExportError(
                f"output_names has {taken!r}, which is {'an input of forward' if taken else 'empty'}; give the output "
                f"another name, such as {(taken + '_out').lstrip('_')!r}"
            )
        for own, name in zip(derived, requested, strict=True):
            if name != own and name in derived:
                raise ExportError(
                    f"output_names calls {own} {name!r}, which forward calls another output; give the names in the "
                    f"order of forward's outputs: {', '.join(derived)}"
                )
        return requested
    # In ONNX an input and an output of one name would be one value.
    names: list[str] = []
    for name in derived:
        own = name
        while own in arguments.tensors or (own != name and own in derived):
            own += ".out"
        names.append(own)
    return tuple(names)


def _require_real(result: list[tuple[str, Tensor]]) -> None:
    for name, tensor in result:
        if tensor.is_complex():
            raise ExportError(
                f"{name} is {str(tensor.dtype).removeprefix('torch.')}, which a file's outputs cannot be; return "
                "torch.view_as_real(...) of it, or its real and imaginary parts"
            )


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

"""A module as a function: a copy that maps named inputs and states to named outputs and states.

The exporter traces it, and whoever compares a file with PyTorch runs it, in the module's own dtype or
in float64.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...errors import ExportError, LSTMOnnxError
from ..wrappers import without_compiler
from .arguments import Arguments
from .attribute_states import (
    AttributeSnapshot,
    AttributeState,
    ForwardFailed,
    StatefulModule,
    find_attribute_states,
    named_tensors,
)
from .clone import clone_module, keep_len_symbolic
from .dtype_mode import DtypeMode
from .opaque_ops import RecurrentModule, replace_recurrent_modules
from .user_code import error_line, first_line, stack_line

Tensors = dict[str, Tensor]


class FixedSizeError(ExportError):
    """Tracing fixed a size; at other example sizes it may stay dynamic.

    `axes` are the fixed ones, by input and axis, where they are known.  `unexplained` are sizes at which the file is
    wrong and the module's code goes the way that was traced: a size that is 1 at the traced sizes may not be there.
    """

    def __init__(
        self,
        message: str,
        axes: Collection[tuple[str, int]] = (),
        unexplained: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.axes = frozenset(axes)
        self.unexplained = unexplained


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
            ExportError: the forward fails; the message has its own, and the line.
        """
        tensors, values = [inputs[name] for name in self.arguments.tensors], [states[name] for name in self.states]
        with inference_context(self.dtype, self.native):
            results, after = call_forward(lambda: self.stateful(tensors, values))
        return dict(zip(self.outputs, results, strict=True)), dict(zip(self.states.values(), after, strict=True))

    @property
    def dtype(self) -> torch.dtype:
        """That of the first recurrent module."""
        first = next(iter(self.recurrent_modules.values()))
        dtype: torch.dtype = getattr(torch, first.spec.dtype)
        return dtype


@contextlib.contextmanager
def inference_context(dtype: torch.dtype, native: torch.dtype | None = None) -> Iterator[None]:
    """No gradients, and for a float64 copy float64 as the default dtype, for zeros that its code creates.

    With `native`, the dtype of the module before its conversion, code that names it computes in `dtype`.
    """
    before = torch.get_default_dtype()
    if dtype == torch.float64:
        torch.set_default_dtype(dtype)
    try:
        with torch.no_grad(), contextlib.nullcontext() if native is None else DtypeMode(native, dtype):
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
        raise _forward_error(error) from error


def _forward_error(error: BaseException) -> ExportError:
    if isinstance(error, ForwardFailed) and error.__cause__ is not None:
        error = error.__cause__
    line = error_line(error)
    at = f" at {line}" if line else ""
    return within_operator(error) or ExportError(
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
        ExportError: it has no recurrent module, fails on the example, is not deterministic, or keeps
            something else than tensors from call to call.
    """
    copy = clone_module(module, dtype)
    keep_len_symbolic(copy)
    recurrent = replace_recurrent_modules(copy)
    if not recurrent:
        raise ExportError(
            f"{type(module).__name__} holds no nn.LSTM, nn.GRU, nn.RNN or cell of them among its submodules; "
            "torch.onnx.export is for modules without"
        )
    native = None if dtype is None else _native_dtype(module, dtype)
    if dtype is not None:
        arguments = replace(arguments, tensors=_converted(arguments.tensors, dtype))

    def reset_calls() -> None:
        for item in recurrent.values():
            item.reset_calls()

    args, kwargs = arguments.args_and_kwargs(arguments.tensors)
    before = AttributeSnapshot(copy)
    with inference_context(getattr(torch, next(iter(recurrent.values())).spec.dtype), native):
        reset_calls()
        result = named_tensors(call_forward(lambda: copy(*args, **kwargs)))
        if not result:
            raise ExportError(f"{type(module).__name__}.forward returns no tensor")
        _require_real(result)
        states = find_attribute_states(copy, before, before.changed(copy))
    outputs = _output_names([name for name, _ in result], output_names, arguments)
    order = list(arguments.tensors)
    stateful = StatefulModule(
        copy,
        states,
        reset_calls,
        lambda tensors: arguments.args_and_kwargs(dict(zip(order, tensors, strict=True))),
    )
    functional = FunctionalModule(stateful, recurrent, arguments, outputs, native)
    _require_deterministic(functional, [tensor for _, tensor in result])
    return functional


def _native_dtype(module: nn.Module, dtype: torch.dtype) -> torch.dtype | None:
    """The dtype of the module's recurrent parameters, None where it is `dtype` already."""
    recurrent = (part for part in module.modules() if isinstance(part, (nn.RNNBase, nn.RNNCellBase)))
    found = next((item.dtype for part in recurrent for item in part.parameters()), torch.get_default_dtype())
    return None if found == dtype else found


def _converted(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _output_names(derived: list[str], requested: tuple[str, ...] | None, arguments: Arguments) -> tuple[str, ...]:
    names = derived
    if requested is not None:
        if len(requested) != len(derived) or len(set(requested)) != len(requested):
            raise ExportError(
                f"{len(requested)} output names were given ({', '.join(requested)}) for {len(derived)} tensors "
                f"({', '.join(derived)}); give a name of its own to each"
            )
        names = list(requested)
    # In ONNX an input and an output of one name would be one value.
    return tuple(f"{name}.out" if name in arguments.tensors else name for name in names)


def initial_states(functional: FunctionalModule) -> Tensors:
    """The attribute states before the first call; zeros where an attribute holds no tensors yet."""
    states: Tensors = {}
    for state in functional.attribute_states:
        tensors = state.initial or tuple(torch.zeros_like(tensor) for tensor in state.after)
        states |= dict(zip(state.input_names, tensors, strict=True))
    return states


def _require_real(result: list[tuple[str, Tensor]]) -> None:
    for name, tensor in result:
        if tensor.is_complex():
            raise ExportError(
                f"{name} is {str(tensor.dtype).removeprefix('torch.')}, which a file's outputs cannot be; return "
                "torch.view_as_real(...) of it, or its real and imaginary parts"
            )


class _RandomLine(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds the first line of the user's code that draws random numbers by torch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.line: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass everything on."""
        if self.line is None and torch.Tag.nondeterministic_seeded in func.tags:
            self.line = stack_line()
        return func(*args, **(kwargs or {}))


def _changing_output(functional: FunctionalModule, name: str, versions: Mapping[str, int]) -> ExportError:
    """Why a module gives another output when it is called again with the same inputs."""
    inputs = functional.arguments.tensors
    written = [key for key, tensor in inputs.items() if tensor._version != versions[key]]
    if written:
        return ExportError(
            f"forward writes into {', '.join(written)}, so that {name} is another one when it is called again with "
            f"the same tensors; let it work on a copy: {written[0]}.clone()"
        )
    with _RandomLine() as random, contextlib.suppress(ExportError):
        functional.run(inputs, initial_states(functional))
    if random.line is not None:
        return ExportError(
            f"at {random.line}: draws random numbers in eval mode, and a file cannot draw those that PyTorch does; "
            "pass them as an argument of forward (F.dropout needs training=self.training)"
        )
    return ExportError(
        f"the module gives another {name} each time it is called with the same inputs; a file cannot "
        "draw random numbers as it does, nor see states that are kept in an object of one's own or in a global "
        "variable (keep a tensor or a tuple of tensors in an attribute)"
    )


def _require_deterministic(functional: FunctionalModule, first: list[Tensor]) -> None:
    """Require equal outputs for equal inputs and states, and with zeros for states what empty attributes gave."""
    states = initial_states(functional)
    inputs = functional.arguments.tensors
    versions = {name: tensor._version for name, tensor in inputs.items()}
    outputs, after = functional.run(inputs, states)
    again, _ = functional.run(inputs, states)
    for name, one in outputs.items():
        if not _close(one, again[name]):
            raise _changing_output(functional, name, versions)
    for (name, one), own in zip(outputs.items(), first, strict=True):
        if not _close(one, own):
            empty = ", ".join(state.where for state in functional.attribute_states if state.initial is None)
            raise ExportError(
                f"with zeros in {empty or 'its attributes'} the module gives another {name} than at its first call, "
                "so its state cannot become an input of the file; pass the state as an argument of forward"
            )
    if states:
        functional.run(inputs, dict(zip(states, after.values(), strict=True)))


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    return bool(torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True))


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


def resize_example(functional: FunctionalModule, sizes: Mapping[str, int]) -> tuple[Tensors, Tensors]:
    """The example inputs and initial states at other sizes.

    Raises:
        ExportError: the module does not run at them.
    """
    example = functional.arguments.sizes
    states = initial_states(functional)
    inputs = functional.arguments.resize(sizes)
    changed = [(example[name], sizes[name]) for name in example if example[name] != sizes[name]]
    problem: ExportError | None = None
    # Which axis of a state is the batch shows in whether the module runs.
    for axis, (old, new) in [(None, (0, 0)), *itertools.product((1, 0, 2), changed if states else ())]:
        resized = (
            states if axis is None else {name: _resize_axis(state, axis, old, new) for name, state in states.items()}
        )
        try:
            functional.run(inputs, resized)
        except ExportError as error:
            problem = problem or error
        else:
            return inputs, resized
    at = ", ".join(f"{name} {size}" for name, size in sizes.items())
    raise FixedSizeError(f"the module fails at {at}, so nothing shows that these axes are open: {problem}") from problem


def _resize_axis(state: Tensor, axis: int, old: int, new: int) -> Tensor:
    if axis >= state.dim() or state.shape[axis] != old:
        return state
    return state.index_select(axis, torch.arange(new, device=state.device) % old)

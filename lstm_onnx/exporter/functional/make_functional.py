"""Makes a `FunctionalModule` from a module and its example inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ExportError
from ..call.arguments import Arguments
from ..copies.clone import clone
from ..copies.kept_values import KeptValues
from ..opaque.operators import replace_recurrent_modules
from ..wrappers import remove_observers
from .attribute_states import AttributeSnapshot, StatefulModule, are_equal, name_of, version_of
from .functional_module import FunctionalModule, call_forward, inference_context, recurrent_dtype
from .number_states import find_number_states
from .repeated_calls import select_states
from .results import named_tensors


def make_functional(
    module: nn.Module,
    arguments: Arguments,
    *,
    output_names: tuple[str, ...] | None = None,
    dtype: torch.dtype | None = None,
) -> FunctionalModule:
    """Copy a module, run it on its example inputs, and find the states that it keeps in attributes.

    Args:
        module: not changed.
        arguments: its example inputs.
        output_names: names of its outputs, in order; None derives them from its result.
        dtype: converts the copy and floating-point inputs to it; None keeps theirs.

    Raises:
        ExportError: it fails on the example, is not deterministic, or keeps anything but tensors from call to call.
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

    given = {id(tensor): tensor.clone() for tensor in arguments.tensors.values()}
    copied = {name: given[id(tensor)] for name, tensor in arguments.tensors.items()}
    twice = _given_twice(arguments)
    # The first call gets one tensor for those, as the caller's does; what a file is given are several.
    apart = {name: tensor.clone() if name in twice else tensor for name, tensor in arguments.tensors.items()}
    arguments = replace(arguments, tensors=apart)
    versions = {name: version_of(tensor) for name, tensor in copied.items()}
    args, kwargs = arguments.args_and_kwargs(copied)
    kept = KeptValues(copy, cloned.mutable)
    with inference_context(dtype or recurrent_dtype(copy, recurrent), native), kept.restored():
        parts = len(list(copy.modules()))
        before = AttributeSnapshot(copy)
        shared = [(tensor, tensor.clone()) for tensor in cloned.shared]
        reset_calls()
        with kept.recorded() as changes:
            result = named_tensors(call_forward(lambda: copy(*args, **kwargs)))
        if not result:
            raise ExportError(f"{type(module).__name__}.forward returns no tensor")
        _require_real(result)
        first = [tensor.clone() for _, tensor in result]  # it may be a buffer, into which the second call writes
        if len(list(copy.modules())) != parts:
            raise ExportError(
                f"the forward of {type(module).__name__} creates submodules, with random weights; call it once before "
                "the export, so that they exist"
            )
        states = before.changed(copy)
        written = {name for name, tensor in copied.items() if version_of(tensor) != versions[name]}

        def call_arguments(tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            # Clones of those into which the forward writes, so that each call gets the caller's values.
            named = zip(arguments.tensors, tensors, strict=True)
            return arguments.args_and_kwargs({name: one.clone() if name in written else one for name, one in named})

        if states:
            args, kwargs = call_arguments(list(arguments.tensors.values()))
            # Recorded separately from the first: what every second call resets is unchanged after both.
            with kept.recorded() as later:
                call_forward(lambda: copy(*args, **kwargs))
            known = {(id(change.part), change.key) for change in changes}
            changes += [change for change in later if (id(change.part), change.key) not in known]
            # Only attributes whose structure is the same after a second call: a list that grows is not a state.
            states = tuple(state for state in states if state.tensors(copy) is not None)
        for tensor, then in shared:
            if not are_equal(tensor, then):
                raise ExportError(
                    f"{name_of(copy, tensor)} shares its memory with another tensor that the module keeps, or with an "
                    "array, as a view does, and forward writes into it; keep one of the two, and make the view of it "
                    "within forward"
                )
    outputs = _output_names([name for name, _ in result], output_names, arguments)
    stateful = StatefulModule(copy, states, kept, reset_calls, call_arguments)
    functional = FunctionalModule(stateful, recurrent, arguments, outputs, native, dtype)
    select_states(functional, first, changes, find_number_states(copy, changes), twice)
    return functional


def _given_twice(arguments: Arguments) -> tuple[str, ...]:
    """The names of arguments that are the same tensor."""
    ids = [id(tensor) for tensor in arguments.tensors.values()]
    return tuple(name for name, tensor in arguments.tensors.items() if ids.count(id(tensor)) > 1)


def _native_dtype(module: nn.Module, dtype: torch.dtype) -> torch.dtype | None:
    """The dtype of the module's recurrent parameters; None where it is `dtype` already."""
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
    twice = next((name for name in derived if derived.count(name) > 1), None)
    if twice is not None:
        raise ExportError(f"forward returns two tensors that would be named {twice}; rename one, or pass output_names")
    # In ONNX an input and an output with the same name would be the same value.
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

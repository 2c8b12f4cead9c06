"""What a module's recurrent modules are called with while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from ...errors import ExportError
from ..call.arguments import holds_integers
from ..weights import ChangingWeightsError
from .attribute_states import initial_tensors
from .functional_module import FunctionalModule, trace_sizes


class CountedCalls(TorchFunctionMode):
    """How often torch's functions are called: in a Python loop, more often the longer it is."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count, and pass on."""
        self.count += 1
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def recorded_calls(functional: FunctionalModule) -> Iterator[list[tuple[int, int]]]:
    """Within it, the steps and rows of each call of a recurrent module are listed, in order."""
    found: list[tuple[int, int]] = []

    def recorded(forward: Callable[..., Any], input_size: int, batch_first: bool, cell: bool) -> Callable[..., Any]:
        def record(*args: Any, **kwargs: Any) -> Any:
            x = args[0] if args else kwargs.get("input", next(iter(kwargs.values()), None))
            data = x.data if isinstance(x, PackedSequence) else x
            # Before the forward of a subclass, which may change weights for the length of its call.
            if isinstance(data, torch.Tensor) and data.shape[-1] != input_size:
                raise ExportError(f"a recurrent module of {input_size} features was given {data.shape[-1]}")
            if isinstance(x, PackedSequence):
                found.append((len(x.batch_sizes), int(x.batch_sizes[0])))
            elif isinstance(x, torch.Tensor) and (cell or x.dim() == 2):
                found.append((1, x.shape[0]) if cell else (x.shape[0], 1))
            elif isinstance(x, torch.Tensor):
                steps, rows = (1, 0) if batch_first else (0, 1)
                found.append((x.shape[steps], x.shape[rows]))
            return forward(*args, **kwargs)

        return record

    # A module with states of its own is tried with several shapes of them: only its last call counts.
    handle = functional.stateful.register_forward_pre_hook(lambda *_: found.clear())
    before: list[tuple[nn.Module, Any]] = []
    for path, recurrent in functional.recurrent_modules.items():
        module = functional.stateful.inner.get_submodule(path)
        before.append((module, vars(module).get("forward")))
        # Instead of a hook, which a wrapper that calls `forward` itself would bypass.
        batch_first = bool(getattr(module, "batch_first", False))
        module.forward = recorded(module.forward, recurrent.spec.input_size, batch_first, recurrent.cell)
    try:
        yield found
    finally:
        handle.remove()
        for module, own in before:
            if own is None:
                del module.forward
            else:
                module.forward = own


def require_constant_weights(functional: FunctionalModule) -> None:
    """Run a module that computes the weights of a recurrent module on other inputs than the example.

    Raises:
        ChangingWeightsError: these weights follow from its inputs, and a file would have the example's.
    """
    if not any(recurrent.computed for recurrent in functional.recurrent_modules.values()):
        return
    arguments, states = functional.arguments, initial_tensors(functional.attribute_states)
    others = [{name: change(tensor) for name, tensor in arguments.tensors.items()} for change in _CHANGES]
    for inputs in (*others, *map(arguments.resize, trace_sizes(functional))):
        try:
            functional.run(inputs, states)
        except ChangingWeightsError:
            raise
        except ExportError:  # the module does not take them, such as an index of no entry
            continue


def _noise(tensor: Tensor) -> Tensor:
    return torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)).to(tensor)


_CHANGES: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda tensor: tensor * (0.5 + _noise(tensor)) if tensor.is_floating_point() else tensor,
    lambda tensor: (tensor + _noise(tensor)) * 100 if tensor.is_floating_point() else tensor,
    lambda tensor: (tensor + _noise(tensor)) * -100 if tensor.is_floating_point() else tensor,
    lambda tensor: ~tensor if tensor.dtype == torch.bool else tensor,
    lambda tensor: torch.full_like(tensor, int(tensor.min())) if holds_integers(tensor) else tensor,
    lambda tensor: torch.full_like(tensor, int(tensor.max())) if holds_integers(tensor) else tensor,
    lambda tensor: tensor + 1 if holds_integers(tensor) else tensor,
    lambda tensor: tensor - 1 if holds_integers(tensor) else tensor,
)
"""Other numbers, which most modules take: of one kind at a time, as some may take none."""

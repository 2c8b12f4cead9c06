"""Records the steps and rows with which a module calls its recurrent modules."""

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
    """Counts calls of torch's functions, of which a longer Python loop makes more."""

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
    """A context that lists the steps and rows of each call of a recurrent module, in order."""
    found: list[tuple[int, int]] = []

    def recorded(forward: Callable[..., Any], input_size: int, batch_first: bool, cell: bool) -> Callable[..., Any]:
        def record(*args: Any, **kwargs: Any) -> Any:
            x = args[0] if args else kwargs.get("input", next(iter(kwargs.values()), None))
            data = x.data if isinstance(x, PackedSequence) else x
            # Before a subclass's own forward, which may change weights during its call.
            if isinstance(data, torch.Tensor) and data.shape[-1] != input_size:
                raise ExportError(f"a recurrent module with input_size {input_size} got {data.shape[-1]} features")
            if isinstance(x, PackedSequence):
                found.append((len(x.batch_sizes), int(x.batch_sizes[0])))
            elif isinstance(x, torch.Tensor) and (cell or x.dim() == 2):
                found.append((1, x.shape[0]) if cell else (x.shape[0], 1))
            elif isinstance(x, torch.Tensor):
                steps, rows = (1, 0) if batch_first else (0, 1)
                found.append((x.shape[steps], x.shape[rows]))
            return forward(*args, **kwargs)

        return record

    # A module with attribute states is tried with several shapes of them: only its last call counts.
    handle = functional.stateful.register_forward_pre_hook(lambda *_: found.clear())
    before: list[tuple[nn.Module, Any]] = []
    for path, recurrent in functional.recurrent_modules.items():
        module = functional.stateful.inner.get_submodule(path)
        before.append((module, vars(module).get("forward")))
        # Not by a hook, which a wrapper that calls `forward` directly would bypass.
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
    """Run a module that computes the weights of a recurrent module on inputs other than the example.

    Raises:
        ChangingWeightsError: these weights depend on its inputs, and a file would contain those of the example.
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
        except ExportError:  # the module refuses these inputs, such as an index out of range
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
"""Other values, which most modules accept; of one kind of input at a time, since a module may accept no others."""

"""Calls a module through the interface of its exported file: named inputs and states to outputs and next states."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...errors import ExportError
from ...metadata import Metadata
from .functional_module import FunctionalModule, Tensors


class _StableSorts(TorchFunctionMode):
    """Makes sorts stable, as they are in the file, since explicit states are in the order of the module's sort."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, a sort with ``stable=True``."""
        named = kwargs or {}
        if getattr(func, "__name__", "") in ("sort", "argsort"):
            named = {**dict(zip(("dim", "descending"), args[1:], strict=False)), **named, "stable": True}
            args = args[:1]
        return func(*args, **named)


def call_with_states(
    functional: FunctionalModule,
    metadata: Metadata,
    inputs: Mapping[str, Tensor],
    states: Mapping[str, Tensor],
    *,
    left_out: bool = False,
) -> Tensors:
    """All outputs of the file, by name, as PyTorch computes them.

    Args:
        functional: the module.
        metadata: the file's, which says where explicit states come from.
        inputs: the forward's arguments by name.
        states: attribute states and explicit ones by their inputs' names.  Where a recurrent module's explicit
            states are left out, it starts from what its own code passes.
        left_out: also return the next values of attribute states that the file does not have.

    Raises:
        ExportError: the forward fails, or a state of the file is not one of this module.
    """
    explicit: dict[tuple[str, int], dict[int, Tensor]] = {}
    for name, origin in metadata.origins.items():
        if origin.module not in functional.recurrent_modules:
            raise ExportError(f"the file has a state of {origin.module}, which does not exist in the module")
        if name in states:
            explicit.setdefault((origin.module, origin.first), {})[origin.index] = states[name]
    for (path, first), pair in explicit.items():
        functional.recurrent_modules[path].override[first] = tuple(pair[index] for index in sorted(pair))
    # An attribute that is never read is not a state of the file; any tensor of its shape will do.
    attributes = {
        name: states.get(name, tensor)
        for state in functional.attribute_states
        for name, tensor in zip(state.input_names, state.after, strict=True)
    }
    try:
        with _StableSorts() if explicit else contextlib.nullcontext():
            outputs, after = functional.run(inputs, attributes)
        results = dict(outputs)
        results |= {
            name: after[name] for source, name in functional.states.items() if left_out or source in metadata.states
        }
        for name, origin in metadata.origins.items():
            calls = functional.recurrent_modules[origin.module].calls
            results[metadata.states[name]] = calls[origin.last].final[origin.index]
    finally:
        for path, first in explicit:
            functional.recurrent_modules[path].override.pop(first, None)
    return results

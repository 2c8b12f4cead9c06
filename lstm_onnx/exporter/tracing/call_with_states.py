"""Calling a prepared module as its exported file is called: every state by name, in and out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ...errors import ExportError
from ...metadata import Metadata
from .functional import Prepared, Tensors


def call_with_states(
    prepared: Prepared, metadata: Metadata, inputs: Mapping[str, Tensor], states: Mapping[str, Tensor]
) -> Tensors:
    """All outputs of the file, by name, as PyTorch computes them.

    Args:
        prepared: the module.
        metadata: the file's, which says where explicit states come from.
        inputs: the forward's own tensors.
        states: attribute states and explicit ones by their inputs' names; a recurrent module whose
            explicit states are left out starts as its own code has it.

    Raises:
        ExportError: the forward fails, or the file's states are not this module's.
    """
    explicit: dict[tuple[str, int], dict[int, Tensor]] = {}
    for name, origin in metadata.origins.items():
        if origin.module not in prepared.sites:
            raise ExportError(f"the file has a state of {origin.module}, which the module does not hold")
        if name in states:
            explicit.setdefault((origin.module, origin.first), {})[origin.index] = states[name]
    for (path, first), pair in explicit.items():
        prepared.sites[path].override[first] = tuple(pair[index] for index in sorted(pair))
    held = {name: states[name] for name in prepared.states if name in states}
    # An attribute that is never read is no state of the file; anything of its shape does.
    unread = {
        name: tensor
        for slot in prepared.slots
        for name, tensor in zip(slot.names, slot.after, strict=True)
        if name not in states
    }
    try:
        outputs, after = prepared.run(inputs, {**unread, **held})
        results = dict(outputs)
        results |= {name: after[name] for source, name in prepared.states.items() if source in metadata.states}
        for name, origin in metadata.origins.items():
            calls = prepared.sites[origin.module].calls
            results[metadata.states[name]] = calls[origin.last].final[origin.index]
    finally:
        for path, first in explicit:
            prepared.sites[path].override.pop(first, None)
    return results

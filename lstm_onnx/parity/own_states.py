"""Selects the states that a module takes, without those that only a file has: caches, and values that loops carry."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ..metadata import Metadata


def with_own_states(metadata: Metadata) -> Metadata:
    """The metadata without caches and values that loops carry, which a module does not have or does not take."""
    others = set(_other_states(metadata))
    if not others:
        return metadata
    states = {name: after for name, after in metadata.states.items() if name not in others}
    return replace(metadata, states=states)


def _other_states(metadata: Metadata) -> Collection[str]:
    """The states that a PyTorch module does not have, or cannot take."""
    caches = metadata.streaming.caches if metadata.streaming is not None else ()
    return [*caches, *(name for name in metadata.loop_states if name in metadata.states)]


def file_only(metadata: Metadata) -> set[str]:
    """Inputs and outputs of a file that PyTorch does not have."""
    others = _other_states(metadata)
    last = metadata.streaming.last if metadata.streaming is not None else None
    return {*others, *(metadata.states[name] for name in others), *([last] if last is not None else [])}

"""Selects the states that a module takes, without those that only a file has: caches, and values that loops carry."""

from __future__ import annotations

from dataclasses import replace

from ..metadata import Metadata


def with_own_states(metadata: Metadata) -> Metadata:
    """The metadata without caches and values that loops carry, which a module does not have or does not take."""
    others = _other_states(metadata)
    states = {name: after for name, after in metadata.states.items() if name not in others}
    return replace(metadata, states=states)


def _other_states(metadata: Metadata) -> set[str]:
    """The states that a PyTorch module does not have, or cannot take."""
    return {*metadata.streaming_or_default.caches, *metadata.loop_states} & metadata.states.keys()


def file_only(metadata: Metadata) -> set[str]:
    """Inputs and outputs of a file that PyTorch does not have."""
    others = _other_states(metadata)
    last = metadata.streaming_or_default.last
    return {*others, *(metadata.states[name] for name in others), *([last] if last is not None else [])}

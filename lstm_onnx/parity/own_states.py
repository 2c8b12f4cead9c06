"""The states that a module has, without the caches that only its file has for chunks of any length."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ..metadata import Metadata


def with_own_states(metadata: Metadata) -> Metadata:
    """The same metadata without caches: a module has none."""
    caches = set(cache_names(metadata))
    if not caches:
        return metadata
    states = {name: after for name, after in metadata.states.items() if name not in caches}
    return replace(metadata, states=states)


def cache_names(metadata: Metadata) -> Collection[str]:
    """The states that PyTorch does not have."""
    return metadata.streaming.caches if metadata.streaming is not None else ()


def file_only(metadata: Metadata) -> set[str]:
    """Inputs and outputs of a file that PyTorch does not have."""
    caches = cache_names(metadata)
    last = metadata.streaming.last if metadata.streaming is not None else None
    return {*caches, *(metadata.states[name] for name in caches), *([last] if last is not None else [])}

"""Finds which tensors of a module share memory, as a tensor and a view of it do."""

from __future__ import annotations

import contextlib

from torch import Tensor


class SharedMemory:
    """The places of tensors in memory, each with the tensor's copy."""

    def __init__(self) -> None:
        self._places: dict[int, list[tuple[int, int, Tensor]]] = {}

    def add(self, value: Tensor, copy: Tensor) -> None:
        """Remember a tensor and its copy; the tensor has to stay alive."""
        with contextlib.suppress(NotImplementedError, RuntimeError):  # some tensors have no memory of their own
            entries = int(sum((size - 1) * step for size, step in zip(value.shape, value.stride(), strict=True))) + 1
            start = int(value.storage_offset()) * value.itemsize
            place = (start, start + entries * value.itemsize, copy)
            self._places.setdefault(value.untyped_storage()._cdata, []).append(place)

    def copies(self) -> tuple[Tensor, ...]:
        """The copies of those tensors that share bytes with another one."""
        return tuple(
            copy
            for places in self._places.values()
            for start, end, copy in places
            if any(start < last and first < end for first, last, other in places if other is not copy)
        )

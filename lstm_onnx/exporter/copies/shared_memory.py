"""Which of the tensors that a module keeps have memory in common, as a tensor and a view of it have."""

from __future__ import annotations

import contextlib

from torch import Tensor


class SharedMemory:
    """Where tensors lie in memory, each with its copy."""

    def __init__(self) -> None:
        self._places: dict[int, list[tuple[int, int, Tensor]]] = {}

    def add(self, value: Tensor, copy: Tensor) -> None:
        """Remember a tensor, which has to stay alive, and its copy."""
        with contextlib.suppress(NotImplementedError, RuntimeError):  # of tensors that have no memory of their own
            entries = int(sum((size - 1) * step for size, step in zip(value.shape, value.stride(), strict=True))) + 1
            start = int(value.storage_offset()) * value.itemsize
            place = (start, start + entries * value.itemsize, copy)
            self._places.setdefault(value.untyped_storage()._cdata, []).append(place)

    def copies(self) -> tuple[Tensor, ...]:
        """The copies of tensors that share bytes with another one."""
        return tuple(
            copy
            for places in self._places.values()
            for start, end, copy in places
            if any(start < last and first < end for first, last, other in places if other is not copy)
        )

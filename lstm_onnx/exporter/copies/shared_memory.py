"""Finds which tensors and arrays of a module share memory, as a tensor and a view of it do."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from torch import Tensor


class SharedMemory:
    """The places of tensors and arrays in memory, each with its copy."""

    def __init__(self) -> None:
        self._places: list[tuple[int, int, Tensor]] = []

    def add(self, value: Tensor, copy: Tensor) -> None:
        """Remember a tensor and its copy; the tensor has to stay alive."""
        with contextlib.suppress(NotImplementedError, RuntimeError):  # some tensors have no memory of their own
            entries = int(sum((size - 1) * step for size, step in zip(value.shape, value.stride(), strict=True))) + 1
            self._add(value.data_ptr(), entries * value.itemsize, copy)

    def add_array(self, value: np.ndarray, copy: np.ndarray) -> None:
        """Remember a NumPy array and its copy, likewise."""
        with contextlib.suppress(TypeError):  # torch does not have its dtype
            start, end = np.lib.array_utils.byte_bounds(value)
            self._add(start, end - start, torch.from_numpy(copy))

    def _add(self, start: int, size: int, copy: Tensor) -> None:
        if start and copy.numel():
            self._places.append((start, start + size, copy))

    def copies(self) -> tuple[Tensor, ...]:
        """The copies of those that share bytes with another one; for an array, a tensor on its memory."""
        found: dict[int, Tensor] = {}
        reaching: tuple[int, Tensor] | None = None  # the one that ends last, of those that start earlier
        for start, end, copy in sorted(self._places, key=lambda place: place[:2]):
            if reaching is not None and start < reaching[0]:
                found |= {id(one): one for one in (reaching[1], copy)}
            if reaching is None or end > reaching[0]:
                reaching = (end, copy)
        return tuple(found.values())

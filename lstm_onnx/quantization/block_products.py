"""The arithmetic of MatMulNBits: 8-bit weights with a scale for each block of input features.

Rows are quantized within the kernel (accuracy_level 4), block by block, so no row's result depends on another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arithmetic import TINY, quantize_columns, scales_to_try
from .kernels import BLOCK_SIZES, MATMUL_NBITS

LIMIT = 127
ZERO_POINT = 128


@dataclass(frozen=True)
class BlockWeight:
    """A weight ``(in, out)`` of MatMulNBits.

    Attributes:
        integers: uint8 ``(out, blocks, block)``, where `ZERO_POINT` means 0; the last block is padded with it.
        scales: float32 ``(out, blocks)``.
        size: the number of input features.
    """

    integers: np.ndarray
    scales: np.ndarray
    size: int

    @property
    def sizes(self) -> tuple[int, int]:
        """The numbers of input and output features."""
        return self.size, len(self.integers)

    def product(self, rows: np.ndarray, dtype: type = np.float64) -> np.ndarray:
        """The product ``(..., out)`` of rows ``(..., in)``: exact integers within blocks, scaled and added in `dtype`.

        As in the kernel, the zero points' part of all blocks comes first, and the products of the weights' unsigned
        integers are added to it: where the two nearly cancel, rounding is larger than the result's size suggests.
        """
        integers, scales = quantize_row_blocks(rows, self.integers.shape[-1])
        unsigned = self.integers.astype(np.float64)
        sums = integers.sum(axis=-1).astype(dtype) * scales.astype(dtype)
        total: np.ndarray = -(sums @ (self.scales.astype(dtype) * dtype(ZERO_POINT)).T)
        for block in range(unsigned.shape[1]):
            exact: np.ndarray = (integers[..., block, :].astype(np.float64) @ unsigned[:, block].T).astype(dtype)
            total += exact * scales[..., block, None].astype(dtype) * self.scales[:, block].astype(dtype)
        return total


def block_size(kernel: str, features: int) -> int:
    """How many of these input features share a scale: the most that the kernel allows without more padding."""
    least = BLOCK_SIZES[MATMUL_NBITS]
    sizes = (least << shift for shift in range((BLOCK_SIZES[kernel] // least).bit_length()))
    return max(size for size in sizes if -features % size == -features % least)


def quantize_blocks(weight: np.ndarray, kernel: str = MATMUL_NBITS) -> BlockWeight:
    """A weight ``(in, out)`` of finite numbers as integers and scales; see `rounding`."""
    block = block_size(kernel, len(weight))
    blocks = _blocks(weight.T.astype(np.float32), block)
    integers, scales = quantize_columns(blocks.reshape(-1, block), LIMIT, scales_to_try(len(weight)))
    scales = np.where(integers.any(axis=1), scales, np.float32(TINY))  # with a larger scale, zeros would be rounded
    shifted = (integers.astype(np.int16) + ZERO_POINT).astype(np.uint8)
    return BlockWeight(shifted.reshape(blocks.shape), scales.reshape(blocks.shape[:-1]), len(weight))


def quantize_row_blocks(rows: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``(..., in)`` as int64 integers ``(..., blocks, block)`` and float32 scales ``(..., blocks)``."""
    blocks = _blocks(rows.astype(np.float32), block)
    largest = np.abs(blocks).max(axis=-1, initial=0.0)
    factor = np.divide(np.float32(LIMIT), largest, out=np.zeros_like(largest), where=largest != 0)
    integers = np.clip(np.rint(blocks * factor[..., None]), -LIMIT - 1, LIMIT)
    return integers.astype(np.int64), (largest / np.float32(LIMIT)).astype(np.float32)


def _blocks(rows: np.ndarray, block: int) -> np.ndarray:
    """Rows ``(..., in)``, filled up with zeros, as ``(..., blocks, block)``."""
    short = -rows.shape[-1] % block
    return np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, short)]).reshape(*rows.shape[:-1], -1, block)

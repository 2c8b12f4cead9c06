"""Large weights on huge pages.

A step of one stream reads every weight once.  Where they are more than the processor's table of 4 KB pages
reaches, it looks many of them up in memory: on pages of 2 MB a step of I512 H512 L2 (17 MB of weights)
takes 0.94 of the time, and one of I1024 H1024 L2 0.92 (measured on Zen 4, one thread).  Loading takes
about a quarter longer (270 MB: 1.3 s, and 1.0).  Linux gives such pages to who asks for them, and ONNX
Runtime does not ask; see madvise(2), MADV_HUGEPAGE and MADV_COLLAPSE.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Range = tuple[int, int]
"""The first byte's address, and that after the last."""

HUGE = 2**21
LEAST = 6 * HUGE
"""Bytes from which on it is done: about as much as the table of a current processor reaches, 3000 pages of 4 KB."""
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
_MODE = "/sys/kernel/mm/transparent_hugepage/enabled"
_MAPS = "/proc/self/maps"


def on_huge_pages(opened: Callable[[], T]) -> T:
    """What `opened` gives; the memory that it has taken meanwhile is on huge pages, where the system offers them.

    What other threads take at the same time may come to lie there too, which does not change what it holds.
    """
    if not _offered():
        return opened()
    before = _private_memory()
    result = opened()
    for part in without(_private_memory(), before):
        start, size = _whole_pages(part)
        if size >= LEAST and _in_use(start, size):
            # An older kernel knows only the first, and does in time what the second does at once.
            for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
                _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)
    return result


def without(ranges: Iterable[Range], others: Iterable[Range]) -> Iterator[Range]:
    """What of `ranges` lies in none of `others`; both in order, and without overlaps of their own."""
    known = list(others)
    for start, stop in ranges:
        left = start
        for other_start, other_stop in known:
            if other_stop <= left:
                continue
            if other_start >= stop:
                break
            if other_start > left:
                yield left, other_start
            left = other_stop
        if left < stop:
            yield left, stop


def _whole_pages(part: Range) -> tuple[int, int]:
    """Where the huge pages within begin, and how many bytes they are."""
    start, stop = -(-part[0] // HUGE) * HUGE, part[1] // HUGE * HUGE
    return start, max(0, stop - start)


def _in_use(start: int, size: int) -> bool:
    """Whether nearly all of it holds something: a thread's stack, which does not, would take memory for nothing."""
    pages = (ctypes.c_ubyte * (size // mmap.PAGESIZE))()
    if _libc().mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), pages):
        return False
    return float(np.mean(np.frombuffer(bytes(pages), np.uint8) & 1)) >= 0.9


@cache
def _offered() -> bool:
    """Whether Linux gives huge pages to who asks: neither never, nor always without being asked."""
    try:
        with open(_MODE, encoding="ascii") as file:
            return sys.platform == "linux" and "[madvise]" in file.read()
    except (OSError, ValueError):
        return False


def _private_memory() -> list[Range]:
    """The process' memory that is of no file."""
    ranges = []
    try:
        with open(_MAPS, encoding="utf-8", errors="replace") as file:
            for line in file:
                if " rw-p 00000000 00:00 0" in line:
                    start, stop = line[: line.index(" ")].split("-")
                    ranges.append((int(start, 16), int(stop, 16)))
    except OSError:
        return []
    return ranges


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)

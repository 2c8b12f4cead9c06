"""Huge pages: large weights come to lie on them, nothing else does, and no result changes."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lstm_onnx.runtime import huge_pages as pages
from lstm_onnx.runtime import load
from lstm_onnx.runtime.huge_pages import HUGE, LEAST, on_huge_pages, without

from .models import exported, randoms

OFFERED = pytest.mark.skipif(not pages._offered(), reason="this system does not give huge pages to who asks")


@pytest.mark.parametrize(
    ("ranges", "others", "expected"),
    [
        ([(0, 10)], [], [(0, 10)]),
        ([(0, 10)], [(0, 10)], []),
        ([(2, 8)], [(0, 10)], []),
        ([(0, 10)], [(3, 5)], [(0, 3), (5, 10)]),
        ([(0, 10)], [(0, 4), (6, 10)], [(4, 6)]),
        ([(0, 10), (20, 30)], [(5, 25)], [(0, 5), (25, 30)]),
        ([(0, 10)], [(10, 20)], [(0, 10)]),
        ([(10, 20)], [(0, 10), (20, 30)], [(10, 20)]),
        ([], [(0, 10)], []),
    ],
)
def test_what_is_new_is_what_was_not_there(ranges, others, expected):
    assert list(without(ranges, others)) == expected


def huge_bytes(code: str, *arguments: str) -> int:
    """Of the process in which `code` has run."""
    tail = "\nprint(next(line for line in open('/proc/self/smaps_rollup') if 'AnonHuge' in line).split()[1])"
    done = subprocess.run([sys.executable, "-c", code + tail, *arguments], capture_output=True, text=True, check=True)
    return 1024 * int(done.stdout)


@OFFERED
def test_large_weights_lie_on_huge_pages_and_small_ones_do_not(tmp_path: Path):
    load_it = "import sys, lstm_onnx; model = lstm_onnx.load(sys.argv[1], 'cpu', threads=2)"
    exported(tmp_path / "small.onnx")
    assert huge_bytes(load_it, str(tmp_path / "small.onnx")) == 0
    large = tmp_path / "large.onnx"
    exported(large, input_size=512, hidden_size=512, num_layers=2)
    assert huge_bytes(load_it, str(large)) >= large.stat().st_size - HUGE


@OFFERED
@pytest.mark.parametrize("filled", [True, False])
def test_memory_that_holds_nothing_takes_none(filled: bool):
    code = f"""
import mmap
from lstm_onnx.runtime.huge_pages import on_huge_pages

def opened():
    taken = mmap.mmap(-1, {2 * LEAST}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if {filled}:
        taken.write(bytes([1]) * {2 * LEAST})
    return taken

taken = on_huge_pages(opened)
"""
    assert (huge_bytes(code) > 0) is filled


def test_results_are_the_same_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    exported(tmp_path / "large.onnx", input_size=512, hidden_size=512)
    x = randoms(3, 1, 512)
    asked, _ = load(tmp_path / "large.onnx", "cpu", threads=1)(x)
    monkeypatch.setattr(pages, "_offered", lambda: False)
    unasked, _ = load(tmp_path / "large.onnx", "cpu", threads=1)(x)
    assert np.array_equal(asked, unasked)


def test_a_system_that_refuses_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def mincore(*place_and_pages) -> int:
        place_and_pages[-1][:] = [1] * len(place_and_pages[-1])
        return 0

    refusing = SimpleNamespace(mincore=mincore, madvise=lambda *request: asked.append(request) or -1)
    monkeypatch.setattr(pages, "_offered", lambda: True)
    monkeypatch.setattr(pages, "_libc", lambda: refusing)
    found = iter([[(0, HUGE)], [(0, HUGE), (HUGE, HUGE + LEAST), (4 * LEAST, 4 * LEAST + mmap.PAGESIZE)]])
    monkeypatch.setattr(pages, "_private_memory", lambda: next(found))
    assert on_huge_pages(lambda: 42) == 42
    assert len(asked) == 2


def test_an_error_of_what_is_opened_comes_through():
    with pytest.raises(ZeroDivisionError):
        on_huge_pages(lambda: 1 // 0)

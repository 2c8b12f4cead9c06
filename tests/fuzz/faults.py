"""A command line that goes wrong in the way that its first argument names, to see that a campaign finds it."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def _bytes() -> None:
    bytearray(3 * 2**30)


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "crash": (os.abort, "the process ended with -6"),
    "segmentation-fault": (lambda: ctypes.string_at(0), "the process ended with -11"),
    "hang": (lambda: time.sleep(60), "no answer in 2 s"),
    "bug": (lambda: sys.exit(70), "exit code 70"),
    "no-exit": (lambda: None, "exit code None"),
    "traceback": (lambda: sys.exit(print("Traceback (most recent call last):", file=sys.stderr)), "a traceback"),
    "silence": (lambda: sys.exit(2), "no line that says what is wrong"),
    "file": (lambda: sys.exit(Path("left").touch()), "left behind: ['left']"),
    "temporary-file": (lambda: sys.exit(tempfile.mkdtemp() and 0), "left behind: ['tmp"),
    "too-much-memory": (_bytes, "MemoryError"),
}
"""What is done, and what a campaign must say of it."""


def main(arguments: list[str]) -> None:
    if arguments == ["nothing"]:
        sys.exit(0)
    FAULTS[arguments[0]][0]()

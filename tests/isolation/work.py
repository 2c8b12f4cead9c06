"""What is asked of child processes in tests: some of it does not come to a good end."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from lstm_onnx.atomic_io import atomic_write
from lstm_onnx.errors import InputError
from lstm_onnx.isolation.stages import share, stage, unlimited


def echo(value: Any) -> Any:
    print("this is not an answer")
    return value


def pid() -> int:
    return os.getpid()


def modules() -> list[str]:
    return sorted(sys.modules)


def folder() -> str:
    return os.getcwd()  # noqa: PTH109


def refuse() -> None:
    raise InputError("x: does not fit; cut it")


def bug() -> None:
    raise KeyError("gone")


def warn() -> None:
    logging.getLogger("lstm_onnx").warning("it is %s", "late")


def abort() -> None:
    stage("a stage")
    share(["a part"])
    stage("another stage")
    print("lib.h:12: int f(): Assertion 'a < b' failed.", file=sys.stderr, flush=True)
    os.abort()


def segmentation_fault() -> None:
    stage("reading nothing")
    ctypes.string_at(0)


def stammer() -> None:
    """Says half a word, and ends."""
    stage("talking")
    _say(b'{"result": 1')
    os._exit(3)


def rave() -> None:
    stage("talking")
    _say(b"what?\n")
    time.sleep(60)


def _say(words: bytes) -> None:
    """Where its answers go."""
    for number in range(3, 20):
        if os.path.exists(f"/proc/self/fd/{number}") and "pipe" in os.readlink(f"/proc/self/fd/{number}"):  # noqa: PTH110, PTH115
            with contextlib.suppress(OSError):
                os.write(number, words)


def fall_silent() -> None:
    """Closes all that it could say something with, and goes on."""
    stage("falling silent")
    os.closerange(1, 20)
    time.sleep(60)


def leave() -> None:
    os._exit(3)


def sleep(seconds: float = 60.0) -> str:
    stage("sleeping")
    time.sleep(seconds)
    return "awake"


def sleep_often() -> None:
    for index in range(1000):
        stage(f"nap {index}")
        time.sleep(0.05)


def hold() -> None:
    """Computes without giving Python a turn."""
    stage("holding")
    ctypes.PyDLL(None).sleep(60)


def grow() -> int:
    stage("growing")
    return len(bytearray(2**29))


def grow_in_c() -> bool:
    """As a library does: it is told that there is no memory, and raises nothing."""
    stage("growing")
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    return libc.malloc(ctypes.c_size_t(2**29)) is not None


def command(arguments: list[str]) -> None:
    """A command line in a child that has its parent's input and output."""
    what = arguments[0]
    print(f"out of {what}", flush=True)
    print(f"err of {what}", file=sys.stderr, flush=True)
    if what == "exit":
        sys.exit(int(arguments[1]))
    if what == "read":
        print(sys.stdin.read().upper(), end="", flush=True)
    if what == "slowly":
        unlimited()
        bytearray(2**29)
        time.sleep(float(arguments[1]))
    if what in ("abort", "sleep"):
        with atomic_write(Path(arguments[1])) as stream:
            stream.write(b"half")
            stage("writing")
            if what == "abort":
                os.write(2, b"lib.h:12: int f(): Assertion 'a < b' failed.\n")
                os.abort()
            print("writing", flush=True)
            time.sleep(60)

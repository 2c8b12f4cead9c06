"""Ctrl-C and SIGTERM end a command also while ONNX Runtime or PyTorch computes.

Python calls its handlers between two of its own instructions, and one run of a long sequence, or of a file
whose loop never ends, is a single one.  So a thread watches for the signals as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from ..files import discard_unfinished

INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM
GRACE = 2.0
"""Seconds for a command to end by itself, which it does where Python comes to turn."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGTERM leaves as Ctrl-C does; and the process ends `GRACE` seconds after either if it has not by then.

    Output that is half written is taken away.  Outside of the main thread nothing is changed, and on Windows
    nobody watches, so that a command ends where Python comes to turn.
    """
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    except ValueError:  # only a main thread may; an embedding program keeps its own
        yield
        return
    try:
        with _watched() if os.name == "posix" else contextlib.nullcontext():
            yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    ended = threading.Event()
    threading.Thread(target=_watch, args=(reading, ended), name="lstm-onnx signals", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(writing)


def _watch(reading: int, ended: threading.Event) -> None:
    """End the process where a signal should have."""
    codes: dict[int, int] = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
    while told := os.read(reading, 1):  # nothing, once the other end is closed
        code = codes.get(told[0])
        if code is not None and not ended.wait(GRACE):
            discard_unfinished()
            os.write(2, b"lstm-onnx: interrupted\n")
            os._exit(code)
    os.close(reading)

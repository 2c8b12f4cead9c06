"""Ctrl-C, SIGTERM and SIGHUP end a command wherever it is, with their own exit code and no traceback.

Python calls its handlers between two of its own instructions, and one run of a long sequence, or of a file
whose loop never ends, is a single one.  So a thread watches for the signals as well.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # see `lstm_onnx`
if TYPE_CHECKING:
    import threading
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130
TERMINATED = 143
CODES = {
    int(number): 128 + int(number)
    for number in (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
    if number is not None
}
"""Exit codes by the signal's number, as shells have them."""
GRACE = 2.0
"""Seconds for a command to end by itself, which it does where Python comes to turn."""


class Interrupts:
    """What signals do to a command.

    While it runs the first one raises KeyboardInterrupt, so that files and folders are cleaned up on the way
    out.  In a process of its own a second one ends it, and so does the first one before and after it runs, and
    in the middle of an import, where an exception can end up in C++ that ends the process with its own code.
    Within another program, where this is a context manager, that gets its signals back at the end.

    Attributes:
        owns_process: whether the process does nothing but run the command.
        raising: whether it runs.
        code: the exit code of the first signal, None before one has come.
        told: whether it was said on stderr.
    """

    def __init__(self, *, owns_process: bool = False) -> None:
        self.owns_process = owns_process
        self.code: int | None = None
        self.told = False
        self.raising = False
        self._before: dict[int, object] = {}
        self._watching: tuple[int, int, threading.Event] | None = None

    def install(self) -> None:
        """Handle the signals that nobody else handles, and that the shell has not said to ignore.

        Outside of the main thread nothing is changed: only a main thread may.
        """
        try:
            for number in CODES:
                before = signal.getsignal(number)
                if before in (signal.SIG_DFL, signal.default_int_handler):
                    signal.signal(number, self._handle)
                    self._before[number] = before
        except ValueError:
            return
        if self.owns_process:
            self._silence()

    def restore(self) -> None:
        """Give the signals back to who had them."""
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, before)  # type: ignore[arg-type]

    def __enter__(self) -> Interrupts:
        """Handle the signals."""
        self.install()
        self.watch()
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        self.unwatch()
        self.restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.code is not None
        self.code = self.code or CODES[number]
        if self.owns_process and (again or not self.raising or _is_importing(frame)):
            leave(self.code, told=self.told)
        raise KeyboardInterrupt

    def _silence(self) -> None:
        """No traceback out of a destructor that a signal has ended, and none when Python takes itself apart."""
        import atexit

        unraisable = sys.unraisablehook

        def raised(found: sys.UnraisableHookArgs) -> None:
            if self.code is None:
                unraisable(found)

        sys.unraisablehook = raised

        def finished() -> None:
            # The result is out.
            for number in self._before:
                signal.signal(number, signal.SIG_IGN)

        atexit.register(finished)

    def watch(self) -> None:
        """End the process `GRACE` seconds after a signal if it has not ended by then; not on Windows."""
        if not self._before or os.name != "posix":
            return
        import threading

        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        ended = threading.Event()
        numbers = frozenset(self._before)
        watcher = threading.Thread(target=_watch, args=(reading, numbers, ended), name="lstm-onnx signals", daemon=True)
        try:
            watcher.start()
        except RuntimeError:  # no more threads may be started
            os.close(reading)
            os.close(writing)
            return
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._watching = writing, before, ended

    def unwatch(self) -> None:
        """The end of `watch`."""
        if self._watching is not None:
            writing, before, ended = self._watching
            self._watching = None
            ended.set()
            signal.set_wakeup_fd(before)
            os.close(writing)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib."):
            return True
        frame = frame.f_back
    return False


def leave(code: int, *, told: bool = False) -> NoReturn:
    """End the process at once; what is half written is taken away.

    Args:
        code: its exit code.
        told: whether it has been said that it was interrupted.
    """
    files = sys.modules.get(f"{__package__.rpartition('.')[0]}.files")  # without it, nothing was written
    try:
        if files is not None:
            files.discard_unfinished()
        if not told:
            os.write(2, b"lstm-onnx: interrupted\n")
    finally:
        os._exit(code)


def _watch(reading: int, numbers: frozenset[int], ended: threading.Event) -> None:
    """End the process where a signal should have."""
    while told := os.read(reading, 1):  # nothing, once the other end is closed
        if told[0] in numbers and not ended.wait(GRACE):
            leave(CODES[told[0]])
    os.close(reading)

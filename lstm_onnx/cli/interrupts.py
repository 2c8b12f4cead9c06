"""Lets Ctrl-C, SIGTERM and SIGHUP end a command at any point, each with its own exit code and without a traceback.

Python calls signal handlers between bytecode instructions, but a run of a long sequence, or of a file whose loop
never ends, is one instruction.  So a thread watches for signals, too.
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
CODES = {
    int(number): 128 + int(number)
    for number in (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
    if number is not None
}
"""Exit codes by signal number, as in shells."""
GRACE = 2.0
"""Seconds for a command to end by itself before the watching thread ends the process."""


class Interrupts:
    """The signal handling of a command.

    While the command runs, the first signal raises KeyboardInterrupt, so that files and folders are cleaned up.  If
    the process does nothing else, a second signal ends it at once, as does a signal before or after the command, or
    during an import, where an exception could reach C++ code that aborts the process.  Within another program this is a
    context manager, which restores the program's handlers at its end.

    Attributes:
        owns_process: whether the process does nothing but run the command.
        raising: whether a signal raises KeyboardInterrupt, as it does while the command runs.
        code: the exit code of the first signal; None if there was none.
        reported: whether the interruption was printed to stderr.
    """

    def __init__(self, *, owns_process: bool = False) -> None:
        self.owns_process = owns_process
        self.code: int | None = None
        self.reported = False
        self.raising = False
        self._before: dict[int, object] = {}
        self._watching: tuple[int, int, threading.Event] | None = None

    def install(self) -> None:
        """Handle the signals that have their default handlers and are not ignored.

        Outside the main thread this does nothing, since only the main thread may set handlers.
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
        """Restore the previous handlers."""
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, before)  # type: ignore[arg-type]

    def __enter__(self) -> Interrupts:
        """Handle the signals."""
        self.install()
        self.watch()
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous handlers."""
        self.unwatch()
        self.restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.code is not None
        self.code = self.code or CODES[number]
        if self.owns_process and (again or not self.raising or _is_importing(frame)):
            leave(self.code, reported=self.reported)
        raise KeyboardInterrupt

    def _silence(self) -> None:
        """Print no traceback from a destructor that a signal interrupted, or during the interpreter's shutdown."""
        import atexit

        unraisable = sys.unraisablehook

        def print_unraisable(event: sys.UnraisableHookArgs) -> None:
            if self.code is None:
                unraisable(event)

        sys.unraisablehook = print_unraisable

        def ignore_signals() -> None:
            # The result is printed.
            for number in self._before:
                signal.signal(number, signal.SIG_IGN)

        atexit.register(ignore_signals)

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
        """Stop the thread that `watch` started."""
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


def leave(code: int, *, reported: bool = False) -> NoReturn:
    """Remove unfinished files, and end the process at once.

    Args:
        code: its exit code.
        reported: whether the interruption was already printed.
    """
    atomic_io = sys.modules.get(f"{__package__.rpartition('.')[0]}.atomic_io")  # if not imported, nothing was written
    try:
        if atomic_io is not None:
            atomic_io.discard_unfinished()
        if not reported:
            os.write(2, b"lstm-onnx: interrupted\n")
    finally:
        os._exit(code)


def _watch(reading: int, numbers: frozenset[int], ended: threading.Event) -> None:
    """End the process if a signal has not ended it in time."""
    while signaled := os.read(reading, 1):  # empty once the other end is closed
        if signaled[0] in numbers and not ended.wait(GRACE):
            leave(CODES[signaled[0]])
    os.close(reading)

"""The parent's side: starts a child process, sends it requests, monitors it, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any, Generic, Self, TypeVar

from .. import errors
from .limits import Limits, how_it_ended

Answer = TypeVar("Answer")
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lstm_onnx.isolation.child import serve; serve(int(sys.argv[2]))"
)
_KEPT = 8192
"""How many of the last bytes of its stderr are kept."""
_PATIENCE = 1.0
"""The most seconds to read the remaining output of a process that has ended."""
_POLL = 0.5
"""Seconds between checks for Ctrl-C on Windows."""


class EndedError(Exception):
    """The child ended, or was ended, before its work was done.

    Attributes:
        how: how it ended, such as ``ended the process (SIGSEGV)``.
        stage: the stage of the work in which it ended.
        shared: the partial results that it had sent.
    """

    def __init__(self, how: str, stage: str, shared: list[Any], last_words: str = "") -> None:
        super().__init__(f"{how} in {stage}{f': {last_words}' if last_words else ''}")
        self.how = how
        self.stage = stage
        self.shared = shared


class AnsweringProcess(Generic[Answer]):
    """A process, whose answers and stderr are read in threads; the class derived from it starts and asks it.

    It ends when this object is closed.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._stderr = bytearray()
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """For ``with``."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            kill(process)
            for reader in self._readers:
                reader.join(_PATIENCE)

    @property
    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _read(self, process: Any, read: Callable[[IO[bytes], queue.SimpleQueue[Answer | None]], None]) -> None:
        """Read a new process's output: `read` puts its answers into a queue, and None at the end."""
        self._process = process
        self._answers, self._stderr = queue.SimpleQueue(), bytearray()
        self._readers = [
            in_thread(read, process.stdout, self._answers),
            in_thread(drain, process.stderr, self._stderr),
        ]

    def _end(self) -> tuple[str, str]:
        """How the process ended, whose answers have ended, and its last words."""
        how = how_it_ended(ended(self._process, _PATIENCE))
        self.close()
        return how, last_words(bytes(self._stderr))


class Child(AnsweringProcess[bytes]):
    """A new interpreter that calls functions, one after another; if it ends, the next call starts another one.

    It ends when this object is closed, and when this process ends.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ready = False

    def call(self, function: str, arguments: Mapping[str, Any], limits: Limits | None = None) -> Any:
        """Call a function in the child process.

        Args:
            function: ``module:name``.
            arguments: the arguments by name; they and the result must be JSON-ready.
            limits: limits on time and memory.

        Returns:
            What the function returns.

        Raises:
            EndedError: the process ended, or exceeded a limit and was ended.
            LSTMOnnxError: the function raised this error.
            RuntimeError: the function raised something else.
        """
        limits = limits or Limits()
        question = {
            "function": function,
            "arguments": dict(arguments),
            "folder": _folder(),
            "memory": limits.memory,
            "seconds": limits.total,
        }
        try:
            self._ask(question)
            return self._answered(limits)
        except BaseException:
            # After an error that the process reported itself, it is ready for the next call; otherwise it is ended.
            if not self._ready:
                self.close()
            raise

    def _ask(self, question: Mapping[str, Any]) -> None:
        self._ready = False
        if not self._is_running:
            self.close()
            self._read(started(subprocess.PIPE, subprocess.PIPE, subprocess.PIPE), lines)
        process: Any = self._process
        with contextlib.suppress(OSError):  # it has ended, which reading the answer will find
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()

    def _answered(self, limits: Limits) -> Any:
        clock, stage, shared = Clock(limits), "starting", list[Any]()
        while (message := next_message(self._answers, clock)) is not None:
            if "stage" in message:
                stage = message["stage"]
                clock.enter(stage)
            elif "shared" in message:
                shared.append(message["shared"])
            elif "log" in message:
                import logging

                logging.getLogger("lstm_onnx").log(message["log"][0], "%s", message["log"][1])
            elif "failed" in message:
                self.close()
                raise EndedError(message["failed"], stage, shared)
            else:
                self._ready = True
                return _result(message, stage, shared, limits)
        how, said = self._end()
        raise EndedError(how, stage, shared, said)


class Clock:
    """The time `end` at which the child exceeds its limit, and the seconds that are `allowed`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._last: float | None = None
        self.allowed = limits.start
        self.end = time.monotonic() + limits.start

    def enter(self, stage: str) -> None:
        """Start the time limit of a new stage."""
        if stage == "starting":
            return
        now = time.monotonic()
        self._last = self._last or now + self._limits.total
        self.end = min(now + self._limits.stage, self._last)
        self.allowed = self._limits.stage if self.end < self._last else self._limits.total

    def stop(self) -> None:
        """Lift the limit."""
        self.end = float("inf")


def next_message(answers: queue.SimpleQueue[bytes | None], clock: Clock) -> dict[str, Any] | None:
    """The child's next message, or a failure if it is late or its message is malformed; None if it has ended."""
    while True:
        left = clock.end - time.monotonic()
        try:
            line = answers.get(timeout=max(0.0, min(left, _POLL)))
        except queue.Empty:
            if left <= _POLL:
                return {"failed": f"took longer than {clock.allowed:.3g} s"}
            continue
        if line is None or not line.endswith(b"\n"):  # it ended, perhaps in the middle of a line
            return None
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError):
            return {"failed": "gave an answer that cannot be read"}


def in_thread(function: Callable[..., object], *arguments: object) -> threading.Thread:
    """Start a daemon thread that calls a function."""
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and close its stdin."""
    process.kill()
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):  # flushing what it has not read fails
            process.stdin.close()


def ended(process: Any, seconds: float) -> int:
    """The return code of a process whose output has ended; it is killed if it does not exit in time."""
    try:
        return int(process.wait(seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        return int(process.wait())


def started(
    stdin: int | None, stdout: int | None, stderr: int | None, boot: str = _BOOT, *more: str, **options: Any
) -> Any:
    """Start a new interpreter with this one's import path, without the current folder.

    Raises:
        LSTMOnnxError: it cannot be started.
    """
    if not sys.executable:
        raise errors.LSTMOnnxError("a child process cannot be started: this Python does not know its own program")
    if getattr(sys, "frozen", False):  # PyInstaller and the like: sys.executable is the program, which would start anew
        raise errors.LSTMOnnxError(
            "a child process cannot be started: this program is frozen into one file, which is no Python interpreter",
            hint="open the files in a Python environment, or leave out trial=True for files that you trust",
        )
    isolated = ["-I"] if sys.flags.isolated else ["-E"] if sys.flags.ignore_environment else []
    places = json.dumps([place for place in sys.path if isinstance(place, str)])  # import skips all others
    command = [sys.executable, *isolated, "-P", "-c", boot, places, str(os.getpid()), *more]
    try:
        return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, **options)  # noqa: S603
    except OSError as error:
        raise errors.LSTMOnnxError(f"a child process cannot be started: {error.strerror or error}") from error


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - without pathlib
    except OSError:
        return None


def _result(message: Mapping[str, Any], stage: str, shared: list[Any], limits: Limits) -> Any:
    if "result" in message:
        return message["result"]
    if "memory" in message:
        raise EndedError(f"ran out of the {limits.memory / 2**30:.3g} GiB of memory that it may take", stage, shared)
    if "error" in message:
        name, text, data = message["error"]
        raise getattr(errors, name, errors.LSTMOnnxError)(text, **data)
    error = RuntimeError(message["bug"])
    error.add_note(f"In the child process:\n{message['traceback']}")
    raise error


def lines(stream: IO[bytes], answers: queue.SimpleQueue[bytes | None]) -> None:
    """Put each line into the queue, and None at the end."""
    with stream:
        for line in stream:
            answers.put(line)
    answers.put(None)


def drain(stream: IO[bytes], said: bytearray) -> None:
    """Read the stream to its end, and keep its last bytes in `said`."""
    with stream:
        while chunk := os.read(stream.fileno(), 4096):
            said += chunk
            del said[:-_KEPT]


def last_words(said: bytes) -> str:
    """What a C++ library printed when it crashed the process, on one line and without the source location."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        return ""
    _, found, assertion = lines[-1].rpartition("Assertion ")
    text = found + assertion
    return text if len(text) <= 300 else f"{text[:300]} ..."

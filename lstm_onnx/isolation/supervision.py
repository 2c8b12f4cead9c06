"""Runs a whole command in a child process with this process's input and output, on POSIX systems."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import IO, Any

from . import stages
from .limits import Limits, die_with, how_it_ended, limit, without_core
from .process import Clock, EndedError, drain, ended, in_thread, last_words, lines, next_message, started

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lstm_onnx.isolation.supervision import work; work(*sys.argv[2:])"
)
_EXIT = 60.0
"""The most seconds for a child to exit after its work."""
_GRACE = 1.5
"""The most seconds for an interrupted child to remove incomplete files."""


def supervised(function: str, arguments: Mapping[str, Any], limits: Limits, *, stdout: Any = None) -> int:
    """Call ``module:name`` in a child process, and return its exit code.

    The limits apply until the child calls `unlimited`.  A file that it was writing when it ended is removed.  Its
    output goes to `stdout`, by default `sys.stdout`.

    Raises:
        EndedError: a signal ended the child, or it exceeded a limit and was ended.
        LSTMOnnxError: the child cannot be started.
    """
    stdout = sys.stdout if stdout is None else stdout
    for stream in (stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    reading, writing = _pipe()
    hearing, saying = _pipe()
    out, err = _inherited(stdout, 1), _inherited(sys.stderr, 2)
    question = json.dumps({"function": function, "arguments": dict(arguments), "memory": limits.memory})
    try:
        process = started(None, out, err, _BOOT, str(writing), str(saying), question, pass_fds=(writing, saying))
    except BaseException:
        os.close(reading)
        os.close(hearing)
        raise
    finally:
        os.close(writing)
        os.close(saying)
    said, answers = bytearray(), queue.SimpleQueue[bytes | None]()
    relays = [in_thread(drain, os.fdopen(hearing, "rb"), said), in_thread(lines, os.fdopen(reading, "rb"), answers)]
    for source, target in ((process.stdout, stdout), (process.stderr, sys.stderr)):
        if source is not None:
            relays.append(in_thread(_relay, source, target))
    unfinished: list[str] = []
    try:
        how, stage = _watched(process, answers, limits, unfinished)
        code = ended(process, _EXIT)
    finally:
        _end(process)
        for relay in relays:
            relay.join()
        _remove(unfinished, answers)
    if how or code < 0:
        raise EndedError(how or how_it_ended(code), stage, [], "" if how else last_words(bytes(said)))
    return int(code)


def _watched(
    process: Any, answers: queue.SimpleQueue[bytes | None], limits: Limits, unfinished: list[str]
) -> tuple[str, str]:
    """Wait until the process ends; return which limit it exceeded, if any, and its last stage."""
    clock, stage = Clock(limits), "starting"
    while (message := next_message(answers, clock)) is not None:
        if "stage" in message:
            stage = message["stage"]
            clock.enter(stage)
        elif "unlimited" in message:
            stage = "the run"
            clock.stop()
        elif "shared" in message:
            unfinished.append(message["shared"].get("unfinished", ""))
        elif "failed" in message:
            process.kill()
            return message["failed"], stage
    return "", stage


def _end(process: Any) -> None:
    """End the process if it still runs since this one was interrupted."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        process.kill()
        process.wait()


def _remove(unfinished: list[str], answers: queue.SimpleQueue[bytes | None]) -> None:
    """Remove incomplete files, including those whose message was not read before an interrupt."""
    while not answers.empty():
        message = next_message(answers, Clock(Limits())) or {}
        unfinished.append(message.get("shared", {}).get("unfinished", ""))
    for path in filter(None, unfinished):
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108


def _pipe() -> tuple[int, int]:
    """A pipe whose file descriptors are not 0, 1 or 2, even if one of these was closed."""
    import fcntl

    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


def _inherited(stream: Any, number: int) -> int | None:
    """None if the child can inherit the stream; a pipe if Python code receives the output."""
    if stream is None:
        return None
    try:
        return None if stream.fileno() == number else subprocess.PIPE
    except (AttributeError, OSError, ValueError):
        return subprocess.PIPE


def _relay(source: IO[bytes], target: Any) -> None:
    with source:
        while chunk := os.read(source.fileno(), 2**16):
            if hasattr(target, "buffer"):
                target.buffer.write(chunk)
                target.buffer.flush()
            else:
                target.write(chunk.decode(errors="replace"))


def work(parent: str, channel: str, saying: str, question: str) -> None:
    """The child's side."""
    die_with(int(parent))
    without_core()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets a terminal's Ctrl-C as well, and ends the child
    _keep_libraries_off_stderr(int(saying))
    stages.send_to(os.fdopen(int(channel), "w", encoding="utf-8"))
    asked = json.loads(question)
    from .child import resolved

    function = resolved(asked["function"])
    limit(asked["memory"], None)
    stages.stage("reading the file")
    function(**asked["arguments"])


def _keep_libraries_off_stderr(saying: int) -> None:
    """Send the stderr of C++ libraries to the parent; Python still writes to the original stderr."""
    if sys.stderr is not None:
        own = sys.stderr
        sys.stderr = os.fdopen(os.dup(2), "w", 1, encoding=own.encoding, errors="backslashreplace")
    os.dup2(saying, 2)
    os.close(saying)

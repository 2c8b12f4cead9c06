"""Starts the process in which an engine opens and runs files, and sends it requests.

An engine can crash or hang its process, and some clash with PyTorch's libraries; so each has a process of its own,
which is started again after it has ended.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Self

import numpy as np

from ...errors import MissingDependencyError, ModelError, RunError
from ...isolation.process import AnsweringProcess
from .child import read_message, write_message

Message = tuple[dict[str, Any], dict[str, np.ndarray]]
_START, _ANSWER = 120.0, 300.0
"""The most seconds until an engine has started, and until it has opened or run a file."""


class EngineProcess(AnsweringProcess[Message]):
    """One engine, in a process that is started when it is first needed.

    Attributes:
        title: the engine's name in messages.
        version: its version; "" before it has started.
        fixes_sizes: whether it can open a file with fixed sizes of axes, as it does if it cannot open it otherwise.
    """

    def __init__(
        self, title: str, start: Callable[[], subprocess.Popen[bytes]], install: str, *, fixes_sizes: bool = False
    ) -> None:
        """`start` starts the process; `install` says how to install the engine."""
        super().__init__()
        self.title = title
        self.fixes_sizes = fixes_sizes
        self.version = ""
        self._start_process = start
        self._install = install
        self._started = 0
        self._lock = threading.Lock()
        self.unused: list[int] = []
        """Files that are no longer used, which the process closes at the next request."""

    def __enter__(self) -> Self:
        """For ``with``: it is started."""
        with self._lock:
            self._running()
        return self

    def open(self, number: int, path: str, outputs: Sequence[str], *, fixed: bool = False) -> int:
        """Open a file under a number that the caller chooses; `outputs` and `fixed` as in `child.Adapter`.

        Returns:
            How often the process had been started, since a file must be opened again after each start.

        Raises:
            ModelError: the engine cannot open the file, or its process ended.
        """
        with self._lock:
            fields = {"file": number, "path": os.path.realpath(path), "outputs": list(outputs), "fixed": fixed}
            answer = self._ask(fields, {})
            if isinstance(answer, str):
                raise ModelError(f"{self.title} cannot open it: {answer}", path=path, name=answer)
            return self._started

    def run(self, number: int, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a file that is open.

        Raises:
            RunError: the engine failed, or its process ended.
        """
        for name, array in feeds.items():
            if array.dtype.kind not in "fiub":
                raise RunError(f"{name} is {array.dtype}, which cannot be passed to {self.title}")
        with self._lock:
            answer = self._ask({"file": number}, feeds)
        if isinstance(answer, str):
            raise RunError(f"{self.title} failed while running: {answer}")
        return answer[1]

    @property
    def started(self) -> int:
        """How often the process was started, counting the start that the next request will make if it has ended."""
        return self._started if self._is_running else self._started + 1

    def _ask(self, fields: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Message | str:
        """Send a request; return the answer, or a text that says what went wrong."""
        self._running()
        forget = self.unused[:]
        del self.unused[: len(forget)]
        process: Any = self._process
        with contextlib.suppress(OSError):  # it has ended, which reading the answer will find
            write_message(process.stdin, {**fields, "forget": forget}, arrays)
        answer = self._answer(_ANSWER)
        return str(answer[0]["error"]) if not isinstance(answer, str) and "error" in answer[0] else answer

    def _running(self) -> None:
        """Start the process if it does not run."""
        if self._is_running:
            return
        self.close()
        self._read(self._start_process(), _read)
        self._started += 1
        answer = self._answer(_START)
        if isinstance(answer, str) or "error" in answer[0]:
            said = answer if isinstance(answer, str) else answer[0]["error"]
            self.close()
            raise MissingDependencyError(f"{self.title} cannot be started ({said})", hint=self._install)
        self.version = str(answer[0]["version"])

    def _answer(self, seconds: float) -> Message | str:
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.close()
            return f"it took longer than {seconds:g} s"
        if answer is not None:
            return answer
        how, said = self._end()
        return f"it {how}{f': {said}' if said else ''}"


def _read(stream: IO[bytes], answers: queue.SimpleQueue[Message | None]) -> None:
    """Put each message into the queue, and None at the end."""
    with stream, contextlib.suppress(ValueError, KeyError, TypeError, OSError):
        while (message := read_message(stream)) is not None:
            answers.put(message)
    answers.put(None)

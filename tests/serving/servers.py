"""`lstm-onnx serve` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONG = 30
"""Seconds for which nothing here ever has to wait."""


@dataclass
class Server:
    """A running server.

    Attributes:
        http: its URL.
        grpc: where its gRPC is.
        process: the process.
    """

    http: str
    grpc: str | None
    process: subprocess.Popen[str]
    log: Path

    @property
    def address(self) -> str:
        return self.http.partition("://")[2]

    @property
    def port(self) -> int:
        return int(self.http.rpartition(":")[2])

    def events(self) -> list[dict[str, Any]]:
        """What it logged."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LONG)


def command(files: Sequence[object], *options: str) -> list[str]:
    arguments = ["serve", *map(str, files), "--port", "0", "--grpc-port", "0", "--provider", "cpu", "--threads", "1"]
    return [sys.executable, "-m", "lstm_onnx", *arguments, "--json", "--json-logs", *options]


@contextlib.contextmanager
def serving(files: Sequence[object], *options: str, longest: float | None = 280) -> Iterator[Server]:
    """A server of these files until the end of the block, which must end well, unless it was ended there.

    After `longest` seconds it is killed, so that no test waits for ever; None is for one that serves many tests.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w", encoding="utf-8") as stderr:
            process = subprocess.Popen(
                command(files, *options),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": ""},  # with it, a line that is not flushed would come as well
            )
        killer = threading.Timer(threading.TIMEOUT_MAX if longest is None else longest, process.kill)
        killer.daemon = True
        killer.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text(encoding="utf-8")
            found = json.loads(line)
            server = Server(found["http"], found["grpc"], process, log)
            yield server
            if process.poll() is None:
                assert server.stop() == 0, log.read_text(encoding="utf-8")
            bugs = [event for event in server.events() if "Traceback" in str(event.get("error", ""))]
            assert not bugs, bugs
        finally:
            killer.cancel()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

"""Children of `lstm_onnx.isolation` that need no second for their start: forks of a process that has imported it all.

What is tried is everything but the start of the interpreter: the limits, the pipes, the stages, how a child's end is
told.  ``python -m tests.fuzz.forking FD`` serves requests on a socket; `Forks` is the other end of it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import IO, Any

IMPORTED = ("lstm_onnx.check.examine", "lstm_onnx.inspect.file", "lstm_onnx.cli.main", "lstm_onnx.runtime.trial",
            "lstm_onnx.data", "lstm_onnx.isolation.child", "onnxruntime")  # fmt: skip


class Forked:
    """What `subprocess.Popen` is for a started program, of a fork."""

    def __init__(self, pid: int, status: IO[bytes], pipes: list[IO[bytes] | None]) -> None:
        self.pid = pid
        self._status = status
        self.stdin, self.stdout, self.stderr = pipes
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.wait(0.0, quiet=True)

    def wait(self, timeout: float | None = None, *, quiet: bool = False) -> int | None:
        import select

        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                if quiet:
                    return None
                raise subprocess.TimeoutExpired("a fork", timeout or 0)
            line = self._status.readline()
            self.returncode = int(line) if line else -signal.SIGKILL
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """Makes forks; stands for `lstm_onnx.isolation.process.started`."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[2],
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
            )
        self._socket.recv(1)  # it is ready

    def close(self) -> None:
        self._socket.close()
        self._process.wait()

    def started(
        self, stdin: int | None, stdout: int | None, stderr: int | None, boot: str = "", *more: str, pass_fds: Any = ()
    ) -> Forked:
        from lstm_onnx.isolation import process

        own: list[IO[bytes] | None] = []
        given: list[int] = []
        opened: list[int] = []
        for number, what in enumerate((stdin, stdout, stderr)):
            if what == subprocess.PIPE:
                reading, writing = os.pipe()
                mine, theirs = (writing, reading) if number == 0 else (reading, writing)
                own.append(os.fdopen(mine, "wb" if number == 0 else "rb"))
                opened.append(theirs)
                given.append(theirs)
            else:
                own.append(None)
                place = os.open(os.devnull, os.O_RDWR)
                opened.append(place)
                given.append(place)
        status, told = os.pipe()
        opened.append(told)
        asked = {"boot": boot or process._BOOT, "path": sys.path, "more": more, "folder": str(Path.cwd()),
                 "numbers": [0, 1, 2, *pass_fds]}  # fmt: skip
        socket.send_fds(self._socket, [json.dumps(asked).encode()], [told, *given, *pass_fds])
        for number in opened:
            os.close(number)
        stream = os.fdopen(status, "rb", buffering=0)
        pid = int(stream.readline())
        return Forked(pid, stream, own)


def _serve(number: int) -> None:
    import importlib

    for name in IMPORTED:
        importlib.import_module(name)
    _warm()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
    asking = socket.socket(fileno=number)
    asking.send(b".")
    while True:
        message, held, *_ = socket.recv_fds(asking, 2**20, 16)
        if not message:
            return
        if os.fork() == 0:
            asking.close()
            _watch(json.loads(message), held)
        for each in held:
            os.close(each)


def _warm() -> None:
    """What every child would ask for the first time, and without a session, which has threads."""
    import gc

    import onnx

    from lstm_onnx.runtime.providers import cuda_unavailable, operator_versions, ort_errors

    operator_versions()
    ort_errors()
    cuda_unavailable()
    empty = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    onnx.shape_inference.infer_shapes(empty)
    gc.freeze()


def _watch(asked: dict[str, Any], held: list[int]) -> None:
    """Fork once more, and tell how that one ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    told, *given = held
    watcher = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _run(asked, given, watcher)
    for each in given:
        os.close(each)
    os.write(told, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(told, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _run(asked: dict[str, Any], given: list[int], parent: int) -> None:
    """As a fresh interpreter would."""
    code = 1
    try:
        moved = [os.dup2(each, 200 + index) for index, each in enumerate(given)]
        for each in given:
            os.close(each)
        for each, number in zip(moved, asked["numbers"], strict=True):
            os.dup2(each, number)
            os.set_inheritable(number, True)
            os.close(each)
        os.chdir(asked["folder"])
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", line_buffering=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", line_buffering=True)
        sys.argv = ["-c", json.dumps(asked["path"]), str(parent), *asked["more"]]
        try:
            exec(asked["boot"], {})  # noqa: S102 - our own
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        except BaseException:  # noqa: BLE001 - an interpreter would print it, and end
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
    time.sleep(0)

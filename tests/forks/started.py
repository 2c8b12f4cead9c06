"""A server of forks, and the folder whose ``python`` and ``lstm-onnx`` ask it for one."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@contextlib.contextmanager
def programs(common: Path) -> Iterator[Path | None]:
    """A folder to put first on PATH; None where the system can't do this.

    Args:
        common: a folder whose users share one server, which ends with the last of them.
    """
    if sys.platform != "linux":  # it needs os.pidfd_open, and a fork that is safe with these libraries
        yield None
        return
    import fcntl

    with contextlib.ExitStack() as left:
        with open(common / "forks.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            users, place = common / "forks.users", common / "forks.folder"  # a pipe that users hold open; the programs
            try:
                user = os.open(users, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # there is no server that reads
                folder = left.enter_context(tempfile.TemporaryDirectory())  # a short path: a socket's has 107 bytes
                server, user = _server(Path(folder), users)
                left.callback(server.wait)
                left.callback(os.close, user)
                until = time.monotonic() + 120
                while not (Path(folder) / "socket").exists():
                    assert server.poll() is None, "the server of forks could not start"
                    assert time.monotonic() < until, "the server of forks does not start"
                    time.sleep(0.02)
                place.write_text(folder, encoding="utf-8")
            else:
                left.callback(os.close, user)
            made = Path(place.read_text(encoding="utf-8"))
        yield made


def common_folder(config: pytest.Config, factory: pytest.TempPathFactory) -> Path:
    """The folder for temporary files of all workers of a run, and of no other run."""
    base = factory.getbasetemp()
    return base.parent if hasattr(config, "workerinput") else base


def _server(folder: Path, users: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A new server, and what it ends without: the end for writing of the pipe that is its stdin."""
    address = folder / "socket"
    for name in ("python", "lstm-onnx"):
        words = [sys.executable, "-IS", str(FOLDER / "program.py"), str(address), sys.executable, name]
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        (folder / name).chmod(0o755)
    users.unlink(missing_ok=True)
    os.mkfifo(users)
    stdin = os.open(users, os.O_RDONLY | os.O_NONBLOCK)
    user = os.open(users, os.O_WRONLY)
    server = subprocess.Popen(
        [sys.executable, "-W", "error", str(FOLDER / "server.py"), str(address)],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    os.close(stdin)
    return server, user

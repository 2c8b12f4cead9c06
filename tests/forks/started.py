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

FOLDER = Path(__file__).parent


@contextlib.contextmanager
def programs() -> Iterator[Path | None]:
    """A folder to put first on PATH; None where the system can't do this."""
    if sys.platform != "linux":  # it needs os.pidfd_open, and a fork that is safe with these libraries
        yield None
        return
    with tempfile.TemporaryDirectory() as made:  # a short path: that of a socket has at most 107 bytes
        folder = Path(made)
        address = folder / "socket"
        for name in ("python", "lstm-onnx"):
            words = [sys.executable, "-IS", str(FOLDER / "program.py"), str(address), sys.executable, name]
            (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
            (folder / name).chmod(0o755)
        with subprocess.Popen(
            [sys.executable, "-W", "error", str(FOLDER / "server.py"), str(address)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        ) as server:
            try:
                until = time.monotonic() + 120
                while not address.exists():
                    assert server.poll() is None, "the server of forks could not start"
                    assert time.monotonic() < until, "the server of forks does not start"
                    time.sleep(0.02)
                yield folder
            finally:
                assert server.stdin is not None
                server.stdin.close()

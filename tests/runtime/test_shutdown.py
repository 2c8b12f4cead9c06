"""The end of the interpreter and forked children: nothing aborts, nothing waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lstm_onnx.spec import ExportOptions

from .models import exported

SETUP = """
import asyncio, atexit, os, signal, sys, threading, time
import numpy as np
import lstm_onnx
signal.signal(signal.SIGINT, signal.default_int_handler)  # the background job of a shell ignores it
model = lstm_onnx.load(sys.argv[1], "cpu")
x = np.ones((40, 4, 16), np.float32)
sequences = [x[: at % 30 + 1, 0] for at in range(400)]
step = x[:1, :1]
def daemon(work, count=2):
    for _ in range(count):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.2)
def forever(call):
    def work():
        while True:
            call()
    return work
"""
ENDS = {
    "a map that nobody goes through": ("g = model.map(iter(sequences)); next(g)", 0),
    "one in a cycle": ("g = model.map(iter(sequences)); next(g); d = {}; d['d'], d['g'] = d, g", 0),
    "one that was never begun": ("g = model.map(iter(sequences))", 0),
    "an exit within a map": ("for _ in model.map(iter(sequences)): sys.exit(3)", 3),
    "an error within a map": ("for _ in model.map(iter(sequences)): raise ValueError('x')", 1),
    "an interrupt within a map": ("for _ in model.map(iter(sequences)): os.kill(os.getpid(), signal.SIGINT)", 130),
    "a hard exit within a map": ("for _ in model.map(iter(sequences)): os._exit(4)", 4),
    "a map in a daemon thread": ("daemon(lambda: list(model.map(iter(sequences * 100))))", 0),
    "a map that ends in an exit handler": ("atexit.register(lambda: list(model.map(sequences[:9])))", 0),
    "runs in daemon threads": ("daemon(forever(lambda: model.run({'input': x})))", 0),
    "streams in daemon threads": ("daemon(lambda: forever(lambda s=model.stream(): s(step))())", 0),
    "loads in daemon threads": ("daemon(forever(lambda: lstm_onnx.load(sys.argv[1], 'cpu')))", 0),
    "a pool in a daemon thread": (
        "p = model.pool(4); s = [p.open() for _ in range(4)]\ndaemon(forever(lambda: p.step(s, x)))",
        0,
    ),
    "a batcher that is open": ("b = lstm_onnx.Batcher(model); s = b.open(); s.step(step)", 0),
    "a batcher whose requests wait": (
        "b = lstm_onnx.Batcher(model, window=9); s, t = b.open(), b.open(); p = [s.submit(step) for _ in range(9)]",
        0,
    ),
    "a batcher in daemon threads": (
        "b = lstm_onnx.Batcher(model)\ndef work():\n    s = b.open()\n    while True: s.step(step)\ndaemon(work)",
        0,
    ),
    "an exit within asyncio": (
        (
            "b = lstm_onnx.Batcher(model)\nasync def main():\n    s = b.open()\n"
            "    t = asyncio.create_task(s.astep(step)); await asyncio.sleep(0.001); sys.exit(5)\nasyncio.run(main())"
        ),
        5,
    ),
    "asyncio in a daemon thread": (
        (
            "b = lstm_onnx.Batcher(model)\nasync def main():\n    s = b.open()\n    while True: await s.astep(step)\n"
            "daemon(lambda: asyncio.run(main()), 1)"
        ),
        0,
    ),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("m") / "m.onnx"
    exported(path, options=ExportOptions(lengths=True), input_size=16, hidden_size=128)
    return path


def _ran(code: str, file: Path) -> subprocess.CompletedProcess[str]:
    script = SETUP + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, timeout=60)


@pytest.mark.sweep(9)
@pytest.mark.parametrize(("code", "status"), ENDS.values(), ids=ENDS)
def test_the_interpreter_ends_as_it_was_told_to(code: str, status: int, file: Path) -> None:
    for _ in range(2):
        ended = _ran(code, file)
        assert ended.returncode in (status, -2 if status == 130 else status), ended.stderr
        assert "terminate called" not in ended.stderr
        if status == 0:
            assert ended.stderr == ""


FORK = """
def in_child(call):
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        try:
            print(call(), flush=True)
        except lstm_onnx.RunError as error:
            print("RunError:", error, flush=True)
        os._exit(0)
    print("status", os.waitpid(pid, 0)[1])
"""
LOST = "RunError: .*spawn.*\n"
FORKS = {
    "a batcher": ("b = lstm_onnx.Batcher(model); s = b.open(); s.step(step)\nin_child(lambda: s.step(step))", LOST),
    "a batcher's new stream": ("b = lstm_onnx.Batcher(model)\nin_child(b.open)", LOST),
    "a step that was asked for": (
        "b = lstm_onnx.Batcher(model, window=9); s, t = b.open(), b.open(); p = s.submit(step)\nin_child(p.result)",
        LOST,
    ),
    "a batcher that is closed in the child": (
        "b = lstm_onnx.Batcher(model); s = b.open(); s.step(step)\nin_child(lambda: (s.close(), b.close(), b.waiting))",
        r"\(None, None, 0\)\n",
    ),
    "a map": (
        "g = model.map(iter(sequences * 99)); next(g)\nin_child(lambda: [next(g) for _ in sequences * 99])",
        LOST,
    ),
    "a map that is closed in the child": (
        "g = model.map(iter(sequences)); next(g)\nin_child(g.close)",
        "None\n",
    ),
    "runs, streams and new maps": (
        (
            "s = model.stream(); [s(step) for _ in range(4)]; whole = model.run({'input': x})['output'].sum()\n"
            "in_child(lambda: (model.run({'input': x})['output'].sum() == whole, s(step).shape,"
            " len(list(model.map(sequences)))))"
        ),
        r"\(np.True_, \(1, 1, 128\), 400\)\n",
    ),
    "a pool": (
        (
            "p = model.pool(4); s = [p.open() for _ in range(4)]; [p.step(s, x) for _ in range(4)]\n"
            "in_child(lambda: p.step(s, x).shape)"
        ),
        r"\(40, 4, 128\)\n",
    ),
    "a model with threads that is closed in the child": (
        "m = lstm_onnx.load(sys.argv[1], 'cpu', threads=3)\nin_child(m.close)",
        "None\n",
    ),
    "a model with threads that is freed in the child": (
        "m = [lstm_onnx.load(sys.argv[1], 'cpu', threads=3)]\nin_child(m.clear)",
        "None\n",
    ),
    "a child that ends as a program does, such as a server's worker": (
        "m = lstm_onnx.load(sys.argv[1], 'cpu', threads=3)\nos._exit = sys.exit\nin_child(m.warm_up)",
        "None\n",
    ),
    "a pool in the middle of a step": (
        "p = model.pool(4); s = [p.open() for _ in range(4)]; p._lock.acquire()\nin_child(lambda: p.step(s, x))",
        LOST,
    ),
}


@pytest.mark.sweep(3)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize(("code", "said"), FORKS.values(), ids=FORKS)
def test_a_forked_child_works_or_says_why_not_at_once(code: str, said: str, file: Path) -> None:
    import re

    ended = _ran(f"{FORK}\nimport warnings; warnings.simplefilter('ignore')\n{code}\nos._exit(0)", file)
    assert re.fullmatch(f"{said}status 0\n", ended.stdout), ended.stdout + ended.stderr


def test_the_same_exit_aborts_without_the_handler(file: Path) -> None:
    """That these tests are able to fail."""
    if sys.version_info >= (3, 14):
        pytest.skip("this Python lets daemon threads hang at its end")
    # The interpreter takes a while to go, so that a run ends meanwhile.
    code = """
        from lstm_onnx.runtime import shutdown
        atexit.unregister(shutdown._end)
        class Slow:
            def __del__(self, sleep=time.sleep):
                sleep(1)
        slow = Slow()
        daemon(forever(lambda: model.run({"input": x})))
    """
    # On a busy machine no run may end within that second.
    assert any(_ran(code, file).returncode == -signal.SIGABRT for _ in range(5))

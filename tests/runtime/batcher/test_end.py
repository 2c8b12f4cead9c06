"""How a batcher ends: closed, forgotten, or with the interpreter."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model
from lstm_onnx.runtime.batcher.batcher import Batcher
from lstm_onnx.runtime.pool.pool import Pool

from ..models import exported, model_of, randoms
from .callers import LONG, Asking, Gate, busy, until


def test_close_finishes_what_waits(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    callers = [busy(server, gate), *[Asking(server.open(), randoms(1, 1, 4)) for _ in range(6)]]
    until(lambda: len(server._scheduler.queue.overflow) == 2)
    closing = threading.Thread(target=server.close, daemon=True)
    closing.start()
    until(lambda: server._scheduler.closing)
    with pytest.raises(InputError, match="the batcher is closed"):
        callers[0].stream.step(randoms(1, 1, 4))
    with pytest.raises(InputError, match="the batcher is closed"):
        server.open()
    gate.open.set()
    closing.join(LONG)
    assert not server._scheduler.thread.is_alive()
    assert [caller.done().error for caller in callers] == [None] * 7
    assert len(server.pool) == 0
    server.close()


def test_close_without_what_waits(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    running = busy(server, gate)
    callers = [Asking(server.open(), randoms(1, 1, 4)) for _ in range(6)]
    until(lambda: len(server._scheduler.queue.overflow) == 2)
    threading.Timer(0.05, gate.open.set).start()
    server.close(drain=False)
    assert running.done().error is None
    for caller in callers:
        assert isinstance(caller.done().error, RunError)
        assert "closed before this step ran" in str(caller.error)


def test_a_pool_that_is_given_gets_its_slots_back(model: Model) -> None:
    own = Pool(model, slots=3)
    kept = own.open()
    with Batcher(own) as server:
        streams = [server.open(), server.open()]
        own.close(streams[0].slot)
        with pytest.raises(InputError, match="not an open slot"):
            streams[0].step(randoms(1, 1, 4))
        assert "2 streams open, 0 requests" in repr(server)
    assert len(own) == 1
    own.step([kept], randoms(1, 1, 4))


def test_a_batcher_that_nobody_holds_ends(tmp_path: Path) -> None:
    server = Batcher(model_of(tmp_path))
    thread = server._scheduler.thread
    server.open().step(randoms(1, 1, 4))
    del server
    gc.collect()
    thread.join(LONG)
    assert not thread.is_alive()


EXIT = """
import asyncio, sys, threading, time
import numpy as np
import lstm_onnx
from lstm_onnx.runtime.pool import bound_batches
from lstm_onnx.runtime.batcher.batcher import Batcher

how, path = sys.argv[1:]
bound_batches.PART_FLOPS = 1.0
server = Batcher(lstm_onnx.load(path, "cpu", threads=2 if how == "divided batches" else 1), queue=4)
long, short = np.zeros((30000, 1, 64), np.float32), np.zeros((1, 1, 64), np.float32)
streams = [server.open() for _ in range(8)]

def forever(stream, x):
    while True:
        stream.step(x)

async def tasks():
    while True:
        await asyncio.gather(*[stream.astep(x) for stream, x in zip(streams, [long, short] * 4)])

def ahead():
    while True:
        for pending in [stream.submit(x) for stream, x in zip(streams, [long, short] * 4)]:
            pending.result()

if how in ("threads", "divided batches"):
    acts = [lambda s=s, x=x: forever(s, x) for s, x in zip(streams, [long, short] * 4)]
elif how == "ahead":
    acts = [ahead]
elif how == "asyncio":
    acts = [lambda: asyncio.run(tasks())]
else:
    acts = []
for act in acts:
    threading.Thread(target=act, daemon=True).start()
if how == "drop":
    del server, streams
else:
    time.sleep(0.1)
print("end", flush=True)
"""


@pytest.mark.sweep(3)
@pytest.mark.parametrize("how", ["threads", "divided batches", "ahead", "asyncio", "idle", "drop"])
def test_the_interpreter_ends_with_work_in_flight(tmp_path: Path, how: str) -> None:
    exported(tmp_path / "m.onnx", input_size=64, hidden_size=64)
    done = subprocess.run(
        [sys.executable, "-c", EXIT, how, str(tmp_path / "m.onnx")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")

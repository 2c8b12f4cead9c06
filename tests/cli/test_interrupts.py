"""Signals end a command whatever computes, and nothing half written stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.cli.interrupts import Interrupts

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has neither SIGTERM nor a descriptor for signals")

LONG = 60
COMPUTING = """
import signal, sys, threading, time
import numpy as np
import lstm_onnx
from lstm_onnx.cli import interrupts
from lstm_onnx.files import atomic_write

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has ignored for what it runs beside
interrupts.GRACE = 0.1
model = lstm_onnx.load(sys.argv[1], "cpu")
main = threading.get_ident()

def tell():
    # Once the main thread has been in ONNX Runtime for a while.
    since = time.monotonic()
    while time.monotonic() - since < 0.2:
        time.sleep(0.01)
        if not sys._current_frames()[main].f_code.co_filename.endswith("onnxruntime_inference_collection.py"):
            since = time.monotonic()
    print("computing", flush=True)

threading.Thread(target=tell, daemon=True).start()
with interrupts.Interrupts(), atomic_write(sys.argv[2]) as stream:
    stream.write(b"half")
    stream.flush()
    model.run({"x": np.zeros(1, np.float32)})
"""
EMBEDDING = """
import contextlib, os, signal, time
from lstm_onnx.cli import interrupts

signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.GRACE = 0.1
for number in (signal.SIGINT, signal.SIGTERM):
    try:
        with interrupts.Interrupts() as found:
            os.kill(os.getpid(), number)
            time.sleep(60)
    except KeyboardInterrupt:
        print(found.code)
time.sleep(0.5)
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, signal.set_wakeup_fd(-1))
"""


def endless(path: Path) -> Path:
    """y = x + 1 + 1 ..., for ever."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Add", ["sum", "one"], ["more"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array(True), "true"), numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets)), path)
    return path


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_never_ends_is_ended(tmp_path: Path, number: signal.Signals, code: int) -> None:
    model, output = endless(tmp_path / "m.onnx"), tmp_path / "out.npz"
    output.write_bytes(b"before")
    with subprocess.Popen(
        [sys.executable, "-c", COMPUTING, model, output], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "computing\n"
            assert len(list(tmp_path.iterdir())) == 3
            process.send_signal(number)
            _, told = process.communicate(timeout=LONG)
        finally:
            process.kill()  # it would be waited for
    assert (process.returncode, told) == (code, "lstm-onnx: interrupted\n")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path != model} == {"out.npz": b"before"}


def test_what_ends_by_itself_is_left_alone() -> None:
    done = subprocess.run([sys.executable, "-c", EMBEDDING], capture_output=True, text=True, timeout=LONG, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "130\n143\nTrue -1\n", "")


def test_a_thread_of_an_embedding_program_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def embedded() -> None:
        with Interrupts():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=embedded)
    thread.start()
    thread.join()
    assert found == [before]

"""Signals end a command whatever computes, and nothing half written stays."""

from __future__ import annotations

import json
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
from lstm_onnx.atomic_io import atomic_write

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has ignored for what it runs beside
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this one
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
interrupts.GRACE = 1.0
for number in (signal.SIGINT, signal.SIGTERM):
    try:
        with interrupts.Interrupts() as found:
            os.kill(os.getpid(), number)
            time.sleep(60)
    except KeyboardInterrupt:
        print(found.code)
time.sleep(1.5)
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


PROCESS = """
import atexit, os, signal, sys, threading
from lstm_onnx.cli import interrupts, main

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has ignored for what it runs beside
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this one

def send(number=getattr(signal, sys.argv[1])):
    os.kill(os.getpid(), number)

def command(body):
    import click
    from lstm_onnx.cli import cli
    cli.add_command(click.command("tried")(body))

class Hook:  # when a module is looked for
    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            self.name = None
            send()

def when_imported(name):
    hook = Hook()
    hook.name = name
    sys.meta_path.insert(0, hook)

sys.argv = ["lstm-onnx", "tried"]
"""
WAIT = "    import time\n    time.sleep(60)\n"
MOMENTS = {
    "before anything is imported": "when_imported('lstm_onnx.cli.streams')",
    "while click is": "when_imported('click')",
    "while a command imports numpy": "when_imported('numpy'); sys.argv[1:] = ['run', 'none.onnx']",
    "while the watching thread starts": "begin = threading.Thread.start\n"
    "def start(self):\n    send()\n    begin(self)\n"
    "threading.Thread.start = start",
    "in a command": f"@command\ndef tried():\n    send()\n{WAIT}",
    "in a command that makes another error of it": "@command\n"
    "def tried():\n    try:\n        send()\n        while True: pass\n"
    "    except KeyboardInterrupt:\n        raise RuntimeError('something else')",
    "in a command that swallows it": "@command\n"
    "def tried():\n    try:\n        send()\n        while True: pass\n    except KeyboardInterrupt:\n        pass",
    "in a command that swallows it and goes on": "interrupts.GRACE = 0.1\n@command\n"
    f"def tried():\n    try:\n        send()\n        while True: pass\n    except KeyboardInterrupt:\n    {WAIT}",
    "in a destructor": "class Ends:\n    def __del__(self):\n        send()\n"
    f"interrupts.GRACE = 0.1\n@command\ndef tried():\n    Ends()\n{WAIT}",
    "twice": f"@command\ndef tried():\n    try:\n        send()\n{WAIT.replace('    ', '        ')}"
    f"    finally:\n        send()\n{WAIT.replace('    ', '        ')}",
    "at exit": "@command\ndef tried():\n    atexit.register(send)",
    "when the result is printed": "from lstm_onnx.cli import streams\n"
    "flush = streams.SafeStream.flush\n"
    "def sent(self):\n    send()\n    flush(self)\n"
    "streams.SafeStream.flush = sent\n@command\ndef tried():\n    pass",
}


def _process(number: str, moment: str, folder: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"{PROCESS}\n{before}\n{moment}\nmain()", number],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_a_process_ends_with_the_signal_whenever_it_comes(moment: str, number: str, tmp_path: Path) -> None:
    done = _process(number, moment, tmp_path)
    assert done.returncode == 128 + getattr(signal, number), done.stderr
    assert done.stderr.lstrip("\n") == "lstm-onnx: interrupted\n"  # click ends the line that ^C stands in


def test_a_terminal_that_is_closed_is_one_as_well(tmp_path: Path) -> None:
    done = _process("SIGHUP", MOMENTS["in a command"], tmp_path)
    assert (done.returncode, done.stderr.lstrip("\n")) == (129, "lstm-onnx: interrupted\n")


def test_json_has_the_exit_code_of_the_signal(tmp_path: Path) -> None:
    before = "sys.argv.append('--json')"
    moment = "import click\n@command\n@click.option('--json', is_flag=True)\ndef tried(json):\n    send()\n" + WAIT
    done = _process("SIGTERM", moment, tmp_path, before=before)
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["type"], error["exit_code"]) == (143, "Interrupted", 143)


@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP"])
def test_what_is_to_be_ignored_is(number: str, tmp_path: Path) -> None:
    """As nohup and a shell's & have it."""
    moment = "@command\ndef tried():\n    send()\n    print('went on', file=sys.stderr)"
    done = _process(number, moment, tmp_path, before=f"signal.signal(signal.{number}, signal.SIG_IGN)")
    assert (done.returncode, done.stderr) == (0, "went on\n")


def test_after_all_has_been_said_a_signal_changes_nothing(tmp_path: Path) -> None:
    # What is registered first runs last, when the command's own handlers have gone.
    done = _process("SIGTERM", "@command\ndef tried():\n    pass", tmp_path, before="atexit.register(send)")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_temporary_folder_goes_with_the_process(tmp_path: Path) -> None:
    moment = (
        "import tempfile\ntempfile.tempdir = os.getcwd()\n"
        "from lstm_onnx.atomic_io import atomic_write, temporary_folder\ninterrupts.GRACE = 0.1\n"
        "@command\ndef tried():\n    with temporary_folder() as folder, atomic_write('out') as stream:\n"
        "        (folder / 'a').touch()\n        try:\n            send()\n            while True: pass\n"
        "        except KeyboardInterrupt:\n            import time\n            time.sleep(60)\n"
    )
    done = _process("SIGTERM", moment, tmp_path)
    assert (done.returncode, done.stderr) == (143, "lstm-onnx: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_destructors_are_still_told(tmp_path: Path) -> None:
    moment = "class Fails:\n    def __del__(self):\n        1 / 0\n@command\ndef tried():\n    Fails()"
    done = _process("SIGTERM", moment, tmp_path)
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr

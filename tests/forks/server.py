"""The process whose forks are the programs: it imports, and does nothing else, until one is asked for.

Run as ``python -W error server.py SOCKET``; it ends when its stdin does.  Imports alone come before a fork, and torch's
table of translations: no model is run or exported here, so that a fork has no thread to miss, and every other library
is in the state that it has after its import.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import json
import os
import random
import selectors
import signal
import socket
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

IMPORTED = (
    *("numpy", "onnx", "onnx.reference", "onnxruntime", "onnxscript", "torch"),
    # what a first export imports
    *("torch.export._trace", "torch.export.pt2_archive", "torch.onnx.ops", "torch.onnx._internal.exporter._core"),
    *("torch._dynamo", "torch._dynamo.precompile_context", "torch._export.db", "torch._export.serde.serialize"),
    *("torch._functorch.aot_autograd", "torch._functorch.partitioners"),
    *("torch._inductor.codecache", "torch._inductor.fx_passes", "torch._subclasses.schema_check_mode"),
    *("onnxscript.function_libs.torch_lib.ops", "onnxscript.rewriter.onnx_fusions"),
    *("onnxscript._framework_apis.torch_2_9", "onnxscript._framework_apis.torch_2_11"),
    *("torch.onnx._internal.exporter._compat", "torch.onnx._internal.exporter._torchlib.ops"),
    *("torch.fx.experimental.validator", "torch._inductor.sizevars", "sympy.tensor.tensor", "numpy.ma"),
    *("lstm_onnx.exporter.module", "lstm_onnx.exporter.precision", "lstm_onnx.parity.public"),
    *("lstm_onnx.parity.lstm.verification", "lstm_onnx.parity.modules.verification"),
    *("lstm_onnx.parity.converted.source", "lstm_onnx.parity.mutants.catalogue", "lstm_onnx.parity.verification"),
)
"""One that a version of a library does not have is left to the programs."""


READ_BY_A_FORK = ("PYTHONUNBUFFERED", "PYTHONWARNINGS")


class Connection:
    """A program that was asked for, and its fork."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.pid = 0


def main(address: str) -> None:
    sys.path.pop(0)  # this folder
    for name in IMPORTED:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    build_table()
    gc.collect()
    gc.freeze()  # so that a collection in a fork does not copy all pages
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{address}.new")
        listening.listen()
        os.rename(f"{address}.new", address)  # noqa: PTH104 - now it answers
        job = serve(listening)
    if job is not None:
        become(*job)


def build_table() -> None:
    """Let torch read the sources of its translations, which takes two thirds of a first export; exports keep them."""
    try:
        from torch.onnx._internal.exporter._constants import TORCHLIB_OPSET
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        return
    from lstm_onnx.exporter.tracing.torch_changes import tables_kept
    from lstm_onnx.exporter.tracing.torch_logs import suppress_torch_output

    with suppress_torch_output(), tables_kept():
        ONNXRegistry.from_torchlib(opset_version=TORCHLIB_OPSET)


def serve(listening: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Answer until stdin ends; in a fork, what it has to run."""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(listening, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == 0:
                    for other in list(selector.get_map().values()):
                        if isinstance(other.data, Connection):
                            stop(other.data)
                    return None
                if key.fileobj is listening:
                    connection = Connection(listening.accept()[0])
                    job = started(connection, selector)
                    if job is not None:
                        listening.close()
                        return job
                elif key.fileobj is key.data.end:  # the program was killed
                    stop(key.data)
                    selector.unregister(key.data.end)
                else:
                    report(key, selector)


def started(connection: Connection, selector: selectors.BaseSelector) -> tuple[dict[str, Any], list[int]] | None:
    """Fork; in the fork, what it has to run."""
    header, streams, *_ = socket.recv_fds(connection.end, 16, 3)
    if len(streams) != 3:
        connection.end.close()
        return None
    stream = connection.end.makefile("rb")
    asked = json.loads(stream.read(int(header)))
    stream.close()
    as_here = read_at_start(asked["environment"]) == read_at_start(os.environ)
    connection.pid = os.fork() if as_here else 0
    if as_here and connection.pid == 0:
        for key in selector.get_map().values():
            if isinstance(key.data, Connection):
                key.data.end.close()
        connection.end.close()
        return asked, streams
    for number in streams:
        os.close(number)
    connection.end.sendall(b"%d\n" % connection.pid)
    if not as_here:
        connection.end.close()
        return None
    selector.register(connection.end, selectors.EVENT_READ, connection)
    selector.register(os.pidfd_open(connection.pid), selectors.EVENT_READ, connection)
    return None


def read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """What an interpreter or its libraries read when they start, and a fork no more."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(("PYTHON", "LD_", "LC_", "LANG")) and name not in READ_BY_A_FORK
    }


def stop(connection: Connection) -> None:
    if connection.pid:
        os.kill(connection.pid, signal.SIGKILL)


def report(key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
    """Tell how a fork has ended."""
    connection: Connection = key.data
    _, status = os.waitpid(connection.pid, 0)
    connection.pid = 0
    selector.unregister(key.fd)
    os.close(key.fd)
    if connection.end in selector.get_map():
        selector.unregister(connection.end)
        connection.end.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    connection.end.close()


def become(asked: dict[str, Any], streams: list[int]) -> NoReturn:
    """Run a program, and end as an interpreter does; only that it is not taken apart before."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in asked["ignored"] else handler)
    open_streams()
    forget()
    filter_warnings(asked["filters"])
    code = run(asked["kind"], asked["arguments"])
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            code = 120  # as Python's own
    os._exit(code)


def open_streams() -> None:
    """Of the numbers 0, 1 and 2, as Python has opened those of this process."""
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        own = getattr(sys, f"__{name}__")
        raw = io.FileIO(number, "rb" if number == 0 else "wb", closefd=False)
        buffer: Any = raw
        if number == 0:
            buffer = io.BufferedReader(raw)
        elif not unbuffered:
            buffer = io.BufferedWriter(raw)
        stream = io.TextIOWrapper(
            buffer,
            own.encoding,
            own.errors,
            line_buffering=not unbuffered and (number == 2 or raw.isatty()),
            write_through=unbuffered and number > 0,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def forget() -> None:
    """Random numbers that a fresh process draws from the system, and the folder that it asks the environment for."""
    tempfile.tempdir = None
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def filter_warnings(options: list[str]) -> None:
    """Put those of a command line in the place of this process's ``-W error``; what imports added goes before them."""
    own = sys.warnoptions[0]
    place = next(index for index, each in enumerate(warnings.filters) if each[:4] == (own, None, Warning, None))
    del warnings.filters[place]
    before = list(warnings.filters[:place])
    after = list(warnings.filters[place:])
    warnings.filters[:] = after  # type: ignore[index]
    environment = [each for each in os.environ.get("PYTHONWARNINGS", "").split(",") if each]
    sys.warnoptions[:] = [*environment, *options]
    warnings._processoptions(sys.warnoptions)  # type: ignore[attr-defined]
    warnings.filters[:0] = before  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


def run(kind: str, arguments: list[str]) -> int:
    """The exit code of a program's code in a new ``__main__``."""
    module = types.ModuleType("__main__")
    module.__dict__.update(__builtins__=__builtins__, __annotations__={})
    sys.modules["__main__"] = module
    try:
        if kind == "command":
            program = Path(sys.executable).with_name(arguments[0])
            sys.argv[:] = [str(program), *arguments[1:]]
            sys.path[0] = str(program.parent)
            from lstm_onnx.cli import main as command

            command()
        execute(kind, arguments, module)
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return (left.code or 0) & 0xFF
        sys.stderr.write(f"{left.code}\n")
        return 1
    except BaseException as error:  # noqa: BLE001 - an interpreter prints it, and ends
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        sys.excepthook(type(error), error.with_traceback(frames), frames)
        if isinstance(error, KeyboardInterrupt):
            sys.stdout.flush()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def execute(kind: str, arguments: list[str], module: types.ModuleType) -> None:
    if kind == "file":
        sys.argv[:] = arguments
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        module.__file__ = name = str(Path(arguments[0]).absolute())
        text: Any = Path(name).read_bytes()
    elif kind == "stdin":
        sys.argv[:] = arguments
        sys.path[0] = ""
        name, text = "<stdin>", sys.stdin.read()
    else:
        sys.argv[:] = arguments[:-1]
        sys.path[0] = ""
        name, text = "<string>", arguments[-1]
    exec(compile(text, name, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the program


if __name__ == "__main__":
    main(sys.argv[1])

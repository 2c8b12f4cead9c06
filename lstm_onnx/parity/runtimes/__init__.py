"""Runs files for `verify` on engines other than ONNX Runtime: OpenVINO, ONNX Runtime Web, tract.

`process` is this process's side of an engine's process, `session` makes it look like an ONNX Runtime session, and
`child` is the process itself, with one module for each engine in Python; `web` starts Node.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...errors import ConfigError, shown
from ...isolation.process import started
from ...runtime import Model, load
from ...runtime.providers import open_session, parse_provider, validated_threads
from . import web
from .process import EngineProcess
from .session import EngineSession

ONNXRUNTIME = "onnxruntime"
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from lstm_onnx.parity.runtimes.child import serve; "
    "serve(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))"
)


@dataclass(frozen=True)
class _Engine:
    """An engine's name in messages, the function that starts its process, and how to install it."""

    title: str
    start: Callable[[int | None], subprocess.Popen[bytes]]
    install: str
    fixes_sizes: bool = False


def _python(adapter: str, threads: int | None) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    process: subprocess.Popen[bytes] = started(pipe, pipe, pipe, _BOOT, adapter, str(threads or 0))
    return process


_ENGINES = {
    "openvino": _Engine(
        "OpenVINO", partial(_python, f"{__name__}.openvino:OpenVINO"), "pip install 'lstm-onnx[openvino]' installs it"
    ),
    "onnxruntime-web": _Engine("ONNX Runtime Web", web.start, web.INSTALL),
    "tract": _Engine(
        "tract",
        partial(_python, f"{__name__}.tract:Tract"),
        "pip install 'lstm-onnx[tract]' installs it",
        fixes_sizes=True,
    ),
}
RUNTIMES = (ONNXRUNTIME, *_ENGINES)
"""The names of all engines; the first is the default."""


def require_runtime(name: Any, provider: str = "auto", threads: int | None = None) -> None:
    """Check the name of an engine, that it runs on `provider`, and the number of threads.

    Raises:
        ConfigError: there is no such engine, or it does not run on `provider`.
        ProviderError: there is no such provider.
        InputError: the number of threads is wrong.
    """
    if not isinstance(name, str) or name not in RUNTIMES:
        raise ConfigError(f"runtime = {shown(name)} is not known; it must be one of {', '.join(RUNTIMES)}")
    if name != ONNXRUNTIME and provider not in ("auto", "cpu", "CPUExecutionProvider"):
        raise ConfigError(f'{name} runs on the CPU here; use provider "cpu" or "auto", not {shown(provider)}')
    parse_provider(provider)
    validated_threads(threads)


def require_open(file: object, *runtimes: str) -> None:
    """Refuse a model that was closed, since each of its cases would fail, which says nothing about the file.

    Args:
        file: a model that `load` returned; anything else is accepted.
        runtimes: the engines that will run it.

    Raises:
        ConfigError: the model was closed, or one of the engines is not ONNX Runtime.
    """
    if isinstance(file, Model) and file.closed:
        raise ConfigError(f"{file.path}: is closed; load it again")
    if isinstance(file, Model) and runtimes != (ONNXRUNTIME,):
        raise ConfigError(f"{file.path}: is open in ONNX Runtime; pass its path for another runtime")


@contextmanager
def running(name: str, threads: int | None = None) -> Iterator[EngineProcess | None]:
    """The process of an engine, which is ended afterwards; None for ONNX Runtime, which runs in this process.

    Raises:
        MissingDependencyError: the engine is not installed, or does not start.
    """
    if name == ONNXRUNTIME:
        yield None
        return
    engine = _ENGINES[name]
    start = partial(engine.start, threads)
    with EngineProcess(engine.title, start, engine.install, fixes_sizes=engine.fixes_sizes) as process:
        yield process


def load_on(
    engine: EngineProcess | None, path: str | os.PathLike[str], provider: str = "auto", threads: int | None = None
) -> Model:
    """Open a file as `load` does, to be run by `engine`, or by ONNX Runtime if that is None.

    The file is first tried in a child process if lstm-onnx did not write it.

    Raises:
        LSTMOnnxError: as `load`; also a ModelError if the engine cannot open the file.
    """
    if engine is None:
        return load(path, provider=provider, threads=threads, trial=None)
    # This model only describes the file; with one thread it opens no further sessions for small steps.
    with load(path, provider="cpu", threads=1, trial=None) as described:
        session = EngineSession(engine, described.session, described.file)
    return Model(os.fspath(path), session, "cpu", None, 1)


def load_like(model: Model, path: str | os.PathLike[str]) -> Model:
    """Open another file from lstm-onnx on the engine and the provider of `model`, with one thread."""
    return load_on(engine_of(model), path, model.provider, 1)


def session_like(model: Model, content: bytes, folder: str) -> tuple[Any, str]:
    """A session for the content of a file, on the engine and the provider of `model`, and that provider.

    Args:
        model: an open model.
        content: the file's bytes.
        folder: the folder of its external data.

    Raises:
        LSTMOnnxError: the file cannot be opened.
    """
    session, provider = open_session(content, model.provider, 1, folder=folder)
    engine = engine_of(model)
    if engine is None:
        return session, provider
    import onnx

    from ...onnxgraph.load import read_external

    # The file is in a folder of its own, so external data are copied into it.
    temporary = TemporaryDirectory(prefix="lstm-onnx-")
    path = Path(temporary.name) / "model.onnx"
    proto = onnx.load_model_from_string(content)
    path.write_bytes(proto.SerializeToString() if read_external(proto, Path(folder) / path.name) else content)
    return EngineSession(engine, session, os.fspath(path), keep=temporary), provider


def engine_of(model: Model) -> EngineProcess | None:
    """The engine that runs a model; None for ONNX Runtime."""
    return model.session.engine if isinstance(model.session, EngineSession) else None


def require_judgeable(model: Model, precision: str) -> None:
    """Refuse an int8 file on another engine, since ONNX Runtime's kernels define what is right.

    Raises:
        ConfigError: the file is int8, and the engine is not ONNX Runtime.
    """
    engine = engine_of(model)
    if engine is not None and precision == "int8":
        raise ConfigError(
            f"{model.path}: has int8 layers, which are compared with the arithmetic of ONNX Runtime's kernels, not "
            f"on {engine.title}; verify the float32 file there"
        )


def note_of(model: Model) -> str:
    """A note for the report on how the engine opened a model; "" for none."""
    return model.session.note if isinstance(model.session, EngineSession) else ""

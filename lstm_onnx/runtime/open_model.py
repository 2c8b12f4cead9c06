"""`load`: opens an exported model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..atomic_io import require_readable
from ..errors import InputError, ModelError
from ..isolation.stages import stage
from .arguments import flag, flag_or_none
from .interface import validated_states_argument
from .loaded_model import fingerprint
from .model import Model
from .providers import open_session, parse_provider, validated_threads


def load(
    path: str | os.PathLike[str],
    provider: str = "auto",
    threads: int | None = None,
    *,
    states: Mapping[str, str] | None = None,
    spin: float = 0.0,
    cuda_graph: bool = False,
    session_options: Any = None,
    trial: bool | None = False,
) -> Model:
    """Open an exported model.

    Args:
        path: the .onnx file.
        provider: "cpu"; "cuda" or "cuda:1" for the second GPU, which means CUDA or an error that names the cause;
            or "auto": CUDA if a GPU can be used, otherwise the CPU.  ONNX Runtime's names
            "CPUExecutionProvider" and "CUDAExecutionProvider" (also with ":1") mean "cpu" and "cuda".
        threads: the largest number of threads; None for one per core.  Small steps of a bare LSTM always use one,
            which is faster.
        states: for stateful models from elsewhere: each state input and the output that feeds it, such as
            ``{"state": "stateN"}``.  Files from lstm-onnx contain their own.
        spin: seconds for which an idle thread spins before it sleeps, on cores that have no other work.
            With 0.001, steps of a large model that follow one another are up to 1.7 times as fast, and other
            programs on the same cores, such as PyTorch, up to 1.6 times as slow.
        cuda_graph: on CUDA, capture a stream's step as a CUDA graph for each chunk shape and replay it.
            Every node must run on CUDA, so a projection has to be folded.
        session_options: an ``onnxruntime.SessionOptions`` to open the session with, for instance with custom
            operators or profiling.  `threads` and `spin` are set on it where they are passed; its other settings
            stay, except that nodes' providers are recorded.  Such a model cannot be pickled.
        trial: open the file in a child process first, and run it there once at the smallest sizes, within limits of
            time (20 s for each of the two steps, more for a large file) and memory.  A file from an untrusted source
            can crash or hang the process that opens it, and no exception is raised then.  A trial takes as long as a
            separate program that opens and runs the file, including the start of Python.  None runs a trial only if
            the file is not, byte for byte, one that lstm-onnx wrote.  A trial proves nothing about later inputs.

    Raises:
        FileError: `path` is not a path, or the file is missing, empty, a folder, a pipe or a device.
        ModelError: it is not a model, ONNX Runtime cannot run it, `states` does not map inputs of it to outputs of it
            (for a bare LSTM: to its own), or the child process of a trial failed; the message says how, and at which
            step.
        ProviderError: the provider is unknown, is not available, or cannot run the model.
        MissingDependencyError: no usable ONNX Runtime is installed, or one too old for `spin`.
        InputError: `threads`, `spin`, `cuda_graph`, `trial` or `session_options` is not possible.
    """
    require_readable(path, "an .onnx file")
    pairs = validated_states_argument(states)
    _, device_id = parse_provider(provider)
    threads = validated_threads(threads)
    cuda_graph, trial = flag("cuda_graph", cuda_graph), flag_or_none("trial", trial)
    before = fingerprint(path)
    if trial is not False:
        from .trial import is_trial_needed, require_trial

        if is_trial_needed(path, trial):
            if session_options is not None:
                raise InputError(
                    "session_options cannot be passed to the child process of a trial",
                    path=path,
                    hint="leave one of the two out",
                    name="session_options",
                )
            require_trial(path, provider, threads, pairs)
            _require_same(path, before)  # before it is opened here
    try:
        session, used = open_session(
            path, provider, threads, spin=spin, cuda_graph=cuda_graph, session_options=session_options
        )
    except ModelError:
        _require_same(path, before)  # a better error than that its weights are missing
        raise
    _require_same(path, before)
    # Of a pickled model, in another process.
    reopen = partial(
        reopened, os.path.realpath(path), provider, threads, states=pairs, spin=spin, cuda_graph=cuda_graph
    )
    return Model(
        os.fspath(path),
        session,
        used,
        pairs,
        threads,
        spin=spin,
        cuda_graph=cuda_graph,
        device_id=device_id,
        fingerprint=None if session_options is not None else before,
        reopen=reopen if session_options is None else None,
    )


def _require_same(path: str | os.PathLike[str], before: tuple[int, ...] | None) -> None:
    if fingerprint(path) != before:
        raise ModelError("was changed while it was loaded", path=path, hint="try again")


def reopened(path: str, provider: str, threads: int | None, digest: str, **options: Any) -> Model:
    """A pickled model, loaded again in another process; `digest` is that of its file.

    Raises:
        LSTMOnnxError: as for `load`; ModelError also if the file has changed.
    """
    from .file_digest import file_digest

    model = load(path, provider, threads, **options)
    if file_digest(path) != digest:
        model.close()
        raise ModelError("has changed since the model was pickled", path=path, hint="load it again, and pickle that")
    return model


def open_and_run(path: str, provider: str, threads: int | None, states: Mapping[str, str] | None) -> None:
    """The work of a trial's child process: open the file, and run it once."""
    from .trial import first_run

    stage("session creation")
    first_run(load(path, provider, threads, states=states))

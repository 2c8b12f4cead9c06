"""`LoadedModel`: an open model and its sessions."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np

from ..errors import FileError, InputError, ModelError, RunError
from ..metadata import Metadata
from ..spec import LSTMSpec
from .bindings import BindingCache
from .counts import (
    require_counts,
    require_one_place,
    require_table_rows,
    require_whole_chunks,
    require_whole_sequence,
)
from .flops import is_small
from .initial_states import known_initial_states
from .interface import read_interface
from .providers import NO_GRAPH, graph_options, open_session, runs_operator
from .shutdown import Gate, sleep_if_ending, watch
from .tensor_info import axis_sizes, validated_feeds, validated_lengths


def fingerprint(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """A file's device, inode, size and modification time; None where there is no file.

    External data is not included.  lstm-onnx names its own by digest, so that other weights come with another
    model file; after overwriting other external data, the model has to be loaded again.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib would be a tenth of all that is imported
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def digest_as_loaded(file: str, loaded: tuple[int, ...] | None) -> str:
    """The `file_digest` of a model's file, whose `fingerprint` was `loaded`, for its pickle.

    Raises:
        TypeError: the file has been changed or deleted.
    """
    if fingerprint(file) != loaded:
        raise TypeError(f"{file}: this model cannot be pickled: its file was changed or deleted since it was loaded")
    from .file_digest import file_digest

    return file_digest(file)


def one_thread_session(file: str, session: Any, provider: str, loaded: tuple[int, ...] | None) -> Any:
    """A session for the model of `session` whose runs stay in the thread that calls them.

    It is `session` itself if that has one thread or runs on CUDA, or if the file was deleted or replaced since it was
    loaded, as on a server that updates its models: the results are the same, but slower.

    Args:
        file: the model's file.
        session: open on it.
        provider: "cpu" or "cuda".
        loaded: the file's `fingerprint` when it was loaded; None if no other session must be opened.
    """
    if provider == "cuda" or session.get_session_options().intra_op_num_threads == 1:
        return session
    if loaded is None or fingerprint(file) != loaded:
        return session
    try:
        single, _ = open_session(file, "cpu", 1)
    except (FileError, ModelError):
        return session
    return single if fingerprint(file) == loaded else session


class ClosedSession:
    """Replaces a session that must no longer be used."""

    def __init__(self, message: str, *, path: str, hint: str) -> None:
        self._error = {"message": message, "path": path, "hint": hint}

    def __getattr__(self, name: str) -> Any:
        """Raise the error at any use of the session."""
        error = self.__dict__["_error"]
        raise RunError(error["message"], path=error["path"], hint=error["hint"])


class LoadedModel:
    """An open model: what is known about it, the checks of its inputs, and its sessions.

    Everything that runs a model takes one of these.  `Model` derives from it, has a method for each way to run it, and
    describes the other attributes.

    Attributes:
        checks_numbers: whether `require_counts` may refuse inputs.
        can_be_bound: whether its inputs and outputs can be bound to arrays.
        valued: the inputs whose values are checked before a run, not only their names, shapes and dtypes.
        hides_nan: whether its results hide NaN in its inputs; see `non_finite_inputs`.
        bindings: those of `run_model`.
    """

    def __init__(
        self,
        path: str,
        session: Any,
        provider: str,
        states: Mapping[str, str] | None = None,
        threads: int | None = None,
        *,
        spin: float = 0.0,
        cuda_graph: bool = False,
        device_id: int = 0,
        fingerprint: tuple[int, ...] | None = None,
        reopen: Callable[[str | None], LoadedModel] | None = None,
    ) -> None:
        self.path, self.session = path, session
        self.provider, self.device_id = provider, device_id if provider == "cuda" else 0
        self.threads, self.spin, self.cuda_graph = threads, spin, cuda_graph
        self.run_options = graph_options(NO_GRAPH) if cuda_graph and provider == "cuda" else None
        self.file = os.path.realpath(path)  # to be opened again after a change of folder, or in another process
        self.fingerprint, self._reopen = fingerprint, reopen
        self.bindings = BindingCache()
        self._one_thread: Any = None
        self._opening = threading.Lock()
        found = read_interface(path, session, provider, states)
        self.metadata: Metadata = found.metadata
        self.inputs, self.outputs, self.states, self.counts = found.inputs, found.outputs, found.states, found.counts
        streaming = self.metadata.streaming_or_default
        ends = () if streaming.least == streaming.multiple == 1 else (streaming.last, streaming.steps)
        self.valued = {"lengths", *ends}
        # ONNX Runtime does not write the buffer that is bound to an output if the output is itself an input.
        self.can_be_bound = self.inputs.keys().isdisjoint(self.outputs)
        self._filled_in = {*self.states, streaming.last, "lengths" if self.spec else None}
        self.checks_numbers = bool(self.counts or self.metadata.table_rows)
        self.hides_nan = provider == "cpu" and runs_operator(session, "LSTM", "GRU", "RNN")
        sleep_if_ending()
        watch(sleeping=self, forking=self)

    def require_counts(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuse counts outside of 1 to the size of their axis, rows that a table lacks, and states of sequences that
        cannot be stepped together (InputError)."""
        if self.counts:
            require_counts(self.counts, arrays, axis_sizes(self.inputs, arrays))
        if self.metadata.table_rows:
            require_table_rows(self.metadata.table_rows, arrays)
        require_one_place(self.metadata.streaming_or_default, arrays)

    def require_steps(self, arrays: Mapping[str, np.ndarray], passed: Iterable[str]) -> None:
        """Refuse chunks and ending sequences with too few steps (InputError); inputs not `passed` were filled in."""
        streaming = self.metadata.streaming_or_default
        steps = {name: arrays[name].shape[axis] for name, axis in streaming.time.items()}
        require_whole_chunks(streaming, steps)
        require_whole_sequence(streaming, arrays, steps, self.states.keys() & set(passed))

    def validated(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`arrays` completed, once they are known to fit (InputError: see `completed` and `validated_feeds`)."""
        return validated_feeds(self.inputs, self.completed(arrays), self._filled_in)

    def completed(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`arrays`, with missing states and a bare LSTM's missing lengths filled in."""
        sizes = axis_sizes(self.inputs, arrays)
        infos = {name: self.inputs[name] for name in self.states if name not in arrays}
        arrays |= known_initial_states(infos, sizes, self.metadata.initial)
        if (last := self.metadata.streaming_or_default.last) is not None:
            arrays.setdefault(last, np.ones(1, np.int64))
        if self.spec is not None:
            self._complete_lengths(arrays, sizes)
        return arrays

    def _complete_lengths(self, arrays: dict[str, np.ndarray], sizes: Mapping[str, int]) -> None:
        """Validate the lengths among a bare LSTM's inputs; if they are left out, every sequence has full length.

        Raises:
            InputError: they are not possible, or the model takes none.
        """
        if "lengths" in self.inputs and "batch" in sizes and "time" in sizes:
            arrays["lengths"] = validated_lengths(arrays.get("lengths"), sizes["batch"], sizes["time"])
        elif "lengths" in arrays and "lengths" not in self.inputs:
            raise InputError(
                "was exported without lengths",
                path=self.path,
                hint="export it again with lengths = true",
                name="lengths",
            )

    # --- sessions -------------------------------------------------------------------------------------------------

    @property
    def states_can_be_bound(self) -> bool:
        """Whether each state has a separate output: one that feeds two would have to be written to two buffers."""
        return self.can_be_bound and len(set(self.states.values())) == len(self.states)

    @property
    def spec(self) -> LSTMSpec | None:
        """The sizes of a bare LSTM; None for any other model."""
        return self.metadata.spec

    def one_thread(self) -> Any:
        """A session whose runs stay in the calling thread, opened on first use; see `one_thread_session`."""
        with self._opening:
            if self._one_thread is None:
                self._one_thread = one_thread_session(self.file, self.session, self.provider, self.fingerprint)
            return self._one_thread

    def session_for(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """The session that is fastest for these inputs: `one_thread` for small calls of a bare LSTM.

        For a module, `session`: its states say nothing about its other work.
        """
        if self.spec is None or self.provider == "cuda" or self.spin:
            return self.session
        states = {name: array for name, array in arrays.items() if name in self.states}
        others = {name: array for name, array in arrays.items() if name not in self.states}
        return self.one_thread() if is_small(self.inputs, states, others) else self.session

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return isinstance(self.session, ClosedSession)

    def close(self) -> None:
        """Release the session and its memory; a run in another thread finishes first."""
        self.session = self._one_thread = ClosedSession("is closed", path=self.path, hint="load it again")
        self.bindings = BindingCache()

    def let_sleep(self) -> None:
        """See `shutdown`: the interpreter is exiting."""
        if not self.closed:
            # Never None: a thread must not fall asleep while it opens a session and holds a lock of the main thread.
            self.session, self._one_thread = Gate(self.session), Gate(self._one_thread or self.session)
        self.bindings = BindingCache()

    def forked(self) -> None:
        """In a forked child, sessions on the CPU keep working; CUDA's do not."""
        self._opening = threading.Lock()
        if self.provider == "cuda" and not self.closed:
            self.session = self._one_thread = ClosedSession(
                "was loaded on CUDA before this process was forked, which CUDA does not support",
                path=self.path,
                hint='load it in the child, or start that with multiprocessing\'s method "spawn"',
            )

    def __enter__(self) -> Self:
        """For ``with lstm_onnx.load(path) as model:``."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle path and options: another process opens the file again."""
        if self._reopen is None:
            raise TypeError(f"{self.path}: this model cannot be pickled: it was not opened by load with a path alone")
        return self._reopen, (digest_as_loaded(self.file, self.fingerprint),)

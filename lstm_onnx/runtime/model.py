"""`Model`: a loaded model, called as nn.LSTM is, or run by the names of its inputs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from ..errors import InputError, RunError
from ..metadata import Metadata
from ..spec import LSTMSpec
from ..terminal_text import one_line
from .bindings import BindingCache, Key, key_of
from .call import call
from .cancellation import options_of
from .conversion import to_arrays
from .counts import require_counts, require_table_rows, require_whole_chunks, require_whole_sequence
from .flops import is_small
from .initial_states import known_initial_states
from .loaded_model import ClosedSession, one_thread_session, read_interface
from .lstm_call import call_lstm, complete_lengths
from .non_finite_inputs import hides_nan, warn_of_non_finite
from .providers import NO_GRAPH, graph_options
from .shutdown import Gate, sleep_if_ending, watch
from .tensor_info import axis_sizes, validated_feeds

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from .pool.pool import Pool
    from .stream import Stream

    Array = NDArray[Any]
    ArrayLike = Array | Sequence[Any] | float


class Model:
    """A model that is open for running.  Created by `load`; a context manager that closes it.

    Attributes:
        path, file: the file, as passed to `load`; and its absolute path, with links resolved.
        fingerprint: of the file when it was loaded; None where another session of it must not be opened.
        provider, device_id: "cpu" or "cuda", where it runs; and which GPU, from 0.
        threads, spin, cuda_graph: as passed to `load`.
        session: the ``onnxruntime.InferenceSession``.
        run_options: an ``onnxruntime.RunOptions`` for its runs, where CUDA graphs must be kept out of them; else None.
        inputs: each input's name, dtype and axes.
        outputs: the same for outputs.
        states: each state input, and the output that feeds it at the next step.
        counts: the inputs that hold numbers of steps, such as lengths, and the axis along which they count.
        metadata: the file's metadata: the spec of a bare LSTM, the inputs of a module, initial states, options,
            versions, the weights' digest.
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
        reopen: Callable[[str | None], Model] | None = None,
    ) -> None:
        self.path, self.session = path, session
        self.provider, self.device_id = provider, device_id if provider == "cuda" else 0
        self.threads, self.spin, self.cuda_graph = threads, spin, cuda_graph
        self.run_options = graph_options(NO_GRAPH) if cuda_graph and provider == "cuda" else None
        self.file = os.path.realpath(path)  # to be opened again after a change of folder, or in another process
        self.fingerprint, self._reopen = fingerprint, reopen
        self._bindings = BindingCache()
        self._one_thread: Any = None
        self._opening = threading.Lock()
        found = read_interface(path, session, provider, states)
        self.metadata: Metadata = found.metadata
        self.inputs, self.outputs, self.states, self.counts = found.inputs, found.outputs, found.states, found.counts
        streaming = self.metadata.streaming_or_default
        ends = () if streaming.least == streaming.multiple == 1 else (streaming.last, streaming.steps)
        self._valued = {"lengths", *ends}
        self._filled_in = {*self.states, streaming.last, "lengths" if self.spec else None}
        self.checks_numbers = bool(self.counts or self.metadata.table_rows)
        self.hides_nan = provider == "cpu" and hides_nan(session)
        sleep_if_ending()
        watch(sleeping=self, forking=self)

    # --- running --------------------------------------------------------------------------------------------------

    @overload
    def __call__(
        self, input: torch.Tensor, states: tuple[Any, Any] | None = None, *, lengths: Any = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]: ...
    @overload
    def __call__(
        self, input: ArrayLike, states: tuple[Any, Any] | None = None, *, lengths: Any = None
    ) -> tuple[Array, tuple[Array, Array]]: ...
    @overload
    def __call__(
        self, input: Any, states: tuple[Any, Any] | None = None, *, lengths: Any = None
    ) -> tuple[Any, tuple[Any, Any]]: ...
    def __call__(self, input: Any, states: tuple[Any, Any] | None = None, *, lengths: Any = None) -> tuple[Any, Any]:
        """nn.LSTM's calling convention, for a bare LSTM.

        NaN or infinity in `input` gives a RuntimeWarning: ONNX Runtime's LSTM on the CPU goes on with ordinary numbers.

        Args:
            input: ``(time, batch, input_size)``, ``(batch, time, input_size)`` with batch_first, or one sequence
                ``(time, input_size)``.
            states: (h0, c0) of shapes ``(L*D, batch, proj_size or hidden_size)`` and ``(L*D, batch, hidden_size)``,
                without the batch axis for one sequence.  If left out, `metadata.initial`, or zeros.
            lengths: ``(batch,)`` integers from 1 to time, for a model exported with lengths.  If left out, every
                sequence is complete.

        Returns:
            ``output, (hn, cn)`` of the type of `input`: numpy arrays for numpy, torch tensors for torch.

        Raises:
            InputError: something does not fit; the message names it.
            RunError: ONNX Runtime failed while running, or memory ran out.
        """
        return call_lstm(self, input, states, lengths)

    @overload
    def run(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]: ...
    @overload
    def run(self, feeds: Mapping[str, ArrayLike]) -> dict[str, Array]: ...
    @overload
    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]: ...
    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run any model by the names of its inputs.

        States that are left out start from `metadata.initial`, or from zeros; their axes have the sizes of the
        axes of the same name in `feeds`.  If a bare LSTM's ``lengths`` are left out, every sequence is complete; so is
        that of a file made for streams whose input ``last`` is left out.

        Args:
            feeds: input names to arrays of the shapes in `inputs`.

        Returns:
            Output names to arrays, of the type of the first array in `feeds`.

        Raises:
            InputError: something does not fit; the message names it.
            RunError: ONNX Runtime failed while running, or memory ran out.
        """
        if not isinstance(feeds, Mapping):
            raise InputError(f"run takes names to arrays, such as {{name: array}}, not {type(feeds).__name__}")
        if self.provider == "cuda":
            from .device import device_of, run_on_device

            if any(device_of(value) == "cuda" for value in feeds.values()):
                return run_on_device(self, feeds)
        # Of most inputs, names, shapes and dtypes count; of lengths and of what generation starts from, values do.
        bound = self.provider == "cpu" and self._valued.isdisjoint(feeds) and self.metadata.generation is None
        key = key_of(feeds) if bound else None
        binding = None if key is None else self._bindings.find(key)
        if binding is not None and key is not None:
            self.require_counts(feeds)
            warn_of_non_finite(self, feeds)
            for name, array in feeds.items():
                binding.inputs[name][...] = array
            try:
                binding.run(options_of(self))
            except RunError:
                # Either the model fails on this input, and does so again, or its output shapes depend on more
                # than its input shapes, and it must not be bound.
                results = self._run_unbound(feeds, None)
                self._bindings.exclude(key)
                return results
            return {name: array.copy() for name, array in binding.outputs.items()}
        return self._run_unbound(feeds, key)

    def _run_unbound(self, feeds: Mapping[str, Any], key: Key | None) -> dict[str, Any]:
        """Run without a binding; feeds of this `key` may be bound the next time."""
        arrays, to_caller_type = to_arrays(feeds, self.inputs)
        arrays = self.validated(arrays)
        if self.spec is None:  # a bare LSTM's lengths were validated when they were completed
            self.require_counts(arrays)
        warn_of_non_finite(self, arrays)
        self.require_steps(arrays, feeds)
        names = list(self.outputs)
        values = call(self.path, self.session.run, names, arrays, options_of(self))
        if key is not None:
            self._bindings.record(key, self.session_for, self.path, self.inputs, self.outputs, arrays, values)
        return {
            name: to_caller_type(value) if isinstance(value, np.ndarray) else value
            for name, value in zip(names, values, strict=True)
        }

    def require_counts(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuse counts that are not from 1 to the size of their axis, and rows that a table lacks (InputError)."""
        if self.counts:
            require_counts(self.counts, arrays, axis_sizes(self.inputs, arrays))
        if self.metadata.table_rows:
            require_table_rows(self.metadata.table_rows, arrays)

    def require_steps(self, arrays: Mapping[str, np.ndarray], passed: Iterable[str]) -> None:
        """Refuse chunks, and sequences that end, of too few steps (InputError); inputs not `passed` were filled in."""
        streaming = self.metadata.streaming_or_default
        require_whole_chunks(streaming, arrays)
        steps = {name: arrays[name].shape[axis] for name, axis in streaming.time.items()}
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
            complete_lengths(self, arrays, sizes)
        return arrays

    def stream(self, batch: int = 1, *, check: bool = True) -> Stream:
        """A stream that carries the states from chunk to chunk, for `batch` sequences at once.

        Args:
            batch: how many sequences run side by side.
            check: for a file whose metadata does not say whether it can be streamed, compare chunks of random
                steps, or frames, with the whole sequence, once, when the first stream is opened.

        Raises:
            InputError: the model has no states, or chunks give other numbers than the whole sequence, as in a
                bidirectional model; or the batch is not possible.
        """
        from .stream import Stream

        return Stream(self, batch, check=check)

    def pool(self, slots: int = 64, *, check: bool = True) -> Pool:
        """A pool of up to `slots` streams that are stepped together, as one batch.

        Args:
            slots: how many streams can be open at once.
            check: as in `stream`, and compare a sequence alone with itself in a batch.

        Raises:
            InputError: the model cannot be streamed (see `stream`), sequences in a batch affect each other, its batch
                is fixed, or `slots` is not possible or too large for memory.
        """
        from .pool.pool import Pool

        return Pool(self, slots, check=check)

    def map(
        self,
        sequences: Iterable[Any],
        *,
        workers: int | None = None,
        look_ahead: int | None = None,
        batch: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Iterator[Any]:
        """Run the model on many sequences of varying length, and yield the results in their order.

        Sequences are read ahead, sorted by length and run in small batches by one thread per core.  A model with
        lengths runs sequences of different lengths together; without (export with ``lengths=True``) only equal
        ones, which is slower where lengths vary.  A module with lengths is tried first: where padding would change
        its results, it runs equal lengths together as well.  The results are those of the model called on each
        sequence alone, up to float rounding, which depends on the batch.

        Args:
            sequences: an iterable, larger than memory if need be, of single sequences without the batch axis.  For
                a bare LSTM an array ``(time, input_size)``, or a pair with its states, ``(array, (h0, c0))`` of
                shapes ``(L*D, proj_size or hidden_size)`` and ``(L*D, hidden_size)``; for any model a dict of
                input names to arrays, without lengths for a complete sequence.  For a model whose inputs have no
                batch axis, what `run` takes.  It is read in the caller's thread, and copied.
            workers: threads; None for one per core that this process may use, one on CUDA.
            look_ahead: sequences held at once, as inputs or as results; None for 1024, or fewer where they would
                take more than 256 MiB.
            batch: the largest number of sequences in a batch; None to measure the best one, which takes a
                fraction of a second and is kept for later calls.
            progress: called with the number of sequences done so far, in the caller's thread.

        Yields:
            For an array or a pair ``output, (hn, cn)`` of shapes ``(time, D * (proj_size or hidden_size))`` and
            those of the states; for a dict the outputs by name, cut to the sequence's own length.  Arrays of the
            type that was passed.

        Raises:
            InputError: at once, an argument is not possible.
            InputError, RunError: while iterating, after all results before it: a sequence does not fit, or ONNX
                Runtime failed on it; `index` is its number, from 0.
        """
        from .map.map import map_sequences

        return map_sequences(self, sequences, workers=workers, look_ahead=look_ahead, batch=batch, progress=progress)

    def warm_up(self, **sizes: int) -> None:
        """Run once on arbitrary inputs, so that memory and kernels are ready for the first real run.

        Args:
            sizes: of the named axes, such as ``batch=1, time=10``; the smallest possible where left out.

        Raises:
            InputError: an axis is not one of the model's, or a size is not possible.
            RunError: ONNX Runtime failed while running, or memory ran out.
        """
        from .warm_up import smallest_feeds

        self.run(smallest_feeds(self, sizes))

    # --- sessions -------------------------------------------------------------------------------------------------

    @property
    def states_can_be_bound(self) -> bool:
        """Whether each state has an output of its own: one that feeds two would have to be written to two buffers."""
        return len(set(self.states.values())) == len(self.states)

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

        For a module, `session`: its states say nothing of its other work.
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
        self._bindings = BindingCache()

    def let_sleep(self) -> None:
        """See `shutdown`: the interpreter is exiting."""
        if not self.closed:
            # Never None: no thread may fall asleep while it opens a session, with a lock that the main one needs.
            self.session, self._one_thread = Gate(self.session), Gate(self._one_thread or self.session)
        self._bindings = BindingCache()

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
        """Pickled as path and options: another process opens the file again."""
        if self._reopen is None:
            raise TypeError(f"{self.path}: this model cannot be pickled: it was not opened by load with a path alone")
        return self._reopen, (self.metadata.digest,)

    def __repr__(self) -> str:
        """Path, provider and inputs, on one line."""
        inputs = "; ".join(str(info) for info in self.inputs.values())
        closed = ", closed" if self.closed else ""
        return one_line(f"<Model {self.path} on {self.provider}{closed}: {inputs}>")

    def _repr_html_(self) -> str:
        """A table of inputs, outputs and states, for notebooks."""
        from .notebook import model_html

        return model_html(self)

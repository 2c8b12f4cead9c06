"""A loaded model: nn.LSTM's calling convention, and by name for any model."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic_io import require_readable
from ..errors import ConfigError, InputError, ModelError, ProviderError, RunError, shown
from ..metadata import Metadata
from ..spec import LSTMSpec
from .arguments import positive_integer
from .bindings import Key, Repeats, key_of
from .counts import counts_of, require_counts
from .float64 import REMEDY, refuses_double, runs_no_double
from .flops import is_small
from .initial_states import fitting_initial, start
from .pool.pinned_threads import single_session, stamp
from .providers import first_line, open_session, ort_errors
from .shutdown import Gate, sleep_if_ending, watch
from .tensor_info import ValueInfo, axis_sizes, checked, checked_lengths, to_numpy

if TYPE_CHECKING:
    from .pool.pool import Pool
    from .stream import Stream

_STATES = {"h0": "hn", "c0": "cn"}
"""What feeds the states of a bare LSTM."""
_NO_DOUBLE = (
    "is float64, and ONNX Runtime's CPU provider has no LSTM or GRU operator for it (only the Scan of a projected "
    f"LSTM runs); {REMEDY}"
)


def load(
    path: str | os.PathLike[str],
    provider: str = "auto",
    threads: int | None = None,
    *,
    states: Mapping[str, str] | None = None,
    spin: float = 0.0,
    cuda_graph: bool = False,
    trial: bool | None = False,
) -> Model:
    """Open an exported model.

    Args:
        path: the .onnx file.
        provider: "cpu"; "cuda", which means CUDA or an error that names the cause; or "auto".
        threads: at most how many threads compute; None is one a core.  Small steps of a bare LSTM take one:
            the others would keep them waiting.
        states: for stateful models from elsewhere, each state input and the output that feeds it,
            such as ``{"state": "stateN"}``.  Files from lstm-onnx know their own.
        spin: seconds that one of several threads without work stays awake for the next, on cores that do
            nothing else; 0, the default, lets it sleep at once.  With 0.001 steps of a large model that come
            one after another are up to 1.7 times as fast, and what shares the cores, such as PyTorch, up
            to 1.6 times as slow.
        cuda_graph: on CUDA, capture a stream's step as a CUDA graph for each chunk shape and replay it;
            every node must run on CUDA, so a projection has to be folded.
        trial: open the file in a child process first, and run it once there at the smallest sizes, within
            limits of time (20 s for each of the two, and more for a large file) and memory: a file
            from elsewhere can end or hang whoever opens it, and no exception comes of that.  It costs what
            a program takes that does the same, a Python start included.  None does so where the file is not,
            byte for byte, one that lstm-onnx wrote.  What a file does on later inputs no trial tells.

    Raises:
        FileError: `path` is no path, or the file is missing, empty, a folder, a pipe or a device.
        ModelError: it is not a model, ONNX Runtime cannot run it, `states` maps no input to an
            output of it (of a bare LSTM, to any but its own), or the child of a trial ended before it had run
            the file; the message says how, and in which stage.
        ProviderError: the provider is unknown, is not there, or cannot run the model.
        MissingDependencyError: no usable ONNX Runtime is installed, or one too old for `spin`.
        InputError: `threads` or `spin` is not possible.
    """
    require_readable(path, "an .onnx file")
    own = _pairs(states)
    if trial is not False:
        from .trial import require_survival, wanted

        if trial or wanted(path):
            require_survival(path, provider, threads, states)
    before = stamp(path)
    session, used = open_session(path, provider, threads, spin=spin, cuda_graph=cuda_graph)
    return Model(os.fspath(path), session, used, own, threads, spin=spin, cuda_graph=cuda_graph, stamp=before)


def _pairs(states: Any) -> dict[str, str] | None:
    """The pairs of states that a caller names, once they are names (ModelError)."""
    if states is None:
        return None
    if not isinstance(states, Mapping) or not all(isinstance(name, str) for pair in states.items() for name in pair):
        raise ModelError(
            "states must map each state input to the output that feeds it, such as {'h': 'hN', 'c': 'cN'}; "
            f"it is {shown(states)}"
        )
    return dict(states)


class Model:
    """A model that is open for running.  Made by `load`.

    Attributes:
        path: where it was read from, as `load` was told.
        file: the same in full, with links followed.
        provider: "cpu" or "cuda", where it runs.
        threads, spin: what `load` was asked for.
        stamp: what tells the file that was loaded from one that takes its place.
        session: the ``onnxruntime.InferenceSession``.
        inputs: each input's name, dtype and axes.
        outputs: the same for outputs.
        states: which output feeds which state input at the next step.
        counts: which inputs hold numbers of steps, such as lengths, and along which axis.
        metadata: what the file's metadata says: the spec of a bare LSTM, the inputs of a module, what
            states start from, options, versions, the weights' digest.
        chunks_differ: where chunks were found to give other numbers than the whole, "" where they were
            compared and did not; None as long as they were not compared.
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
        stamp: tuple[int, ...] | None = None,
    ) -> None:
        self.path = path
        self.stamp = stamp
        self.cuda_graph = cuda_graph
        self.provider = provider
        self.threads = threads
        self.spin = spin
        self.session = session
        self._repeats = Repeats()
        self._single: Any = None
        self._opening = threading.Lock()
        self.chunks_differ: str | None = None
        # Where the file is, for who opens it again when the program, or its pickle, is in another folder.
        self.file = os.path.realpath(path)
        own = None if states is None else dict(states)
        self._pickled = (self.file, provider, threads, own, spin, cuda_graph)
        try:
            self.metadata = Metadata.from_metadata(session.get_modelmeta().custom_metadata_map)
            limits = self.metadata.axis_limits
            self.inputs = {arg.name: ValueInfo.of(arg, limits) for arg in session.get_inputs()}
            self.outputs = {arg.name: ValueInfo.of(arg) for arg in session.get_outputs()}
            self.counts = counts_of(self.metadata, self.inputs)
            self.metadata = replace(self.metadata, initial=fitting_initial(self.metadata.initial, self.inputs))
        except (ConfigError, ModelError) as error:
            raise ModelError(f"{path}: {error}") from error
        except UnicodeDecodeError as error:
            raise ModelError(f"{path}: is damaged: a name in it is not UTF-8 ({error})") from error
        self.states = dict(self.metadata.states if states is None else states)
        for source, target in self.states.items():
            for name, known, kind in ((source, self.inputs, "input"), (target, self.outputs, "output")):
                if name not in known:
                    raise ModelError(
                        f"{path}: the state {kind} {name!r} is not there; its {kind}s are {', '.join(known)}"
                    )
        if self.metadata.spec is not None:
            self._require_own_states()
            expected = (("input", "h0", "c0"), self.inputs), (("output", "hn", "cn"), self.outputs)
            absent = [name for names, known in expected for name in names if name not in known]
            if absent:
                raise ModelError(
                    f"{path}: its metadata says a bare LSTM, and {', '.join(absent)} is not there; export it again"
                )
        self._refuse_double_on_cpu()
        sleep_if_ending()
        watch(sleeping=self, forking=self)

    def _require_own_states(self) -> None:
        """Refuse a bare LSTM whose h or c its caller would feed by another output than its own (ModelError).

        What its metadata says is compared when a stream is opened.
        """
        said = self.metadata.states
        for source, target in self.states.items():
            if _STATES.get(source) != target and (said.get(source) != target or source not in _STATES):
                own = ", ".join(f"{name} <- {end}" for name, end in _STATES.items())
                raise ModelError(f"{self.path}: is a bare LSTM with {own}; {target} does not feed {source}")

    def _refuse_double_on_cpu(self) -> None:
        if self.provider != "cpu":
            return
        spec, options = self.metadata.spec, self.metadata.options
        if spec is not None and options is not None:
            refused = self.inputs["input"].dtype == np.float64 and (spec.proj_size == 0 or options.projection == "fold")
        else:
            refused = runs_no_double(self.session, self.inputs, self.outputs)
        if refused:
            raise ProviderError(f"{self.path}: {_NO_DOUBLE}")

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return isinstance(self.session, _Closed)

    def close(self) -> None:
        """Let go of the session and its memory; a run that is under way in another thread ends first."""
        self.session = self._single = _Closed(f"{self.path}: is closed; load it again")
        self._repeats = Repeats()

    def let_sleep(self) -> None:
        """See `shutdown`: the interpreter is ending."""
        if not self.closed:
            # Never None: no thread may fall asleep on the way to a session, with a lock that the main one needs.
            self.session, self._single = Gate(self.session), Gate(self._single or self.session)
        self._repeats = Repeats()

    def forked(self) -> None:
        """In a forked child sessions on the CPU go on, and CUDA does not."""
        self._opening = threading.Lock()
        if self.provider == "cuda" and not self.closed:
            self.session = self._single = _Closed(
                f"{self.path}: was loaded on CUDA before this process was forked, which CUDA does not take; load it in "
                'the child, or start that with multiprocessing\'s method "spawn"'
            )

    def __enter__(self) -> Model:
        """For ``with lstm_onnx.load(path) as model:``."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by path and options: another process opens the file anew."""
        return _reopened, self._pickled

    def warm_up(self, **sizes: int) -> None:
        """Run once on zeros, so that the first real run finds memory and kernels ready.

        Args:
            sizes: of the named axes, such as ``batch=1, time=10``; 1, or the least that the model takes, where
                nothing is said.

        Raises:
            InputError: an axis is not the model's, or a size is not possible.
            RunError: ONNX Runtime failed while running, or memory ran out.
        """
        known = {dim for info in self.inputs.values() for dim in info.shape if isinstance(dim, str)}
        unknown = [name for name in sizes if name not in known]
        if unknown:
            raise InputError(f"{', '.join(unknown)}: no axis of the model; its axes are {', '.join(sorted(known))}")
        sizes = {name: positive_integer(name, size) for name, size in sizes.items()}
        # Ones, where a count of zero would be no sequence at all.
        try:
            feeds = {
                name: np.ones(_shape_at(info, sizes), info.dtype)
                for name, info in self.inputs.items()
                if name not in self.states and not (name == "lengths" and self.spec is not None)
            }
        except (MemoryError, ValueError) as error:
            raise InputError(f"there is no memory for inputs of the sizes {sizes}: {error}") from error
        known_sizes = axis_sizes(self.inputs, feeds)
        for name in self.states:
            info = self.inputs[name]
            if start(info, known_sizes, self.metadata.initial.get(name)) is None:
                # Others name each open axis apart (tf2onnx), so that a state's batch follows from no other input.
                feeds[name] = np.zeros(_shape_at(info, {**sizes, **known_sizes}), info.dtype)
        self.run(feeds)

    def one_thread(self) -> Any:
        """A session whose runs stay in the thread that calls them, opened when it is first asked for.

        It is `session` itself where that has one thread, runs on CUDA, or was opened from a file that is
        not there any more.
        """
        with self._opening:
            if self._single is None:
                self._single = single_session(self)
            return self._single

    def session_for(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """The session that runs such inputs fastest: `one_thread` where they are few and no thread spins.

        Of a module `session`: what else it computes its states do not tell.
        """
        if self.spec is None or self.provider == "cuda" or self.spin:
            return self.session
        states = {name: array for name, array in arrays.items() if name in self.states}
        others = {name: array for name, array in arrays.items() if name not in self.states}
        return self.one_thread() if is_small(self.inputs, states, others) else self.session

    @property
    def spec(self) -> LSTMSpec | None:
        """The sizes of a bare LSTM; None for any other model."""
        return self.metadata.spec

    def __call__(self, input: Any, states: tuple[Any, Any] | None = None, *, lengths: Any = None) -> tuple[Any, Any]:
        """nn.LSTM's calling convention, for a bare LSTM.

        Args:
            input: ``(time, batch, input_size)``, ``(batch, time, input_size)`` with batch_first, or
                one sequence ``(time, input_size)``.
            states: (h0, c0) of shapes ``(L*D, batch, proj_size or hidden_size)`` and
                ``(L*D, batch, hidden_size)``, without the batch axis for one sequence; zeros, or what
                `metadata.initial` holds, when left out.
            lengths: ``(batch,)`` integers from 1 to time, for a model exported with lengths; every
                sequence whole when left out.

        A NaN in `input` reaches ONNX Runtime as it is, and its LSTM on the CPU does not carry it on as
        PyTorch's does: what comes after it looks like numbers.

        Returns:
            ``output, (hn, cn)``, of the kind that `input` is: numpy arrays for numpy, torch tensors
            for torch.

        Raises:
            InputError: something does not fit; the message names it.
            RunError: ONNX Runtime failed while running, or memory ran out.
        """
        spec = self.metadata.spec
        if spec is None:
            raise InputError(
                f"{self.path}: is not a bare LSTM; call run({{name: array}}) with {', '.join(self.inputs)}"
            )
        x, restore = to_numpy(input, self.inputs["input"], "input")
        feeds = {"input": x}
        if states is not None:
            if not isinstance(states, (tuple, list)) or len(states) != 2:
                raise InputError("states must be the pair (h0, c0)")
            for name, value in zip(("h0", "c0"), states, strict=True):
                feeds[name], _ = to_numpy(value, self.inputs[name], name)
        unbatched = x.ndim == 2
        if unbatched:
            if lengths is not None:
                raise InputError("lengths go with a batch; one sequence (time, input_size) is taken whole")
            feeds = _batched(feeds, spec)
        if lengths is not None:
            feeds["lengths"] = np.asarray(to_numpy(lengths, None, "lengths")[0])
        results = self.run(feeds)
        output, hn, cn = results["output"], results["hn"], results["cn"]
        if unbatched:
            output, hn, cn = output.squeeze(0 if spec.batch_first else 1), hn[:, 0], cn[:, 0]
        return restore(output), (restore(hn), restore(cn))

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run any model by the names of its inputs.

        States that are left out start from `metadata.initial`, and from zeros where that says nothing;
        their axes are as long as those of the same name in what is given.  A bare LSTM's ``lengths``
        that are left out are every sequence whole.

        Args:
            feeds: input names to arrays of the shapes in `inputs`.

        Returns:
            Output names to arrays, of the kind that the first array in `feeds` is.

        Raises:
            InputError: something does not fit; the message names it.
            RunError: ONNX Runtime failed while running, or memory ran out.
        """
        if not isinstance(feeds, Mapping):
            raise InputError(f"run takes names to arrays, such as {{name: array}}, and not a {type(feeds).__name__}")
        if self.provider == "cuda":
            from .device import device_of, run_on_device

            if any(device_of(value) == "cuda" for value in feeds.values()):
                return run_on_device(self, feeds)
        # Lengths are numbers to be checked each time; all else that is checked are names, shapes and dtypes.
        key = key_of(feeds) if self.provider == "cpu" and "lengths" not in feeds else None
        binding = None if key is None else self._repeats.find(key)
        if binding is not None and key is not None:
            self.require_counts(feeds)
            for name, array in feeds.items():
                binding.inputs[name][...] = array
            try:
                binding.run()
            except RunError:
                # Either the model fails on this input, and then it does so again, or its outputs' shapes follow
                # from more than its inputs' shapes, and then it must not be bound.
                results = self._run(feeds, None)
                self._repeats.never(key)
                return results
            return {name: array.copy() for name, array in binding.outputs.items()}
        return self._run(feeds, key)

    def _run(self, feeds: Mapping[str, Any], key: Key | None) -> dict[str, Any]:
        """What is not bound; it may be from now on, under `key`."""
        arrays: dict[str, np.ndarray] = {}
        restore = None
        for name, value in feeds.items():
            arrays[name], own = to_numpy(value, self.inputs.get(name), name)
            restore = restore or own
        arrays = checked(self.inputs, self.completed(arrays))
        if self.spec is None:  # lengths of a bare LSTM are complete, and so checked
            self.require_counts(arrays)
        names = list(self.outputs)
        try:
            values = self.session.run(names, arrays)
        except MemoryError as error:
            raise RunError(f"{self.path}: ran out of memory while running; give it less at a time") from error
        except ort_errors() as error:
            if self.provider == "cpu" and refuses_double(error):
                raise RunError(f"{self.path}: {_NO_DOUBLE}") from error
            raise RunError(f"{self.path}: ONNX Runtime failed while running: {first_line(error)}") from error
        if key is not None:
            self._repeats.learn(key, self.session_for, self.path, self.inputs, self.outputs, arrays, values)
        return {
            name: restore(value) if restore and isinstance(value, np.ndarray) else value
            for name, value in zip(names, values, strict=True)
        }

    def require_counts(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Refuse lengths that are not from 1 to their axis' size, and the like (InputError)."""
        if self.counts:
            require_counts(self.counts, arrays, axis_sizes(self.inputs, arrays))

    def completed(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`arrays` with absent states and a bare LSTM's absent lengths filled in."""
        sizes = axis_sizes(self.inputs, arrays)
        for name in self.states:
            if name in arrays:
                continue
            absent = start(self.inputs[name], sizes, self.metadata.initial.get(name))
            if absent is not None:  # or it is reported as missing
                arrays[name] = absent
        if self.spec is not None and "lengths" in self.inputs and "batch" in sizes and "time" in sizes:
            batch, time = sizes["batch"], sizes["time"]
            given = arrays.get("lengths")
            arrays["lengths"] = np.full(batch, time, np.int32) if given is None else checked_lengths(given, batch, time)
        elif "lengths" in arrays and "lengths" not in self.inputs and self.spec is not None:
            raise InputError(f"{self.path}: was exported without lengths; export it again with lengths = true")
        return arrays

    def stream(self, batch: int = 1, *, check: bool = True) -> Stream:
        """A stream that carries the states from chunk to chunk, for `batch` sequences at once.

        Args:
            batch: how many sequences go on side by side.
            check: for a file whose metadata does not say whether it may be streamed, compare chunks of six
                random steps with the whole, once, when the first stream is opened.

        Raises:
            InputError: the model has no states to carry, or gives other numbers in chunks than in one piece,
                as one does that is bidirectional; or the batch is not possible.
        """
        from .stream import Stream

        return Stream(self, batch, check=check)

    def pool(self, slots: int = 64, *, check: bool = True) -> Pool:
        """A pool of up to `slots` streams that are stepped together, as one batch.

        Args:
            slots: how many streams can be open at once.
            check: as in `stream`.

        Raises:
            InputError: the model cannot be streamed (see `stream`), its batch is fixed, or so many slots are
                not possible or do not fit into memory.
        """
        from .pool.pool import Pool

        return Pool(self, slots, check=check)

    def map(self, sequences: Iterable[Any], **options: Any) -> Iterator[Any]:
        """Run the model on many sequences of varying length, in their order; see `runtime.map.map_sequences`.

        Args:
            sequences: any iterable, larger than memory if need be, of arrays ``(time, input_size)``, of
                ``(array, (h0, c0))``, or of dicts of arrays by input name, without the batch axis.
            options: `workers`, `look_ahead`, `batch` and `progress`.

        Yields:
            ``output, (hn, cn)`` of each sequence; of a dict, or for a module, a dict of outputs.

        Raises:
            InputError: at once, an option is unknown or not possible.
            InputError, RunError: a sequence does not fit, or fails; the message gives its number, and
                all results before it have been yielded.
        """
        from .map.map import OPTIONS, map_sequences

        if unknown := [name for name in options if name not in OPTIONS]:
            raise InputError(f"map has no option {shown(unknown[0])}; its options are {', '.join(OPTIONS)}")
        return map_sequences(self, sequences, **options)

    def __repr__(self) -> str:
        """Path, provider and inputs."""
        inputs = "; ".join(str(info) for info in self.inputs.values())
        return f"<Model {self.path} on {self.provider}: {inputs}>"


def _shape_at(info: ValueInfo, sizes: Mapping[str, int]) -> list[int]:
    """An input's shape at the sizes of its named axes, the least where nothing is said."""
    return [sizes.get(str(dim), least) for dim, least in zip(info.shape, info.smallest_shape(), strict=True)]


class _Closed:
    """In the place of a session that was let go."""

    def __init__(self, message: str) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        raise RunError(self._message)


def _reopened(
    path: str, provider: str, threads: int | None, states: dict[str, str] | None, spin: float, cuda_graph: bool
) -> Model:
    return load(path, provider, threads, states=states, spin=spin, cuda_graph=cuda_graph)


def _batched(feeds: dict[str, np.ndarray], spec: LSTMSpec) -> dict[str, np.ndarray]:
    """One sequence and its states with a batch axis of 1."""
    batched = {"input": np.expand_dims(feeds["input"], 0 if spec.batch_first else 1)}
    for name in ("h0", "c0"):
        if name in feeds:
            if feeds[name].ndim != 2:
                raise InputError(
                    f"{name} has shape {feeds[name].shape}; beside one sequence (time, input_size) it has 2 axes"
                )
            batched[name] = feeds[name][:, np.newaxis]
    return batched

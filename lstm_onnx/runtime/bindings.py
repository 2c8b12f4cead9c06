"""Runs into buffers that are bound once: what a step costs is then the operator, not the call.

Binding arrays saves about half of the time of a small step: ONNX Runtime otherwise wraps each input,
allocates each output and copies both at every run.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import RunError
from .providers import first_line, ort_errors
from .shutdown import calls_onnxruntime
from .tensor_info import ValueInfo, axis_sizes

SMALL = 2**18
"""Bytes up to which copying into bound arrays is cheaper than handing them over anew."""
_MOST = 16
_MOST_NEVER = 512
Key = tuple[tuple[str, tuple[int, ...], str], ...]
"""Names, shapes and dtypes of what is fed."""


class Binding:
    """A session's inputs and outputs, bound to arrays in the CPU's memory.

    Write into `inputs`, call `run`, read from `outputs`.  Not for two threads at once: each has its own.

    Attributes:
        inputs: C-contiguous arrays by input name, of the model's dtypes and of fixed shapes.
        outputs: the same for outputs; their shapes must be what the model gives for such inputs.
    """

    def __init__(
        self, session: Any, path: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
    ) -> None:
        self.inputs = dict(inputs)
        self.outputs = dict(outputs)
        self.path = path
        binding = session.io_binding()
        try:
            for name, array in self.inputs.items():
                binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            for name, array in self.outputs.items():
                binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        except ort_errors() as error:
            raise RunError(f"{path}: ONNX Runtime cannot bind its arrays: {first_line(error)}") from error
        self.errors: tuple[type[BaseException], ...] = (*ort_errors(), MemoryError)
        self.execute = _execution(session, binding)

    def run(self) -> None:
        """Run on what is in `inputs`, into `outputs`.

        Raises:
            RunError: ONNX Runtime failed; what `outputs` hold then is not defined.
        """
        try:
            self.execute()
        except self.errors as error:
            raise self.failure(error) from error

    def failure(self, error: BaseException) -> RunError:
        """What to raise for an error of `execute`."""
        return RunError(f"{self.path}: ONNX Runtime failed while running: {first_line(error)}")


calls_onnxruntime(Binding.run)


def _execution(session: Any, binding: Any) -> Callable[[], object]:
    """A call without arguments that runs what is bound.

    The method that Python's own wrapper ends in, where it is to be had: the wrapper looks for captured
    WebGPU graphs at each run, a tenth of the time of a small step.
    """
    inner, bound = getattr(session, "_sess", None), getattr(binding, "_iobinding", None)
    run = getattr(inner, "run_with_iobinding", None)
    if callable(run) and bound is not None:
        return partial(run, bound, None)
    return partial(session.run_with_iobinding, binding)


def key_of(feeds: Mapping[str, Any]) -> Key | None:
    """What tells feeds of one kind; None where one of them is no numpy array."""
    key = []
    for name, array in feeds.items():
        if type(array) is not np.ndarray:
            return None
        key.append((name, array.shape, array.dtype.char))
    return tuple(key)


def output_buffers(
    infos: Mapping[str, ValueInfo], outputs: Mapping[str, ValueInfo], feeds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """Arrays for what the model gives for such feeds; None where a size does not follow from theirs, or is large."""
    sizes = axis_sizes(infos, feeds)
    buffers = {}
    for name, info in outputs.items():
        shape = [sizes.get(dim) if isinstance(dim, str) else dim for dim in info.shape]
        if info.dtype is None or info.dtype.kind == "O" or None in shape:
            return None
        buffers[name] = np.empty([int(size) for size in shape if size is not None], info.dtype)
    total = sum(array.nbytes for array in (*feeds.values(), *buffers.values()))
    return buffers if total <= SMALL else None


class Repeats:
    """Bindings for feeds whose shapes come again: each thread's own, the last used kept.

    A file may declare an output of its input's size and give another one, which follows from the inputs'
    values (NonZero, Compress, Slice).  ONNX Runtime refuses to write it into an array of the declared size,
    so that such feeds are known when a bound run fails and another one does not; see `never`.
    """

    def __init__(self) -> None:
        self._threads = threading.local()
        self._never: set[Key] = set()

    def find(self, key: Key) -> Binding | None:
        """The binding for feeds of this kind, where they have come twice."""
        known: OrderedDict[Key, Binding | None] | None = getattr(self._threads, "known", None)
        binding = None if known is None else known.get(key)
        if binding is not None and known is not None:
            known.move_to_end(key)
        return binding

    def learn(
        self,
        key: Key,
        session: Callable[[Mapping[str, np.ndarray]], Any],
        path: str,
        infos: Mapping[str, ValueInfo],
        outputs: Mapping[str, ValueInfo],
        arrays: Mapping[str, np.ndarray],
        values: Sequence[Any],
    ) -> None:
        """Note that feeds of this kind were run, as `arrays`, and gave `values`; bind them the second time.

        `session` gives the one that is to run them.
        """
        if key in self._never:
            return
        known: OrderedDict[Key, Binding | None] = getattr(self._threads, "known", None) or OrderedDict()
        self._threads.known = known
        if key not in known:
            known[key] = None
        else:
            buffers = output_buffers(infos, outputs, arrays)
            fits = buffers is not None and [array.shape for array in buffers.values()] == [np.shape(v) for v in values]
            if buffers is None or not fits or any(array.dtype.kind == "O" for array in arrays.values()):
                return
            inputs = {name: array.copy() for name, array in arrays.items()}
            try:
                known[key] = Binding(session(inputs), path, inputs, buffers)
            except RunError:  # what was asked for has been run all the same
                self.never(key)
        while len(known) > _MOST:
            known.popitem(last=False)

    def never(self, key: Key) -> None:
        """Bind no such feeds any more, in any thread."""
        if len(self._never) >= _MOST_NEVER:
            self._never.clear()
        self._never.add(key)
        known: OrderedDict[Key, Binding | None] | None = getattr(self._threads, "known", None)
        if known is not None:
            known.pop(key, None)

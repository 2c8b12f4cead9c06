"""Runs models with buffers that are bound once, so that a small step does not spend most of its time on the call.

Otherwise ONNX Runtime wraps each input, allocates each output and copies both in every run, which takes about half of
the time of a small step.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import RunError
from .call import call
from .ort_messages import first_line
from .providers import ort_errors
from .tensor_info import ValueInfo, axis_sizes
from .tuning import MAX_BOUND_CALL_BYTES, MAX_CALL_BINDINGS, MAX_UNBINDABLE_KEYS

Key = tuple[tuple[str, tuple[int, ...], str], ...]
"""The signature of feeds: names, shapes and dtypes."""


class Binding:
    """A session's inputs and outputs, bound to arrays in the CPU's memory.

    Write into `inputs`, call `run`, read from `outputs`.  For one thread at a time.

    Attributes:
        inputs: C-contiguous arrays by input name, of the model's dtypes and of fixed shapes.
        outputs: the same for outputs; their shapes must be those that the model gives for such inputs.
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
            raise RunError(f"ONNX Runtime cannot bind its arrays: {first_line(error)}", path=path) from error
        self.errors: tuple[type[BaseException], ...] = (*ort_errors(), MemoryError)
        self._run = _bound_run(session, binding)
        self.execute = partial(self._run, None)

    def run(self, options: Any) -> None:
        """Run on what is in `inputs`, into `outputs`; `options` are an ``onnxruntime.RunOptions`` or None.

        Raises:
            RunError: ONNX Runtime failed; what `outputs` hold then is undefined.
        """
        call(self.path, self._run, options)


def _bound_run(session: Any, binding: Any) -> Callable[[Any], object]:
    """A function that runs what is bound, with an ``onnxruntime.RunOptions`` or None.

    If it exists, the method that ONNX Runtime's Python wrapper calls in the end: the wrapper looks for captured WebGPU
    graphs in each run, which takes a tenth of the time of a small step.
    """
    inner, bound = getattr(session, "_sess", None), getattr(binding, "_iobinding", None)
    run = getattr(inner, "run_with_iobinding", None)
    if callable(run) and bound is not None:
        return partial(run, bound)
    return partial(session.run_with_iobinding, binding)


def key_of(feeds: Mapping[str, Any]) -> Key | None:
    """The signature of `feeds`; None where one of them is not a numpy array."""
    key = []
    for name, array in feeds.items():
        if type(array) is not np.ndarray:
            return None
        key.append((name, array.shape, array.dtype.char))
    return tuple(key)


def output_buffers(
    infos: Mapping[str, ValueInfo], outputs: Mapping[str, ValueInfo], feeds: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """Arrays for the outputs of such feeds; None where a size does not follow from the inputs, or is too large."""
    sizes = axis_sizes(infos, feeds)
    buffers = {}
    for name, info in outputs.items():
        shape = [sizes.get(dim) if isinstance(dim, str) else dim for dim in info.shape]
        if info.dtype is None or info.dtype.kind == "O" or None in shape:
            return None
        buffers[name] = np.empty([int(size) for size in shape if size is not None], info.dtype)
    total = sum(array.nbytes for array in (*feeds.values(), *buffers.values()))
    return buffers if total <= MAX_BOUND_CALL_BYTES else None


class _ThreadBindings(threading.local):
    """The bindings of one thread by signature; None for a signature that has occurred once."""

    def __init__(self) -> None:
        self.known: OrderedDict[Key, Binding | None] = OrderedDict()


class BindingCache:
    """Bindings for signatures that occur again, per thread; the least recently used is dropped.

    A file may declare an output with the size of an input, although the size depends on values (NonZero, Compress,
    Slice).  ONNX Runtime refuses to write such an output into an array of the declared size.  The signature is detected
    by a bound run that fails where an unbound one does not; see `exclude`.
    """

    def __init__(self) -> None:
        self._threads = _ThreadBindings()
        self._excluded: set[Key] = set()

    def find(self, key: Key) -> Binding | None:
        """The binding for this signature, once it has occurred twice."""
        known = self._threads.known
        binding = known.get(key)
        if binding is not None:
            known.move_to_end(key)
        return binding

    def record(
        self,
        key: Key,
        session_for: Callable[[Mapping[str, np.ndarray]], Any],
        path: str,
        infos: Mapping[str, ValueInfo],
        outputs: Mapping[str, ValueInfo],
        arrays: Mapping[str, np.ndarray],
        values: Sequence[Any],
    ) -> None:
        """Record that feeds of this signature were run, and bind it the second time.

        Args:
            key: the signature.
            session_for: returns the session that should run such arrays.
            path: of the model, for messages.
            infos: the model's inputs.
            outputs: the model's outputs.
            arrays: the complete feeds of the run.
            values: its results, in the order of `outputs`.
        """
        if key in self._excluded:
            return
        known = self._threads.known
        if key not in known:
            known[key] = None
        else:
            buffers = output_buffers(infos, outputs, arrays)
            fits = buffers is not None and [array.shape for array in buffers.values()] == [np.shape(v) for v in values]
            if buffers is None or not fits or any(array.dtype.kind == "O" for array in arrays.values()):
                return
            inputs = {name: array.copy() for name, array in arrays.items()}
            try:
                known[key] = Binding(session_for(inputs), path, inputs, buffers)
            except RunError:  # the caller has its results anyway
                self.exclude(key)
        while len(known) > MAX_CALL_BINDINGS:
            known.popitem(last=False)

    def exclude(self, key: Key) -> None:
        """Never bind this signature, in any thread."""
        if len(self._excluded) >= MAX_UNBINDABLE_KEYS:
            self._excluded.clear()
        self._excluded.add(key)
        self._threads.known.pop(key, None)

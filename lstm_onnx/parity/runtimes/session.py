"""Makes an engine look like an ONNX Runtime session, so that a `Model` and its streams and pools run on it."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ModelError, RunError
from .process import EngineProcess

_NUMBERS = itertools.count()
_DELEGATED = (
    "inputs modelmeta outputs overridable_initializers provider_graph_assignment_info providers session_options"
)


class EngineSession:
    """The part of ``InferenceSession`` that `Model` uses: ONNX Runtime describes the file, and the engine runs it.

    Attributes:
        engine: the process that runs it.
        note: how it was opened, if sizes had to be fixed; else "".
    """

    _sess = None  # `runtime.bindings` would call ONNX Runtime through it

    def __init__(self, engine: EngineProcess, described: Any, path: str, keep: object = None) -> None:
        """Open a file.

        Args:
            engine: the engine that runs it.
            described: ONNX Runtime's session of the same file.
            path: the file, which may be opened again later.
            keep: anything that must live as long as this, such as the file's temporary folder.

        Raises:
            ModelError: the engine cannot open it.
        """
        self.engine = engine
        self._path, self._keep, self._number = path, keep, next(_NUMBERS)
        self._names = [item.name for item in described.get_outputs()]
        for name in _DELEGATED.split():
            setattr(self, f"get_{name}", getattr(described, f"get_{name}"))
        self._fixed = False
        self.note = ""
        try:
            self._started = engine.open(self._number, path, self._names)
        except ModelError as error:
            if not engine.fixes_sizes:
                raise
            self._open_fixed(f"opens it at one size of each axis only; with named axes: {error.name}")
        # Not a request, since garbage collection may happen during another request.
        weakref.finalize(self, lambda unused, number: unused.append(number), engine.unused, self._number)

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, np.ndarray], options: Any = None) -> list[Any]:
        """Run the file, and return the outputs in `names`.

        Raises:
            RunError: the engine failed.
        """
        del options
        if self._started != self.engine.started:  # its process has ended in a run of this file or another one
            self._started = self.engine.open(self._number, self._path, self._names, fixed=self._fixed)
        try:
            results = self.engine.run(self._number, feeds)
        except RunError as error:
            if self._fixed or not self.engine.fixes_sizes:
                raise
            self._open_fixed(f"runs it at one size of each axis only; with named axes: {error.message}")
            results = self.engine.run(self._number, feeds)
        wanted = self._names if names is None else names
        absent = [name for name in wanted if name not in results]
        if absent:
            raise RunError(f"{self.engine.title} returns no output {', '.join(absent)}")
        return [results[name] for name in wanted]

    def _open_fixed(self, note: str) -> None:
        """Open the file again for the sizes of each run; `note` says why."""
        self._fixed = True
        self._started = self.engine.open(self._number, self._path, self._names, fixed=True)
        self.note = f"{self.engine.title} {note}"

    def io_binding(self) -> _Binding:
        """Inputs and outputs at fixed addresses."""
        return _Binding()

    def run_with_iobinding(self, binding: _Binding, options: Any = None) -> None:
        """Run on the bound arrays.

        Raises:
            RunError: the engine failed, or an output's shape or dtype differs from that of the bound array.
        """
        results = self.run(
            list(binding.outputs), {name: array.copy() for name, array in binding.inputs.items()}, options
        )
        for (name, array), result in zip(binding.outputs.items(), results, strict=True):
            if array.shape != result.shape or array.dtype != result.dtype:
                raise RunError(f"{name} is {result.dtype} {result.shape}, but {array.dtype} {array.shape} was expected")
            array[...] = result


class _Binding:
    """The bound inputs and outputs, as arrays on the caller's memory."""

    def __init__(self) -> None:
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}

    def bind_input(self, name: str, device: str, index: int, dtype: Any, shape: Sequence[int], address: int) -> None:
        """Bind memory from which an input is read at each run."""
        del device, index
        self.inputs[name] = _array(dtype, shape, address)

    def bind_output(self, name: str, device: str, index: int, dtype: Any, shape: Sequence[int], address: int) -> None:
        """Bind memory to which an output is written at each run."""
        del device, index
        self.outputs[name] = _array(dtype, shape, address)


def _array(dtype: Any, shape: Sequence[int], address: int) -> np.ndarray:
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    memory = (ctypes.c_char * size).from_address(address) if size else bytearray()
    return np.frombuffer(memory, kind).reshape(tuple(shape))

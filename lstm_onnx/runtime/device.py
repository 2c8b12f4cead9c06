"""Runs models with arrays that stay on a device: a stream's states on the GPU, and tensors that are already there.

It works for any device of ONNX Runtime, so that the same code is tested with the CPU's memory.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .bindings import Key, key_of
from .call import call
from .cancellation import options_of
from .conversion import converter_to, to_numpy
from .loaded_model import LoadedModel
from .ort_messages import first_line
from .providers import NO_GRAPH, graph_options, onnxruntime, ort_errors
from .tensor_info import ValueInfo, axis_sizes, known_shape
from .tuning import MAX_CUDA_GRAPHS, MAX_STREAM_BINDINGS

_DLPACK_DEVICES = {1: "cpu", 2: "cuda", 3: "cpu"}
"""DLPack's device types with which ONNX Runtime can share memory."""


_captured: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
"""The number of CUDA graphs for each session, which ONNX Runtime keeps until the session ends."""


@dataclass(frozen=True)
class _Bound:
    """Chunks of one shape: their input and output buffers, and a binding per direction of the double buffer."""

    chunk: dict[str, Any]
    outputs: dict[str, Any]
    bindings: tuple[Any, Any]
    options: tuple[Any, Any]


class DeviceSteps:
    """A stream's steps with its states on a device, double-buffered: the next step reads what one step writes.

    With `graphs`, each binding is captured as a CUDA graph and replayed, which requires a model opened with
    ``cuda_graph=True`` and all nodes on CUDA.
    """

    def __init__(
        self, model: LoadedModel, start: Mapping[str, np.ndarray], *, device: str = "cuda", graphs: bool = False
    ) -> None:
        self._model = model
        self._session = model.session
        self._device = device
        self._graphs = graphs
        self._value = onnxruntime().OrtValue
        self._states = tuple(
            {name: self._value.ortvalue_from_numpy(array, device, model.device_id) for name, array in start.items()}
            for _ in range(2)
        )
        self._current = 0
        self._bound: OrderedDict[Key, _Bound] = OrderedDict()

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The states, copied to the CPU."""
        return {name: value.numpy().copy() for name, value in self._states[self._current].items()}

    @state.setter
    def state(self, values: Mapping[str, np.ndarray]) -> None:
        for name, array in values.items():
            self._states[self._current][name].update_inplace(np.asarray(array, order="C"))

    def step(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs that are not states, on the CPU; the new states stay where they are.

        Raises:
            InputError: something does not fit.
            RunError: ONNX Runtime failed; the states are unchanged.
        """
        self._model.require_counts(feeds)
        key = key_of(feeds)
        bound = None if key is None or self._model.session is not self._session else self._bound.get(key)
        if bound is None:
            bound = self._bind(feeds)
            if key is not None:
                self._bound[key] = bound
            while len(self._bound) > MAX_STREAM_BINDINGS:
                self._bound.popitem(last=False)
        else:
            for name, array in feeds.items():
                bound.chunk[name].update_inplace(np.asarray(array, order="C"))
        run_binding(self._model, bound.bindings[self._current], bound.options[self._current])
        self._current ^= 1
        return {name: value.numpy().copy() for name, value in bound.outputs.items()}

    def _bind(self, feeds: Mapping[str, np.ndarray]) -> _Bound:
        model, device = self._model, self._device
        before = {name: value.numpy() for name, value in self._states[self._current].items()}
        arrays = model.validated({**feeds, **before})
        # The CPU reads lengths, even on CUDA.
        devices = {name: ("cpu", 0) if name == "lengths" else (device, model.device_id) for name in arrays}
        chunk = {
            name: self._value.ortvalue_from_numpy(array, *devices[name])
            for name, array in arrays.items()
            if name not in model.states
        }
        sizes = axis_sizes(model.inputs, arrays)
        ends = set(model.states.values())
        outputs = {
            name: self._value.ortvalue_from_shape_and_type(_shape(info, sizes), info.dtype, device, model.device_id)
            for name, info in model.outputs.items()
            if name not in ends
        }
        bindings = []
        for start, end in (self._states, self._states[::-1]):
            binding = model.session.io_binding()
            for name, value in (*chunk.items(), *start.items()):
                binding.bind_ortvalue_input(name, value)
            for name, value in outputs.items():
                binding.bind_ortvalue_output(name, value)
            for name, output in model.states.items():
                binding.bind_ortvalue_output(output, end[name])
            bindings.append(binding)
        return _Bound({name: chunk[name] for name in feeds}, outputs, (bindings[0], bindings[1]), self._options())

    def _options(self) -> tuple[Any, Any]:
        """With graphs, one for each binding of the session: it keeps the addresses that it was captured with."""
        if not self._graphs:
            return None, None
        captured = _captured.get(self._session, 0)
        if captured >= MAX_CUDA_GRAPHS:
            return graph_options(NO_GRAPH), graph_options(NO_GRAPH)
        _captured[self._session] = captured + 2
        return graph_options(captured + 1), graph_options(captured + 2)


def _shape(info: ValueInfo, sizes: Mapping[str, int]) -> list[int]:
    shape = known_shape(info, sizes)
    if info.dtype is None or shape is None:
        raise InputError(
            f"the output {info} has a size that does not follow from the inputs",
            hint="run it without a stream",
            name=info.name,
        )
    return shape


def run_binding(model: LoadedModel, binding: Any, options: Any = None) -> None:
    """Run what is bound.

    Raises:
        RunError: ONNX Runtime failed, or memory ran out.
    """

    def run() -> None:
        binding.synchronize_inputs()
        model.session.run_with_iobinding(binding, options or options_of(model))
        binding.synchronize_outputs()

    call(model.path, run)


def device_of(value: Any) -> str | None:
    """ONNX Runtime's name for the device of a DLPack tensor; None for other values and other devices."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack_device__"):
        return None
    return _DLPACK_DEVICES.get(int(value.__dlpack_device__()[0]))


def run_on_device(model: LoadedModel, feeds: Mapping[str, Any], *, device: str = "cuda") -> dict[str, Any]:
    """Run a model on tensors on its device, without copying them; the outputs stay there as well.

    Args:
        model: open on that device's provider.
        feeds: every input, except states and lengths that are left out, as DLPack tensors on `device` (or arrays on
            the CPU, which are copied there).
        device: "cuda".

    Returns:
        Output names to tensors of the first device tensor's library.

    Raises:
        InputError: a name, rank, size or dtype does not fit; or a tensor is not contiguous.
        RunError: ONNX Runtime failed.
    """
    value = onnxruntime().OrtValue
    values: dict[str, Any] = {}
    to_caller_type = None
    errors: tuple[type[BaseException], ...] = (*ort_errors(), BufferError)
    for name, tensor in feeds.items():
        if device_of(tensor) is None:
            array, _ = to_numpy(tensor, model.inputs.get(name), name)
            values[name] = value.ortvalue_from_numpy(np.asarray(array, order="C"), device, model.device_id)
            continue
        try:
            values[name] = value.from_dlpack(tensor)
        except errors as error:
            raise InputError(
                f"{name} cannot be used on its device: {first_line(error)} (.detach().contiguous() may help)", name=name
            ) from error
        to_caller_type = to_caller_type or converter_to(tensor)
    # Arrays without memory of their own: apart from counts and rows of tables, only shapes and dtypes are validated.
    streaming = model.metadata.streaming_or_default
    checked = {*model.counts, *model.metadata.table_rows, streaming.last, streaming.steps}
    shapes = {
        name: item.numpy() if name in checked else _shape_only(model.inputs.get(name), item)
        for name, item in values.items()
    }
    completed = model.validated(shapes)
    if model.spec is None:
        model.require_counts(completed)
    model.require_steps(completed, feeds)
    binding = model.session.io_binding()
    for name, array in completed.items():
        target = ("cpu", 0) if name == "lengths" else (device, model.device_id)
        passed = None if name == "lengths" else values.get(name)  # lengths were cast to int32
        binding.bind_ortvalue_input(name, passed or value.ortvalue_from_numpy(array, *target))
    for name in model.outputs:
        binding.bind_output(name, device, model.device_id)
    run_binding(model, binding)
    results = dict(zip(model.outputs, binding.get_outputs(), strict=True))
    for name in results.keys() & model.inputs.keys():  # an output that is an input itself is the caller's memory
        results[name] = value.ortvalue_from_numpy(results[name].numpy().copy(), device, model.device_id)
    return {name: to_caller_type(result) if to_caller_type else result.numpy() for name, result in results.items()}


def _shape_only(info: ValueInfo | None, value: Any) -> np.ndarray:
    dtype = np.float32 if info is None or info.dtype is None else info.dtype
    element = value.data_type().removeprefix("tensor(").removesuffix(")")
    known = {"float": "float32", "double": "float64"}.get(element, element)
    return np.broadcast_to(np.zeros((), known if known != "bfloat16" else dtype), value.shape())

"""Runs whose arrays stay on a device: a stream's states on the GPU, and tensors that are there already.

Everything is written for any device that ONNX Runtime knows, so that the same code is tested on the
CPU's memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, RunError
from .bindings import Key, key_of
from .providers import first_line, onnxruntime, ort_errors
from .tensor_info import ValueInfo, axis_sizes, checked, restorer, to_numpy

if TYPE_CHECKING:
    from .model import Model

_MOST_SHAPES = 8
_DLPACK_DEVICES = {1: "cpu", 2: "cuda", 3: "cpu"}
"""DLPack's numbers for the devices that ONNX Runtime can share memory with."""


@dataclass(frozen=True)
class _Bound:
    """Chunks of one shape: where they go, where the outputs come, and a binding for each way round of the states."""

    chunk: dict[str, Any]
    outputs: dict[str, Any]
    bindings: tuple[Any, Any]
    options: tuple[Any, Any]


class DeviceSteps:
    """A stream's steps with its states on a device, bound in turn: what one step writes the next one reads.

    With `graphs` each binding is captured as a CUDA graph and replayed, which takes a model opened
    with ``cuda_graph=True`` and all nodes on CUDA.
    """

    def __init__(
        self, model: Model, start: Mapping[str, np.ndarray], *, device: str = "cuda", graphs: bool = False
    ) -> None:
        self._model = model
        self._session = model.session
        self._device = device
        self._graphs = graphs
        self._value = onnxruntime().OrtValue
        self._states = tuple(
            {name: self._value.ortvalue_from_numpy(array, device, 0) for name, array in start.items()} for _ in range(2)
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
            self._states[self._current][name].update_inplace(np.ascontiguousarray(array))

    def step(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs that are not states, on the CPU; the new states stay where they are.

        Raises:
            InputError: something does not fit.
            RunError: ONNX Runtime failed; the states are as they were before.
        """
        self._model.require_counts(feeds)
        key = key_of(feeds)
        bound = None if key is None or self._model.session is not self._session else self._bound.get(key)
        if bound is None:
            bound = self._bind(feeds)
            if key is not None:
                self._bound[key] = bound
            while len(self._bound) > _MOST_SHAPES:
                self._bound.popitem(last=False)
        else:
            for name, array in feeds.items():
                bound.chunk[name].update_inplace(np.ascontiguousarray(array))
        run_bound(self._model, bound.bindings[self._current], bound.options[self._current])
        self._current ^= 1
        return {name: value.numpy().copy() for name, value in bound.outputs.items()}

    def _bind(self, feeds: Mapping[str, np.ndarray]) -> _Bound:
        model, device = self._model, self._device
        before = {name: value.numpy() for name, value in self._states[self._current].items()}
        arrays = checked(model.inputs, model.completed({**feeds, **before}))
        # Lengths are read by the CPU, also on CUDA.
        homes = {name: "cpu" if name == "lengths" else device for name in arrays}
        chunk = {
            name: self._value.ortvalue_from_numpy(array, homes[name], 0)
            for name, array in arrays.items()
            if name not in model.states
        }
        sizes = axis_sizes(model.inputs, arrays)
        ends = set(model.states.values())
        outputs = {
            name: self._value.ortvalue_from_shape_and_type(_shape(info, sizes), info.dtype, device, 0)
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
        return _Bound(
            {name: chunk[name] for name in feeds}, outputs, (bindings[0], bindings[1]), self._options(len(self._bound))
        )

    def _options(self, index: int) -> tuple[Any, Any]:
        """With graphs, each binding has its own: a graph has the addresses that it was captured with."""
        if not self._graphs:
            return None, None
        options = []
        for way in (1, 2):
            option = onnxruntime().RunOptions()
            option.add_run_config_entry("gpu_graph_id", str(2 * index + way))
            options.append(option)
        return options[0], options[1]


def _shape(info: ValueInfo, sizes: Mapping[str, int]) -> list[int]:
    shape = [sizes.get(dim) if isinstance(dim, str) else dim for dim in info.shape]
    if info.dtype is None or None in shape:
        raise InputError(f"the output {info} has a size that does not follow from the inputs; run it without a stream")
    return [int(size) for size in shape if size is not None]


def run_bound(model: Model, binding: Any, options: Any = None) -> None:
    """Run what is bound.

    Raises:
        RunError: ONNX Runtime failed, or memory ran out.
    """
    try:
        binding.synchronize_inputs()
        model.session.run_with_iobinding(binding, options)
        binding.synchronize_outputs()
    except MemoryError as error:
        raise RunError(f"{model.path}: ran out of memory while running; give it less at a time") from error
    except ort_errors() as error:
        raise RunError(f"{model.path}: ONNX Runtime failed while running: {first_line(error)}") from error


def device_of(value: Any) -> str | None:
    """The device of a DLPack tensor by ONNX Runtime's name; None of what is no such tensor, or elsewhere."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack_device__"):
        return None
    return _DLPACK_DEVICES.get(int(value.__dlpack_device__()[0]))


def run_on_device(model: Model, feeds: Mapping[str, Any], *, device: str = "cuda") -> dict[str, Any]:
    """Run a model on tensors that lie on its device, without moving them; the outputs stay there as well.

    Args:
        model: open on that device's provider.
        feeds: every input but absent states and lengths, as DLPack tensors on `device` (or arrays on
            the CPU, which are moved).
        device: "cuda".

    Returns:
        Output names to tensors of the first device tensor's library.

    Raises:
        InputError: a name, rank, size or dtype does not fit; or a tensor is not contiguous.
        RunError: ONNX Runtime failed.
    """
    value = onnxruntime().OrtValue
    held: dict[str, Any] = {}
    restore = None
    errors: tuple[type[BaseException], ...] = (*ort_errors(), BufferError)
    for name, tensor in feeds.items():
        if device_of(tensor) is None:
            array, _ = to_numpy(tensor, model.inputs.get(name), name)
            held[name] = value.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0)
            continue
        try:
            held[name] = value.from_dlpack(tensor)
        except errors as error:
            raise InputError(
                f"{name} cannot be used where it is: {first_line(error)} (.detach().contiguous() may help)"
            ) from error
        restore = restore or restorer(tensor)
    # Stand-ins without memory of their own: but of lengths only shapes and dtypes are looked at.
    shapes = {
        name: item.numpy() if name in model.counts else _stand_in(model.inputs.get(name), item)
        for name, item in held.items()
    }
    completed = checked(model.inputs, model.completed(shapes))
    if model.spec is None:
        model.require_counts(completed)
    binding = model.session.io_binding()
    for name, array in completed.items():
        home = "cpu" if name == "lengths" else device
        given = None if name == "lengths" else held.get(name)  # those were made int32
        binding.bind_ortvalue_input(name, given or value.ortvalue_from_numpy(array, home, 0))
    for name in model.outputs:
        binding.bind_output(name, device)
    run_bound(model, binding)
    results = dict(zip(model.outputs, binding.get_outputs(), strict=True))
    return {name: restore(result) if restore else result.numpy() for name, result in results.items()}


def _stand_in(info: ValueInfo | None, value: Any) -> np.ndarray:
    dtype = np.float32 if info is None or info.dtype is None else info.dtype
    element = value.data_type().removeprefix("tensor(").removesuffix(")")
    own = {"float": "float32", "double": "float64"}.get(element, element)
    return np.broadcast_to(np.zeros((), own if own != "bfloat16" else dtype), value.shape())

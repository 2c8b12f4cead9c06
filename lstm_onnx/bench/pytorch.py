"""Makes PyTorch's candidates: the module, called as in PyTorch code, in several settings.

torch is imported when a `TorchSide` is created, so the rest can be timed without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np

from ..exporter.dependencies import import_torch
from ..exporter.sources.source import LSTMSource, Source
from ..input_spec import InputSpec
from .measure import Candidate

EAGER, NO_MKLDNN, PACKED = "PyTorch", "PyTorch, mkldnn off", "PyTorch, packed"


@contextlib.contextmanager
def torch_setting(torch: Any, threads: int, *, mkldnn: bool = True) -> Iterator[None]:
    """A context without gradients in which PyTorch runs on `threads` threads, and with or without oneDNN."""
    # `mkldnn.flags` would also set TF32, and warns about that on processors without it.
    was_enabled, before = torch.backends.mkldnn.enabled, torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        torch.backends.mkldnn.enabled = mkldnn
        with torch.inference_mode():
            yield
    finally:
        torch.backends.mkldnn.enabled = was_enabled
        torch.set_num_threads(before)


class TorchSide:
    """A source's module on a device.

    Args:
        source: the module's source.
        device: "cpu" or "cuda" (if this torch can use it); copying inputs to it and outputs from it is part of what is
            timed.
        threads: the number of torch's threads while a candidate runs.

    Raises:
        MissingDependencyError: torch is not installed.
        ExportError: the module's parameters have no values.
    """

    def __init__(self, source: Source, device: str, threads: int) -> None:
        self.torch = import_torch("bench times it")
        self.source = source
        self.device = device if device == "cpu" or self.torch.cuda.is_available() else "cpu"
        self.threads = threads

    def settings(self) -> Mapping[str, Callable[[], AbstractContextManager[None]]]:
        """The settings worth timing, by candidate name.

        oneDNN repacks the weights at each call, so short calls are faster without it; they can also be faster on one
        thread than on several.
        """
        settings = {EAGER: partial(torch_setting, self.torch, self.threads)}
        if self.device == "cpu":
            settings[NO_MKLDNN] = partial(torch_setting, self.torch, self.threads, mkldnn=False)
            if self.threads > 1:
                settings[f"{NO_MKLDNN}, 1 thread"] = partial(torch_setting, self.torch, 1, mkldnn=False)
        return settings

    def candidates(self, make: Callable[[], Callable[[], Any]], *, compared: bool = True) -> list[Candidate]:
        """One candidate per setting, each with a `run` from `make`; `compared` if `run` returns only the output."""
        output = _as_array if compared else None
        # A module's forward may raise anything.
        return [
            Candidate(name, make(), around, output, errors=(Exception,)) for name, around in self.settings().items()
        ]

    def carried(self, x: np.ndarray) -> Callable[[], Any]:
        """A bare LSTM that gets `x` each time and continues from its last states."""
        run = self.carried_each(x[np.newaxis])
        return lambda: run()[0]

    def carried_each(self, x: np.ndarray) -> Callable[[], Any]:
        """Streams, one after another: stream i gets entry i of `x`, an input of the LSTM."""
        lstm, tensors = self._module(), list(self.torch.from_numpy(x))
        states: list[Any] = [None] * len(tensors)
        to, back = self._transfers()

        def run() -> Any:
            outputs = []
            for index, tensor in enumerate(tensors):
                output, states[index] = lstm(to(tensor), states[index])
                outputs.append(back(output))
            return outputs

        return run

    def whole(self, x: np.ndarray) -> Callable[[], Any]:
        """A bare LSTM on a batch of whole sequences, from zero states."""
        lstm, tensor = self._module(), self.torch.from_numpy(x)
        to, back = self._transfers()
        return lambda: back(lstm(to(tensor))[0])

    def called(
        self, specs: Sequence[InputSpec], feeds: Mapping[str, np.ndarray], call: list[Any] | None = None
    ) -> Callable[[], Any]:
        """A module's forward on `feeds`; states in attributes are carried from call to call.

        `call` is `Metadata.call`, the arrangement of the inputs; with None they are passed by their names.
        """
        run = self.called_each(specs, [feeds], call)
        return lambda: run()[0]

    def called_each(
        self, specs: Sequence[InputSpec], records: Sequence[Mapping[str, np.ndarray]], call: list[Any] | None = None
    ) -> Callable[[], list[Any]]:
        """A module's forward on each of `records`, one after another."""
        module = self._module()
        runs = [self._call(module, specs, feeds, call) for feeds in records]
        return lambda: [run() for run in runs]

    def _call(
        self, module: Any, specs: Sequence[InputSpec], feeds: Mapping[str, np.ndarray], call: list[Any] | None
    ) -> Callable[[], Any]:
        from ..exporter.call.arguments import draw_arguments
        from ..exporter.call.metadata import call_from_json
        from ..input_spec import axes

        torch = self.torch
        shapes = [(spec.shape, feeds[spec.name].shape) for spec in specs]
        sizes = {
            dim: size for dims, shape in shapes for dim, size in zip(dims, shape, strict=True) if isinstance(dim, str)
        }
        # Only the arrangement of the arguments is taken from `drawn`, so the sizes of the other axes do not matter.
        arranged = None if call is None else call_from_json(call, module)[0]
        arguments = draw_arguments(module, specs, {axis: sizes.get(axis, 1) for axis in axes(specs)}, call=arranged)
        tensors = {name: torch.from_numpy(feeds[name]) for name in arguments.tensors}
        to, back = self._transfers()

        def run() -> Any:
            args, kwargs = arguments.args_and_kwargs({name: to(tensor) for name, tensor in tensors.items()})
            return back(module(*args, **kwargs))

        return run

    def packed(self, sequences: Sequence[np.ndarray], batch: int) -> Callable[[], Any]:
        """Packed batches in arrival order; returns one tensor per sequence."""
        lstm = self._module()
        rnn = self.torch.nn.utils.rnn
        tensors = [self.torch.from_numpy(sequence) for sequence in sequences]
        to, back = self._transfers()

        def run() -> Any:
            outputs: list[Any] = []
            for start in range(0, len(tensors), batch):
                packed = rnn.pack_sequence(tensors[start : start + batch], enforce_sorted=False)
                outputs += rnn.unpack_sequence(back(lstm(to(packed))[0]))
            return outputs

        return run

    def packed_candidate(self, sequences: Sequence[np.ndarray], batch: int) -> Candidate:
        """The candidate of `packed`, with PyTorch's default settings."""
        name = f"{PACKED}, batches of {batch}"
        return Candidate(name, self.packed(sequences, batch), self.settings()[EAGER], _as_array, errors=(Exception,))

    def _module(self) -> Any:
        """The module in eval mode; a copy of it if it may keep states in attributes."""
        from ..exporter.copies.clone import clone_module

        module = self.source.module()
        return (module if isinstance(self.source, LSTMSource) else clone_module(module)).to(self.device)

    def _transfers(self) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        """Functions that move a tensor to the device, and a result back."""
        if self.device == "cpu":
            return _same, _same
        tree = self.torch.utils._pytree
        tensor = self.torch.Tensor
        return (
            lambda value: value.to(self.device),
            lambda value: (
                value.cpu() if hasattr(value, "cpu") else tree.tree_map_only(tensor, lambda item: item.cpu(), value)
            ),
        )


def _same(value: Any) -> Any:
    return value


def _as_array(result: Any) -> np.ndarray:
    """A tensor, or a list of tensors flattened one after another, as one array."""
    if isinstance(result, list):
        return np.concatenate([np.asarray(item).reshape(-1) for item in result])
    return np.asarray(result)

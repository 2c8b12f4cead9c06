"""The PyTorch side: the module in its several settings, fed as a PyTorch user feeds it.

torch is imported when a `TorchSide` is made, so that a machine without it times the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ..exporter.dependencies import import_torch
from ..exporter.sources.source import LSTMSource, Source
from ..input_spec import InputSpec
from .measure import Contender

EAGER, NO_MKLDNN, PACKED = "PyTorch", "PyTorch, mkldnn off", "PyTorch, packed"


class TorchSide:
    """A source's module, ready to be called.

    Args:
        source: where the module comes from.
        device: "cpu" or "cuda", where this torch can use it; inputs go there and outputs come back within
            what is timed.
        threads: torch's, while a contender runs.

    Raises:
        MissingDependencyError: torch is not installed.
        ExportError: the module has no values.
    """

    def __init__(self, source: Source, device: str, threads: int) -> None:
        self.torch = import_torch("bench times it")
        self.source = source
        self.device = device if device == "cpu" or self.torch.cuda.is_available() else "cpu"
        self.threads = threads

    def settings(self) -> dict[str, Callable[[], AbstractContextManager[None]]]:
        """The settings worth trying, by the contender's name.

        oneDNN packs the weights anew at each call, so that short calls are faster without; and they can
        be faster on one thread than on several.
        """
        found = {EAGER: self._setting(mkldnn=True)}
        if self.device == "cpu":
            found[NO_MKLDNN] = self._setting(mkldnn=False)
            if self.threads > 1:
                found[f"{NO_MKLDNN}, 1 thread"] = self._setting(mkldnn=False, threads=1)
        return found

    def _setting(self, *, mkldnn: bool, threads: int | None = None) -> Callable[[], AbstractContextManager[None]]:
        torch = self.torch

        @contextlib.contextmanager
        def around() -> Iterator[None]:
            # Not `mkldnn.flags`, which sets TF32 as well, and warns of that on processors without.
            was_enabled = torch.backends.mkldnn.enabled
            before, wanted = torch.get_num_threads(), threads or self.threads
            try:
                torch.set_num_threads(wanted)
                torch.backends.mkldnn.enabled = mkldnn
                with torch.inference_mode():
                    yield
            finally:
                torch.backends.mkldnn.enabled = was_enabled
                torch.set_num_threads(before)

        return around

    def contenders(self, make: Callable[[], Callable[[], Any]], *, compared: bool = True) -> list[Contender]:
        """One for each setting, each with a run of its own from `make`; `compared` where it gives the output alone."""
        numbers = _numbers if compared else None
        # A forward may raise anything.
        return [
            Contender(name, make(), around, numbers, errors=(Exception,)) for name, around in self.settings().items()
        ]

    def carried(self, x: np.ndarray) -> Callable[[], Any]:
        """A bare LSTM fed `x` again and again, the states carried on."""
        lstm, tensor, held = self._module(), self.torch.from_numpy(x), [None]
        to, back = self._transfers()

        def run() -> Any:
            output, held[0] = lstm(to(tensor), held[0])
            return back(output)

        return run

    def carried_each(self, x: np.ndarray) -> Callable[[], Any]:
        """Streams, one at a time: row i of `x`, ``(streams, 1, 1, input_size)``, goes to stream i."""
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

    def called(self, specs: Sequence[InputSpec], feeds: Mapping[str, np.ndarray]) -> Callable[[], Any]:
        """A module's forward on `feeds`; what it keeps in attributes it carries on."""
        run = self.called_each(specs, [feeds])
        return lambda: run()[0]

    def called_each(
        self, specs: Sequence[InputSpec], records: Sequence[Mapping[str, np.ndarray]]
    ) -> Callable[[], list[Any]]:
        """A module's forward on each of `records`, one after another."""
        module = self._module()
        runs = [self._call(module, specs, feeds) for feeds in records]
        return lambda: [run() for run in runs]

    def _call(self, module: Any, specs: Sequence[InputSpec], feeds: Mapping[str, np.ndarray]) -> Callable[[], Any]:
        from ..exporter.tracing.arguments import draw_arguments
        from ..input_spec import axes

        torch = self.torch
        shapes = [(spec.shape, feeds[spec.name].shape) for spec in specs]
        sizes = {dim: size for dims, own in shapes for dim, size in zip(dims, own, strict=True) if isinstance(dim, str)}
        # An axis that bounds numbers alone: any size does, as only the arrangement is taken from there.
        found = draw_arguments(module, specs, {axis: sizes.get(axis, 1) for axis in axes(specs)})
        tensors = {name: torch.from_numpy(feeds[name]) for name in found.tensors}
        to, back = self._transfers()

        def run() -> Any:
            args, kwargs = found.args_and_kwargs({name: to(tensor) for name, tensor in tensors.items()})
            return back(module(*args, **kwargs))

        return run

    def packed(self, sequences: Sequence[np.ndarray], batch: int) -> Callable[[], Any]:
        """Packed batches in arrival order; the outputs as one tensor a sequence."""
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

    def packed_contender(self, sequences: Sequence[np.ndarray], batch: int) -> Contender:
        """The one for `packed`, in PyTorch's default setting."""
        name = f"{PACKED}, batches of {batch}"
        return Contender(name, self.packed(sequences, batch), self.settings()[EAGER], _numbers, errors=(Exception,))

    def _module(self) -> Any:
        """A copy of the module in eval mode: one that keeps states in attributes has its own."""
        from ..exporter.tracing.clone import clone_module

        module = self.source.module()
        return (module if isinstance(self.source, LSTMSource) else clone_module(module)).to(self.device)

    def _transfers(self) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        """What takes a tensor to the device, and what takes the result back."""
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


def _numbers(result: Any) -> np.ndarray:
    """A tensor, or tensors one after another, as one array."""
    if isinstance(result, list):
        return np.concatenate([np.asarray(item).reshape(-1) for item in result])
    return np.asarray(result)

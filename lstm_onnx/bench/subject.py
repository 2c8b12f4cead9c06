"""What is timed, opened in every way: the file in this runtime, in a plain session, and the module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..exporter.sources.source import LSTMSource, Source
from ..input_spec import InputSpec, axes, draw, sizes_of
from ..inspect import LSTMInfo
from ..runtime import Model
from ..runtime.providers import CPU, CUDA, onnxruntime
from ..spec import LSTMSpec
from .pytorch import TorchSide

Arrays = dict[str, "np.ndarray[Any, Any]"]
_ERROR = 3


@dataclass(frozen=True)
class Work:
    """What the model's LSTMs compute and read.

    Attributes:
        flops: of one step of one sequence.
        weights: bytes of their weights.
        recurrent: bytes of those that are read anew at each step, as R is; W can be read once for all steps.
    """

    flops: int
    weights: int
    recurrent: int

    @classmethod
    def of(cls, lstms: Sequence[LSTMInfo]) -> Work | None:
        """Of a file's LSTMs; None where the file does not tell all of their sizes."""
        if not lstms or any(not (info.flops_per_step and info.parameters) for info in lstms):
            return None
        recurrent = 0.0
        for info in lstms:
            gates = {"GRU": 3, "RNN": 1}.get(info.kind, 4)
            state = info.proj_size if info.kind == "Scan" else info.hidden_size
            directions = 2 if info.direction == "bidirectional" else 1
            numbers = gates * info.hidden_size * state + (info.proj_size * info.hidden_size)
            recurrent += directions * numbers * info.bytes / info.parameters
        total = sum(info.bytes for info in lstms)
        return cls(sum(info.flops_per_step for info in lstms), total, min(total, int(recurrent)))

    def needed(self, steps: int, longest: int) -> tuple[int, int]:
        """FLOPs of `steps` steps of all sequences together, and bytes of weights read by the longest of them."""
        return self.flops * steps, self.weights + self.recurrent * (longest - 1)


@dataclass(frozen=True)
class Opened:
    """One exported file in this runtime and in a plain `InferenceSession`."""

    model: Model
    session: Any

    @classmethod
    def at(cls, path: str, provider: str, threads: int) -> Opened:
        """Open it.

        Raises:
            LSTMOnnxError: see `load`.
        """
        from ..runtime import load

        model = load(path, provider=provider, threads=threads)
        return cls(model, plain_session(path, model.provider, threads))


def plain_session(path: str, provider: str, threads: int) -> Any:
    """An `InferenceSession` as it comes, with so many threads within an operator."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERROR
    return ort.InferenceSession(path, options, providers=[CUDA, CPU] if provider == "cuda" else [CPU])


@dataclass(frozen=True)
class Subject:
    """Everything that the cases need.

    Attributes:
        source: the model's source.
        opened: its file as the source asks for it.
        spinning: the same with threads that spin; None where there is one thread, or a GPU.
        padded: the file for batches of sequences of varying length; None where there is none.
        work: of one step; None where not known.
        torch: the PyTorch side; None without torch.
        no_torch: why there is none.
        seed: for inputs.
        threads: of every contender.
    """

    source: Source
    opened: Opened
    spinning: Model | None
    padded: Opened | None
    work: Work | None
    torch: TorchSide | None
    no_torch: str
    seed: int
    threads: int

    @property
    def model(self) -> Model:
        """The file in this runtime."""
        return self.opened.model

    @property
    def spec(self) -> LSTMSpec | None:
        """The sizes of a bare LSTM."""
        return self.source.spec if isinstance(self.source, LSTMSource) else None

    @property
    def dtype(self) -> str:
        """What the first input that is a real number is of; float32 where all are integers."""
        return next((item.dtype for item in self.specs if item.dtype.startswith("float")), "float32")

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """A module's inputs; of a bare LSTM its input, with the axes in its layout."""
        if isinstance(self.source, LSTMSource):
            spec = self.source.spec
            return (InputSpec("input", spec.sequence_shape("batch", "time", spec.input_size), spec.dtype),)
        return self.source.inputs or self.model.metadata.inputs

    def feeds(self, batch: int, time: int) -> Arrays:
        """The forward's own inputs at these sizes, every sequence whole.

        Raises:
            ConfigError: the inputs have no axis that could be so long.
        """
        specs = self.specs
        self._require_axes(axes(specs), batch, time)
        sizes = sizes_of(specs, batch, time)
        arrays = draw(specs, sizes, np.random.default_rng(self.seed))
        whole = {spec.name: sizes[spec.high] for spec in specs if isinstance(spec.high, str)}
        return {name: np.full_like(array, whole[name]) if name in whole else array for name, array in arrays.items()}

    def batch_axis(self, spec: InputSpec) -> int | None:
        """Where the batch is in an input; None where it has none."""
        names = axes(self.specs)
        name = "batch" if {"batch", "time"} & set(names) else next(iter(names), None)
        return spec.shape.index(name) if name is not None and name in spec.shape else None

    def without_batch(self, feeds: Arrays) -> Arrays:
        """One sequence of a batch of 1 as `Model.map` takes it: no batch axis, no states, and no lengths."""
        found = {}
        for spec in self.specs:
            axis = self.batch_axis(spec)
            if spec.name not in self.model.states and not isinstance(spec.high, str):
                found[spec.name] = feeds[spec.name] if axis is None else feeds[spec.name].squeeze(axis)
        return found

    def _require_axes(self, names: Sequence[str], batch: int, time: int) -> None:
        named = {"batch", "time"} & set(names)
        for index, (role, size) in enumerate((("batch", batch), ("time", time))):
            there = role in named if named else index < len(names)
            if size != 1 and not there:
                raise ConfigError(f"the model's inputs have no open axis {role}")

    def session_feeds(self, opened: Opened, feeds: Arrays, start: Mapping[str, np.ndarray]) -> Arrays:
        """All that a plain session wants: `feeds`, the states `start`, and whole lengths of a bare LSTM."""
        found = {**feeds, **{name: array for name, array in start.items() if name not in feeds}}
        spec = self.spec
        if spec is not None and "lengths" in opened.model.inputs:
            shape = feeds["input"].shape
            batch, time = (shape[0], shape[1]) if spec.batch_first else (shape[1], shape[0])
            found["lengths"] = np.full(batch, time, np.int32)
        return found

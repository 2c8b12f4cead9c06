"""Opens the model to be timed: its file in this runtime and in a plain session, and its PyTorch module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, MissingDependencyError
from ..exporter.sources.source import LSTMSource, Source
from ..input_spec import InputSpec, axes, draw, sizes_of
from ..runtime import Model, load
from ..runtime.batch_axes import axis_roles
from ..runtime.providers import CPU, CUDA, onnxruntime
from ..spec import LSTMSpec
from .pytorch import TorchSide

Arrays = dict[str, "np.ndarray[Any, Any]"]
_LOG_ERRORS = 3
"""ONNX Runtime's log_severity_level for errors."""
_SPIN_SECONDS = 0.001
"""How long this runtime's threads spin in the candidate that spins, as those of a plain session do by default."""


@dataclass(frozen=True)
class OpenedModel:
    """One exported file in this runtime and in a plain `InferenceSession`."""

    model: Model
    session: Any

    @classmethod
    def at(cls, path: str, provider: str, threads: int) -> OpenedModel:
        """Open the file at `path`.

        Raises:
            LSTMOnnxError: see `load`.
        """
        model = load(path, provider=provider, threads=threads)
        return cls(model, plain_session(path, model.provider, threads))


def plain_session(path: str, provider: str, threads: int) -> Any:
    """An `InferenceSession` with ONNX Runtime's defaults and `threads` intra-op threads."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _LOG_ERRORS
    return ort.InferenceSession(path, options, providers=[CUDA, CPU] if provider == "cuda" else [CPU])


@dataclass(frozen=True)
class BenchmarkSubject:
    """The model that is timed, in every form that the cases need.

    Attributes:
        source: the model's source.
        opened: the file that the source describes.
        spinning: the same file with threads that spin; None with one thread, or on a GPU.
        padded: a file with the input `lengths`, for padded batches; None for a module.
        torch: the PyTorch side; None without torch.
        no_torch: why `torch` is None.
        seed: the seed of the random inputs.
        threads: the number of threads of every candidate.
    """

    source: Source
    opened: OpenedModel
    spinning: Model | None
    padded: OpenedModel | None
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
        """The dtype of the first floating-point input; float32 if all inputs are integers."""
        return next((item.dtype for item in self.specs if item.dtype.startswith("float")), "float32")

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """A module's inputs; for a bare LSTM its `input`, with the axes in its layout."""
        if isinstance(self.source, LSTMSource):
            spec = self.source.spec
            return (InputSpec("input", spec.sequence_shape("batch", "time", spec.input_size), spec.dtype),)
        return self.source.inputs or self.model.metadata.inputs

    @property
    def call(self) -> list[Any] | None:
        """`Metadata.call`, if the file describes these inputs."""
        same = {spec.name for spec in self.specs} == {spec.name for spec in self.model.metadata.inputs}
        return self.model.metadata.call if same else None

    @property
    def hop(self) -> int:
        """The steps of the input that are timed as one: those for one step of the output, in a model with strides."""
        streaming = self.model.metadata.streaming_or_default
        return lcm(streaming.hop, streaming.chunk)

    def feeds(self, batch: int, time: int) -> Arrays:
        """Random inputs of forward at these sizes, `time` in hops; lengths are the full `time`.

        Raises:
            ConfigError: the inputs have no dynamic axis of that kind.
        """
        specs = self.specs
        require_axes(self.axis_names, batch, time)
        sizes = sizes_of(specs, batch, time * self.hop, known=axis_roles(self.model))
        arrays = draw(specs, sizes, np.random.default_rng(self.seed))
        full = {spec.name: sizes[spec.high] for spec in specs if isinstance(spec.high, str)}
        return {name: np.full_like(array, full[name]) if name in full else array for name, array in arrays.items()}

    @property
    def axis_names(self) -> dict[str, str]:
        """The names of the inputs' "batch" and "time" axes, if there are such axes."""
        return axis_names(list(axes(self.specs)), axis_roles(self.model))

    def batch_axis(self, spec: InputSpec) -> int | None:
        """The index of the batch axis of an input; None if it has none."""
        name = self.axis_names.get("batch")
        return spec.shape.index(name) if name is not None and name in spec.shape else None

    def without_batch(self, feeds: Arrays) -> Arrays:
        """The one sequence in a batch of 1, as `Model.map` takes it: without batch axis, states and lengths."""
        sequence = {}
        for spec in self.specs:
            axis = self.batch_axis(spec)
            if spec.name not in self.model.states and not isinstance(spec.high, str):
                sequence[spec.name] = feeds[spec.name] if axis is None else feeds[spec.name].squeeze(axis)
        return sequence

    def session_feeds(self, opened: OpenedModel, feeds: Arrays, start: Mapping[str, np.ndarray]) -> Arrays:
        """The feeds for a plain session: `feeds`, the states `start`, and a bare LSTM's full lengths."""
        complete = {**feeds, **{name: array for name, array in start.items() if name not in feeds}}
        spec = self.spec
        if spec is not None and "lengths" in opened.model.inputs:
            shape = feeds["input"].shape
            batch, time = (shape[0], shape[1]) if spec.batch_first else (shape[1], shape[0])
            complete["lengths"] = np.full(batch, time, np.int32)
        return complete


def axis_names(names: Sequence[str], roles: Mapping[str, str]) -> dict[str, str]:
    """The names of the axes "batch" and "time": by name or role or, if no axis has these, by their order."""
    roles = {"batch": "batch", "time": "time", **roles}
    known = {roles[name]: name for name in names if name in roles}
    return known or dict(zip(("batch", "time"), names, strict=False))


def require_axes(names: Mapping[str, str], batch: int, time: int) -> None:
    """Raise ConfigError if there is no axis for a size other than 1."""
    for role, size in (("batch", batch), ("time", time)):
        if size != 1 and role not in names:
            raise ConfigError(f"the model's inputs have no dynamic axis {role}")


@contextlib.contextmanager
def open_subject(source: Source, provider: str, threads: int, seed: int, folder: Path) -> Iterator[BenchmarkSubject]:
    """Export a model into `folder` and open it in every form.

    Raises:
        LSTMOnnxError: the model cannot be exported or opened.
    """
    path = str(folder / "model.onnx")
    source.export(path, check=False)
    opened = OpenedModel.at(path, provider, threads)
    with contextlib.ExitStack() as stack:
        stack.enter_context(opened.model)
        spinning: Model | None = None
        if threads > 1 and opened.model.provider == "cpu":
            spinning = stack.enter_context(load(path, provider="cpu", threads=threads, spin=_SPIN_SECONDS))
        padded: OpenedModel | None = None
        if isinstance(source, LSTMSource):
            padded = opened
            if not source.options.lengths:
                path = str(folder / "padded.onnx")
                source.with_options(lengths=True).export(path, check=False)
                padded = OpenedModel.at(path, provider, threads)
                stack.enter_context(padded.model)
        torch: TorchSide | None = None
        no_torch = ""
        try:
            torch = TorchSide(source, opened.model.provider, threads)
        except MissingDependencyError as error:
            no_torch = str(error)
        yield BenchmarkSubject(source, opened, spinning, padded, torch, no_torch, seed, threads)

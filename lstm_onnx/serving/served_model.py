"""Loads a model's file for a server, checks requests against it, and runs them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np

from ..errors import InputError, ModelError
from ..runtime import Model, ValueInfo, load
from ..runtime.batcher.batcher import Batcher
from ..runtime.file_digest import file_digest
from ..runtime.streamable import stream_inputs, stream_outputs
from ..runtime.unchanged import unchanged
from .errors import RequestError
from .metrics import Metrics, Statistics
from .settings import Settings
from .single_streams import SingleStreams
from .tensors import DATATYPES, NAMES, datatype_of
from .whole import WholeSequences

PLATFORM = "onnxruntime_onnx"
VERSION = "1"
"""The only version of each model."""
_NO_STATES = (
    'export it with states="explicit"; lstm-onnx serve --state INPUT=OUTPUT names states that the file does not'
)


class ServedModel:
    """One load of a file.  Made by `open_model`; used in one event loop.

    Attributes:
        name: the model's name.
        model: the loaded model.
        digest: the file's digest, see `file_digest`.
        settings: the server's settings.
        inputs: the inputs that are not states, all of which a request must have.
        output_names: the outputs for a request that names none: those that are not states, or all if all are states.
        streams: how many streams are open.
        retired: whether it is closed as soon as nothing uses it.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        digest: str,
        settings: Settings,
        executor: Executor,
        metrics: Metrics,
        statistics: Statistics,
    ) -> None:
        self.name = name
        self.model = model
        self.digest = digest
        self.settings = settings
        self.inputs = stream_inputs(model)
        self.output_names = stream_outputs(model)
        self.streams = 0
        self.retired = False
        self._running = 0
        self._metrics = metrics
        self._whole = WholeSequences(
            model,
            executor,
            max_rows=settings.max_batch,
            queue=settings.queue,
            workers=2,
            on_batch=_recorder(name, "whole", metrics, statistics),
        )
        self._batcher: Batcher | SingleStreams | None = None
        self._not_streamable = ""
        record = _recorder(name, "streams", metrics, statistics)
        try:
            if model.metadata.streaming_or_default.last is None:
                self._batcher = _batcher(model, settings, record)
        except InputError:
            pass  # its batch size is fixed, or its batch axis is not known, or its rows affect each other
        try:
            if self._batcher is None:  # not `if not`: a batcher without streams is falsy
                self._batcher = SingleStreams(model, executor, record)
        except InputError as error:
            subject = "it " if error.path is not None else ""  # a reason with a path has no subject of its own
            hint = "send whole sequences" if model.states else _NO_STATES
            self._not_streamable = f"{subject}{error.message}; {hint}"

    # --- running ----------------------------------------------------------------------------------------------

    @property
    def batcher(self) -> Batcher | SingleStreams:
        """What steps its streams, of which at least one is open."""
        assert self._batcher is not None  # noqa: S101 - the caller's condition
        return self._batcher

    def require_batcher(self) -> Batcher | SingleStreams:
        """What steps its streams (RequestError where the model cannot be streamed)."""
        if self._batcher is None:
            raise RequestError(f"model {self.name} has no streams: {self._not_streamable}")
        return self._batcher

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._whole.waiting + (self._batcher.waiting if self._batcher is not None else 0)

    async def run_whole(self, inputs: Mapping[str, np.ndarray], timeout: float) -> dict[str, np.ndarray]:
        """The outputs for whole sequences; raises what `WholeSequences.run` raises."""
        self._running += 1
        try:
            return await self._whole.run(inputs, timeout)
        finally:
            self._running -= 1
            self._close_if_unused()

    def validated(
        self, inputs: Mapping[str, np.ndarray], outputs: tuple[str, ...] | None, *, stream: bool
    ) -> list[str]:
        """Check a request's names and datatypes (RequestError); return the names of the outputs to return."""
        for name, array in inputs.items():
            info = self.model.inputs.get(name)
            if info is None or (name not in self.inputs and name not in self.model.states):
                raise RequestError(f"{name} is not an input of {self.name}; its inputs are {', '.join(self.inputs)}")
            if stream and name in self.model.states:
                raise RequestError(f"{name} is a state, which the server itself carries for a sequence")
            if info.dtype != array.dtype:
                raise RequestError(f"{name} has datatype {datatype_of(array.dtype)}; it must be {_datatype(info)}")
        if outputs is None:
            return self.output_names
        known = self.output_names if stream else list(self.model.outputs)
        for name in outputs:
            if name not in known:
                raise RequestError(f"{name} is not an output of {self.name}; its outputs are {', '.join(known)}")
        return list(outputs)

    # --- metadata ---------------------------------------------------------------------------------------------

    def metadata(self) -> dict[str, Any]:
        """The protocol's metadata for the model."""
        outputs = [self.model.outputs[name] for name in self.output_names]
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": [tensor_metadata(info) for info in self.inputs.values()],
            "outputs": [tensor_metadata(info) for info in outputs],
        }

    def config(self) -> dict[str, Any]:
        """The model's configuration in Triton's fields; shapes include the batch axis, so max_batch_size is 0."""
        config: dict[str, Any] = {
            "name": self.name,
            "platform": PLATFORM,
            "backend": "onnxruntime",
            "version_policy": {"specific": {"versions": [int(VERSION)]}},
            "max_batch_size": 0,
            "input": [_config_tensor(info) for info in self.inputs.values()],
            "output": [_config_tensor(self.model.outputs[name]) for name in self.output_names],
        }
        if self._batcher is not None:
            idle = int(self.settings.idle_seconds * 1e6)
            config["sequence_batching"] = {
                "max_sequence_idle_microseconds": idle,
                "oldest": {
                    "max_candidate_sequences": self.settings.max_streams,
                    "preferred_batch_size": [self.settings.max_batch],
                    "max_queue_delay_microseconds": int(self.settings.window * 1e6),
                },
                "state": [_state_config(self.model.inputs[name], end) for name, end in self.model.states.items()],
            }
        return config

    # --- closing ----------------------------------------------------------------------------------------------

    def stream_opened(self) -> None:
        """Count one more open stream."""
        self.streams += 1
        self._metrics.streams.labels(self.name).inc()

    def stream_closed(self) -> None:
        """It was closed."""
        self.streams -= 1
        self._metrics.streams.labels(self.name).dec()
        self._close_if_unused()

    def retire(self) -> None:
        """Close the model as soon as no request and no stream uses it."""
        self.retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self.retired and not self._running and not self.streams:
            # A step whose client has gone may still run, and the server's loop must not wait for its end.
            threading.Thread(target=self.close, name="lstm-onnx close", daemon=True).start()

    def close(self) -> None:
        """Close it now."""
        if self._batcher is not None:
            self._batcher.close(drain=False)
        self.model.close()


def open_model(
    name: str, file: str, settings: Settings, executor: Executor, metrics: Metrics, statistics: Statistics
) -> ServedModel:
    """Load a file; one that lstm-onnx did not write is first loaded in a child process, which it may crash.

    Raises:
        LSTMOnnxError: as `lstm_onnx.load`; also a ModelError where the protocol has no datatype for an input.
    """
    with unchanged(file, "loaded"):
        model = load(file, settings.provider, settings.threads, trial=None)
        own = {state: end for state, end in settings.states if state in model.inputs and end in model.outputs}
        if own and not model.states:
            model.close()
            model = load(file, settings.provider, settings.threads, states=own, trial=None)
        digest = file_digest(file)
    for info in [*model.inputs.values(), *model.outputs.values()]:
        if info.dtype is None or info.dtype.newbyteorder("<") not in NAMES:
            raise ModelError(
                f"{info} cannot be served", path=file, hint=f"the protocol's datatypes are {', '.join(DATATYPES)}"
            )
    return ServedModel(name, model, digest, settings, executor, metrics, statistics)


def _batcher(model: Model, settings: Settings, record: Callable[[int, float], None]) -> Batcher:
    # More slots than streams: one that was closed while it ran keeps its slot, and a new one must not wait for that.
    pool = model.pool(settings.max_streams + settings.max_batch)
    batcher = Batcher(pool, max_batch=settings.max_batch, window=settings.window, queue=settings.queue)
    batcher.on_batch = record
    return batcher


def _recorder(name: str, kind: str, metrics: Metrics, statistics: Statistics) -> Callable[[int, float], None]:
    sizes = metrics.batch_size.labels(name, kind)

    def record(size: int, seconds: float) -> None:
        sizes.observe(size)
        with statistics.lock:
            statistics.batches[size].add(seconds)
            statistics.compute.add(seconds, size)

    return record


def _datatype(info: ValueInfo) -> str:
    assert info.dtype is not None  # noqa: S101 - `open_model` refuses others
    return datatype_of(info.dtype)


def _sizes(info: ValueInfo) -> list[int]:
    return [dim if isinstance(dim, int) else -1 for dim in info.shape]


def tensor_metadata(info: ValueInfo) -> dict[str, Any]:
    """Name, datatype and shape, with -1 for sizes that are not fixed."""
    return {"name": info.name, "datatype": _datatype(info), "shape": _sizes(info)}


def _config_tensor(info: ValueInfo) -> dict[str, Any]:
    return {"name": info.name, "data_type": f"TYPE_{_datatype(info)}", "dims": _sizes(info)}


def _state_config(info: ValueInfo, end: str) -> dict[str, Any]:
    return {"input_name": info.name, "output_name": end, "data_type": f"TYPE_{_datatype(info)}", "dims": _sizes(info)}

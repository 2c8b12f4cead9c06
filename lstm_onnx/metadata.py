"""The metadata of exported files: the keys ``lstm_onnx.*``, with JSON values."""

from __future__ import annotations

import binascii
import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ConfigError
from .generation_spec import GeneratingStep
from .input_spec import InputSpec
from .spec import ExportOptions, LSTMSpec
from .symbolic_dims import ANY_SIZE, clamped

if TYPE_CHECKING:
    from numpy.typing import NDArray

METADATA_PREFIX = "lstm_onnx."
PRODUCER = "lstm-onnx"
"""The `producer_name` of files that have this metadata."""


@dataclass(frozen=True)
class Origin:
    """The place of an explicit state in the exported module.

    Attributes:
        module: the path of the nn.LSTM (GRU, RNN, cell).
        first: the number of its call that starts from the state.
        last: the number of its call whose final state is the new one; -1 is the last one, as of a Python loop.
        index: 0 for h, 1 for c.
    """

    module: str
    first: int
    last: int
    index: int


@dataclass(frozen=True)
class Quantization:
    """How an int8 file was made of a float32 one.

    Attributes:
        kernel: what computes its products, one of `quantization.kernels.KERNELS`.
        layers: "all" or "recurrent", see `quantization.quantize`.
        unproven: the names of nodes that stayed float32, since their int8 form could not be compared.
    """

    kernel: str
    layers: str
    unproven: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The fields, without those that are empty."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}


ENDED = -1
"""The count of steps of a sequence that has ended: its states are final, and hold what its end has added."""


@dataclass(frozen=True)
class Streaming:
    """How a file takes a sequence in chunks, where its states hold more than those of recurrent layers.

    Attributes:
        time: the time axis of each input that is divided into chunks.
        outputs: the time axis of each output; None for a value at the last step so far, or the same at every step.
        caches: the states that hold earlier steps, or what was computed from them.
        delay: the most steps of an output that come only once the sequence has ended, where it is long enough for every
            stage of the model.
        hop: so many steps of the input always give the same number of steps of the outputs (the product of strides).
        multiple: the model takes sequences of multiples of so many steps.
        least: the model takes sequences of so many steps or more.
        settled: after so many steps of the input, only the rest of a division by `period` tells how many steps of
            an output a chunk gives.
        period: see `settled`.
        positions: whether results depend on the number of a step.
        first: for each output with a time axis, the steps of the input after which its first step is there.
        steps: the state that counts the steps of the input, and is `ENDED` after the last; None where nothing depends
            on that.
        last: the input that is 1 where the sequence ends with a chunk; None where the end changes nothing.
        chunk: every chunk has a multiple of so many steps.
    """

    time: Mapping[str, int]
    outputs: Mapping[str, int | None]
    caches: tuple[str, ...] = ()
    delay: int = 0
    hop: int = 1
    multiple: int = 1
    least: int = 1
    settled: int = 0
    period: int = 1
    positions: bool = False
    first: Mapping[str, int] = field(default_factory=dict)
    steps: str | None = None
    last: str | None = None
    chunk: int = 1

    @property
    def lengths(self) -> str:
        """How many steps a chunk may have, for people."""
        return "any length" if self.chunk == 1 else f"multiples of {self.chunk} steps"

    @property
    def unit(self) -> int:
        """A whole sequence has a multiple of so many steps."""
        return math.lcm(self.multiple, self.chunk)

    def phase(self, steps: int) -> int:
        """Equal for two streams, after so many steps each, of which equal chunks give equal numbers of steps."""
        if steps < self.settled:
            return steps
        return self.settled + (steps - self.settled) % self.period

    def place(self, steps: int) -> int:
        """Equal for two streams, after so many steps each, that can be stepped together."""
        return steps if self.positions else self.phase(steps)


_DEFAULT_STREAMING = Streaming({}, {})


@dataclass(frozen=True)
class Metadata:
    """The metadata of an exported file, under the keys ``lstm_onnx.*``.

    Attributes:
        spec: the sizes of a bare LSTM; None for a module, for which alone the fields from `inputs` on are set.
        options: how it was exported.
        states: each state input, and the output that feeds it.
        versions: of the packages that wrote the file.
        digest: identifies the weights (see `weights.digest`).
        inputs: the inputs of the module's forward.
        initial: the initial states that are not zero, with a batch axis of 1 where all sequences have the same.
        origins: where explicit states are in the module.
        loop_states: explicit states that a Python loop of the module carries, which PyTorch cannot be given.
        not_streamable: why chunks give other results than the whole sequence; empty where they do not, None where
            this is unknown.
        time_axes: the names of the axes along which a stream's inputs are split; none where every call is one step.
        batch_mixes: in which output a sequence's results depend on the others in its batch; empty where they do
            not, None where this is unknown.
        axis_limits: the smallest and the largest size of an axis at which the file was found right, None for no
            upper limit; other axes may have any size from 1.
        size_boundaries: the sizes of an axis at which the module's code may branch; tests of the file try them, one
            less and one more.
        table_rows: the inputs whose integers are rows of a table, such as an embedding's, and how many rows it has.
        call: how the inputs are arranged in the module's call, and the constants beside them, as JSON (see
            `exporter.call.metadata`); what runs the file needs none of it.
        quantization: how an int8 file was made; None for others.
        streaming: how the file takes chunks; None where its states are those of recurrent layers alone.
        generation: the step that a generating file repeats; None for others.
    """

    spec: LSTMSpec | None = None
    options: ExportOptions | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    digest: str | None = None
    inputs: tuple[InputSpec, ...] = ()
    initial: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict)
    loop_states: tuple[str, ...] = ()
    not_streamable: str | None = None
    time_axes: tuple[str, ...] = ()
    batch_mixes: str | None = None
    axis_limits: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    size_boundaries: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    table_rows: Mapping[str, int] = field(default_factory=dict)
    call: list[Any] | None = None
    quantization: Quantization | None = None
    streaming: Streaming | None = None
    generation: GeneratingStep | None = None

    @property
    def streaming_or_default(self) -> Streaming:
        """`streaming`; its defaults where the states are those of recurrent layers alone."""
        return self.streaming or _DEFAULT_STREAMING

    def nearest_size(self, axis: str, size: int) -> int:
        """The size nearest to `size` that an axis may have in a whole sequence; of multiples the next one."""
        least, most = self.axis_limits.get(axis, ANY_SIZE)
        unit = 1
        if self.streaming is not None and axis in self.time_axes:
            least, unit = max(least, self.streaming.least), self.streaming.unit
        return -(-clamped(size, (least, most)) // unit) * unit

    def to_metadata(self) -> dict[str, str]:
        """The metadata entries of an ONNX file: ``lstm_onnx.NAME`` to JSON, sorted, the same from run to run."""
        entries: dict[str, Any] = {
            "spec": None if self.spec is None else dataclasses.asdict(self.spec),
            "export": None if self.options is None else self.options.to_dict(),
            "states": dict(self.states),
            "versions": dict(self.versions),
            "weights": self.digest,
            "inputs": [spec.to_dict() for spec in self.inputs] or None,
            "initial": {name: packed(array) for name, array in self.initial.items()} or None,
            "origins": {name: dataclasses.astuple(origin) for name, origin in self.origins.items()} or None,
            "loop_states": list(self.loop_states) or None,
            "not_streamable": self.not_streamable,
            "time_axes": list(self.time_axes) or None,
            "batch_mixes": self.batch_mixes,
            "axis_limits": {axis: list(limits) for axis, limits in self.axis_limits.items()} or None,
            "size_boundaries": {axis: list(sizes) for axis, sizes in self.size_boundaries.items()} or None,
            "table_rows": dict(self.table_rows) or None,
            "call": self.call,
            "quantization": None if self.quantization is None else self.quantization.to_dict(),
            "streaming": None if self.streaming is None else dataclasses.asdict(self.streaming),
            "generation": None if self.generation is None else self.generation.to_dict(),
        }
        return {
            METADATA_PREFIX + key: json.dumps(value, sort_keys=True)
            for key, value in sorted(entries.items())
            if value is not None
        }

    def to_metadata_entry(self, name: str) -> dict[str, str]:
        """The entry of one field alone, such as "export"; empty where it is not set."""
        return {key: value for key, value in self.to_metadata().items() if key == METADATA_PREFIX + name}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Metadata:
        """Read back what `to_metadata` wrote; a file without such keys gives empty metadata.

        Raises:
            ConfigError: an entry is not what this version writes.
        """
        try:
            entries = {
                key.removeprefix(METADATA_PREFIX): json.loads(value)
                for key, value in metadata.items()
                if key.startswith(METADATA_PREFIX)
            }
            states, versions = entries.get("states", {}), entries.get("versions", {})
            texts = [text for names in (states, versions) for pair in names.items() for text in pair]
            _require(all(isinstance(text, str) for text in texts), "states and versions must map names to names")
            digest, reason, mixes = (entries.get(key) for key in ("weights", "not_streamable", "batch_mixes"))
            optional = all(isinstance(item, (str, type(None))) for item in (digest, reason, mixes))
            _require(optional, "weights, not_streamable and batch_mixes must be strings")
            found = cls(
                spec=LSTMSpec(**entries["spec"]) if "spec" in entries else None,
                options=ExportOptions(**entries["export"]) if "export" in entries else None,
                states=states,
                versions=versions,
                digest=digest,
                inputs=tuple(InputSpec.from_dict(item) for item in entries.get("inputs", [])),
                initial={name: _initial(item) for name, item in entries.get("initial", {}).items()},
                origins={name: _origin(item) for name, item in entries.get("origins", {}).items()},
                loop_states=_names(entries.get("loop_states", [])),
                not_streamable=reason,
                time_axes=_names(entries.get("time_axes", [])),
                batch_mixes=mixes,
                axis_limits={axis: _limits(item) for axis, item in entries.get("axis_limits", {}).items()},
                size_boundaries={axis: _sizes(item) for axis, item in entries.get("size_boundaries", {}).items()},
                table_rows=_table_rows(entries.get("table_rows", {})),
                call=_call(entries.get("call")),
                quantization=_quantization(entries["quantization"]) if "quantization" in entries else None,
                streaming=_streaming(entries["streaming"], states) if "streaming" in entries else None,
                generation=_generation(entries) if "generation" in entries else None,
            )
            _require_apart(found)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ConfigError(
                f"the metadata lstm_onnx.* is damaged ({error})", hint="export the model again"
            ) from error
        return found


def packed(array: NDArray[Any]) -> dict[str, Any]:
    """An array as JSON: its dtype, its shape, and its little-endian bytes as base64."""
    data = np.ascontiguousarray(array)
    return {
        "dtype": data.dtype.name,
        "shape": list(np.shape(array)),  # ascontiguousarray gives a number an axis
        "data": binascii.b2a_base64(data.astype(data.dtype.newbyteorder("<")).tobytes(), newline=False).decode("ascii"),
    }


def unpacked(item: Mapping[str, Any]) -> NDArray[Any]:
    """The array of what `packed` gave.

    Raises:
        ValueError, TypeError, KeyError: it is something else.
    """
    dtype = np.dtype(item["dtype"])
    if dtype.kind not in "fiub":
        raise ValueError(f"its dtype is {dtype}")
    raw = binascii.a2b_base64(item["data"], strict_mode=True)
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(item["shape"])


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise ConfigError(f"the metadata's {text}")


def _require_apart(found: Metadata) -> None:
    """A state of a recurrent module is none that only the file has; a file made for chunks has an axis to cut."""
    others = {*found.loop_states, *found.streaming_or_default.caches}
    _require(found.origins.keys().isdisjoint(others), "caches and loop_states must not be states of its origins")
    _require(found.streaming is None or bool(found.time_axes), "streaming must have time_axes beside it")


def _initial(item: Mapping[str, Any]) -> NDArray[Any]:
    try:
        return unpacked(item)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(
            f"the metadata's initial states are damaged ({error})", hint="export the model again"
        ) from error


def _origin(item: Any) -> Origin:
    module, *numbers = item
    known = len(numbers) == 3 and all(type(n) is int for n in numbers)
    fits = isinstance(module, str) and known and min(numbers[0], numbers[1] + 1, numbers[2]) >= 0
    _require(fits, "origins must be module, first call, last call and index")
    return Origin(module, *numbers)


def _names(item: Any) -> tuple[str, ...]:
    fits = isinstance(item, list) and all(isinstance(name, str) for name in item)
    _require(fits, "time_axes and loop_states must be lists of names")
    return tuple(item)


def _limits(item: Any) -> tuple[int, int | None]:
    least, largest = item
    fits = _is_size(least) and (largest is None or (_is_size(largest) and largest >= least))
    _require(fits, "axis_limits must be a least size and a largest one or null")
    return least, largest


def _table_rows(item: Any) -> dict[str, int]:
    fits = isinstance(item, dict) and all(map(_is_size, item.values()))
    _require(fits, "table_rows must map names to numbers of rows")
    return dict(item)


def _sizes(item: Any) -> tuple[int, ...]:
    _require(isinstance(item, list) and all(map(_is_size, item)), "size_boundaries must be lists of sizes")
    return tuple(item)


def _call(item: Any) -> list[Any] | None:
    _require(item is None or isinstance(item, list), "call must be a list of arguments")
    found: list[Any] | None = item
    return found


def _quantization(item: Any) -> Quantization:
    quantization = Quantization(**{**item, "unproven": _names(item.get("unproven", []))})
    fits = isinstance(quantization.kernel, str) and isinstance(quantization.layers, str)
    _require(fits, "quantization must be a kernel and layers")
    return quantization


def _streaming(item: Any, states: Mapping[str, str]) -> Streaming:
    found = Streaming(**{**item, "caches": _names(item.get("caches", []))})
    axes = [*found.time.items(), *found.outputs.items(), *found.first.items()]
    fits = (
        bool(found.time)
        and all(isinstance(name, str) and (_is_count(axis) or axis is None) for name, axis in axes)
        and all(map(_is_count, (found.delay, found.settled, *found.time.values())))
        and all(map(_is_size, (found.hop, found.multiple, found.least, found.period, found.chunk)))
        and found.multiple % found.chunk == 0
        and (found.last is None or isinstance(found.last, str))
        and (found.steps is None or found.steps in states)
        and states.keys() >= set(found.caches)
        and isinstance(found.positions, bool)
    )
    _require(fits, "streaming must hold axes of inputs and outputs, counts, a multiple of chunk, and caches as states")
    return found


def _generation(entries: Mapping[str, Any]) -> GeneratingStep:
    found = GeneratingStep.from_dict(entries["generation"])
    fed = [len(item["shape"]) for item in entries.get("inputs", []) if item["name"] == found.generation.input]
    fits = (
        len(fed) == 1 and found.batch_axis != found.time_axis and max(found.batch_axis, found.time_axis or 0) < fed[0]
    )
    _require(fits, "generation must name an input and its axes")
    return found


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value < 2**31

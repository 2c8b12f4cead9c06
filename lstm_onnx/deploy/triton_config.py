"""Writes a Triton model's config.pbtxt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import ModelError

_DATA_TYPES = {
    **{f"{kind}{bits}": f"TYPE_{kind.upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"TYPE_FP{bits}" for bits in (16, 32, 64)},
    "bool": "TYPE_BOOL",
}
"""Triton's names of dtypes, by NumPy's."""


@dataclass(frozen=True)
class TritonTensor:
    """One input or output of the configuration.

    Attributes:
        name: its name.
        dtype: NumPy's name of its dtype.
        dims: its sizes without the batch axis; a size that is not fixed is -1.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]

    @property
    def data_type(self) -> str:
        """Triton's name of the dtype (ModelError if it has none)."""
        if self.dtype not in _DATA_TYPES:
            raise ModelError(f"{self.name} is {self.dtype}, for which Triton's configuration has no name here")
        return _DATA_TYPES[self.dtype]


@dataclass(frozen=True)
class TritonState:
    """A state of a sequence.

    Attributes:
        input: the tensor of the state's input.
        output: the name of the output that is its next value.
        initial: the file of its initial value; None for zeros.
    """

    input: TritonTensor
    output: str
    initial: str | None


@dataclass(frozen=True)
class TritonConfig:
    """The content of config.pbtxt.

    Attributes:
        name: the model's name.
        max_batch: the most rows in a batch.
        inputs, outputs: the inputs and outputs that are not states.
        states: the states of a sequence; empty for a model without states.
        idle_seconds: a sequence without a request for this long is ended.
        delay_seconds: how long a batch waits for more requests.
        sequences: the most sequences at once.
        batched: whether requests without states may share a batch.
    """

    name: str
    max_batch: int
    inputs: tuple[TritonTensor, ...]
    outputs: tuple[TritonTensor, ...]
    states: tuple[TritonState, ...]
    idle_seconds: float
    delay_seconds: float
    sequences: int
    batched: bool = True

    def __str__(self) -> str:
        """The text of the file."""
        delay = round(self.delay_seconds * 1e6)
        lines = [
            f"name: {_quoted(self.name)}",
            'platform: "onnxruntime_onnx"',
            f"max_batch_size: {self.max_batch}",
            *_list("input", (_tensor(tensor) for tensor in self.inputs)),
            *_list("output", (_tensor(tensor) for tensor in self.outputs)),
        ]
        if self.states:
            lines += [
                "sequence_batching {",
                f"  max_sequence_idle_microseconds: {round(self.idle_seconds * 1e6)}",
                "  oldest {",
                f"    max_candidate_sequences: {self.sequences}",
                f"    preferred_batch_size: [ {self.max_batch} ]",
                f"    max_queue_delay_microseconds: {delay}",
                "  }",
                *("  " + line for line in _list("state", (_state(state) for state in self.states))),
                "}",
            ]
        elif self.batched:
            lines += ["dynamic_batching {", f"  max_queue_delay_microseconds: {delay}", "}"]
        return "\n".join(lines) + "\n"


def _list(name: str, items: Iterable[Mapping[str, str]]) -> list[str]:
    lines = [f"{name} ["]
    blocks = [["  {", *(f"    {key} {value}" for key, value in item.items()), "  }"] for item in items]
    for block in blocks[:-1]:
        block[-1] += ","
    return [*lines, *(line for block in blocks for line in block), "]"]


def _tensor(tensor: TritonTensor) -> dict[str, str]:
    fields = {"name:": _quoted(tensor.name), "data_type:": tensor.data_type, "dims:": _dims(tensor.dims)}
    if not tensor.dims:  # Triton needs at least one dimension, which its reshape removes again
        fields["reshape"] = "{ shape: [ ] }"
    return fields


def _state(state: TritonState) -> dict[str, str]:
    tensor = state.input
    start = "zero_data: true" if state.initial is None else f"data_file: {_quoted(state.initial)}"
    name = _quoted(f"initial {tensor.name}")
    return {
        "input_name:": _quoted(tensor.name),
        "output_name:": _quoted(state.output),
        "data_type:": tensor.data_type,
        "dims:": _dims(tensor.dims),
        "initial_state": f"{{ name: {name} data_type: {tensor.data_type} dims: {_dims(tensor.dims)} {start} }}",
    }


def _dims(dims: tuple[int, ...]) -> str:
    return f"[ {', '.join(map(str, dims or (1,)))} ]"


def _quoted(text: str) -> str:
    if not text.isprintable():
        raise ModelError(f"the name {text!r} cannot be written to Triton's configuration")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

"""The result of an inspection, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..input_spec import InputSpec
from ..metadata import Metadata
from ..onnxgraph import Value
from ..terminal_text import one_line, safe_copy, table_lines

SCHEMA = 1
"""Version of the JSON: raised when a key changes its meaning or goes."""
_MOST_CELL = 80
"""Characters of a cell in the table, whose columns are as wide as their longest cell."""


@dataclass(frozen=True)
class LSTMInfo:
    """One recurrent node.

    Attributes:
        name: the node's name, or its first output's if it has none.
        kind: "LSTM", "GRU" or "RNN"; "DynamicQuantizeLSTM", ONNX Runtime's with int8 weights;
            "Scan", which lstm-onnx writes for a projected layer and for some targets; or "int8 LSTM" and so on, which
            `quantize` writes.
        direction: "forward", "reverse" or "bidirectional".
        input_size: features of its input, None if the file does not say.
        hidden_size: 0 if the file does not say.
        proj_size: 0 without a projection.
        bias: whether it has biases.
        states: the model inputs that feed the initial h and c; empty if those are zeros, other
            constants, or computed.
        lengths: the model input that feeds the sequences' lengths, "" if they are computed or
            constant, None if all sequences have full length.
        dtype: the dtype that the node computes in, or of its weights if these are quantized.
        parameters: elements of its stored weights, 0 if the weights are computed.
        bytes: bytes of those.
        flops_per_step: for one sequence and time step (see the package), 0 if a size is unknown.
        notes: other particulars: peepholes, clip, layout, activations, unknown sizes.
        module: the path of the nn.Module whose layer it is ("" for the model itself), in a file that
            lstm-onnx exported from a module; None in any other.
    """

    name: str
    kind: str
    direction: str
    input_size: int | None
    hidden_size: int
    proj_size: int
    bias: bool
    states: tuple[str, ...]
    lengths: str | None
    dtype: str
    parameters: int
    bytes: int
    flops_per_step: int
    notes: tuple[str, ...] = ()
    module: str | None = None


@dataclass(frozen=True)
class LoopInfo:
    """A Scan or a Loop that is not a recurrent layer, such as a Python loop of the module.

    Attributes:
        name: the node's name, or its first output's if it has none.
        kind: "Scan" or "Loop".
        states: the shape of each value that a step hands on to the next one.
        operators: how many of each operator a step has, those of inner bodies included.
        flops_per_step: of its products with stored weights and its recurrent nodes, for one sequence.
        note: how much faster one node would be; "" where that is not known.
    """

    name: str
    kind: str
    states: tuple[str, ...]
    operators: dict[str, int]
    flops_per_step: int
    note: str = ""

    def __str__(self) -> str:
        """On one line."""
        states = ", ".join(self.states) or "none"
        operators = ", ".join(f"{name} {count}" for name, count in self.operators.items())
        text = f"{self.name}: {self.kind}; states {states}; {self.flops_per_step:,} FLOPs per sequence and step; a step"
        return f"{text} is {operators}" + (f"; {self.note}" if self.note else "")


@dataclass(frozen=True)
class Inspection:
    """What is in an ONNX file.

    Attributes:
        file: the path, as the caller wrote it.
        file_bytes: of the file and its external data.
        ir_version: of the file format.
        opset: of the default ONNX domain, None if the file uses only other domains.
        producer: the tool that wrote it.
        inputs: of the model, without those that are initializers.
        outputs: of the model.
        states: which output feeds which state input, if the file says so.
        lstms: every LSTM, GRU and RNN, in the file's order.
        other_ops: how many of each other operator, bodies included; "domain.Op" outside the default
            domain.  The body of a projected layer's Scan belongs to the layer.
        parameters: elements of all initializers and Constants, without scalars and without 32- and
            64-bit integers and bools, which are shapes and indices.
        bytes: bytes of those.
        flops_per_step: of all in `lstms`, each run once a step.
        metadata: the lstm_onnx metadata, empty for a file of another tool.
        notes: problems, such as external data that is missing.
        loops: every Scan and Loop that is not a layer.
    """

    file: str
    file_bytes: int
    ir_version: int
    opset: int | None
    producer: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    states: dict[str, str]
    lstms: tuple[LSTMInfo, ...]
    other_ops: dict[str, int]
    parameters: int
    bytes: int
    flops_per_step: int
    metadata: Metadata
    notes: tuple[str, ...] = ()
    loops: tuple[LoopInfo, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the metadata is null for a file of another tool, and has the sizes of arrays only."""
        sizes = {name: {"dtype": a.dtype.name, "shape": list(a.shape)} for name, a in self.metadata.initial.items()}
        result = asdict(replace(self, metadata=replace(self.metadata, initial={})))
        result["metadata"] = {**result["metadata"], "initial": sizes} if self.metadata != Metadata() else None
        return {"schema": SCHEMA, **result}

    def __str__(self) -> str:
        """A summary and a table, for people."""
        return safe_copy(self)._summary()

    def __repr__(self) -> str:
        """One line: the file, its recurrent nodes and its size."""
        kinds = Counter(lstm.kind for lstm in self.lstms)
        layers = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no LSTM, GRU or RNN"
        return one_line(f"<Inspection {self.file}: {layers}; {self.parameters:,} parameters, {self.bytes:,} bytes>")

    def _summary(self) -> str:
        opset = "no default opset" if self.opset is None else f"opset {self.opset}"
        lines = [
            f"{self.file}: {self.file_bytes:,} bytes, {opset}, IR {self.ir_version}, by {self.producer or 'unknown'}"
        ]
        ranges = {spec.name: _values_of(spec) for spec in self.metadata.inputs if spec.low is not None}
        lines += [f"  in   {value}{ranges.get(value.name, '')}" for value in self.inputs]
        lines += [f"  out  {value}" for value in self.outputs]
        if self.states:
            lines.append("  states  " + ", ".join(self._pair(source, target) for source, target in self.states.items()))
        if self.states and self.metadata.not_streamable is not None:
            lines.append(f"  streams {self._streams()}")
        if self.metadata.digest:
            lines.append(f"  weights  {self.metadata.digest}")
        lines += ["", *_table(self.lstms)] if self.lstms else ["no LSTM, GRU or RNN in this file"]
        lines += [f"{lstm.name}: {note}" for lstm in self.lstms for note in lstm.notes]
        lines += [str(loop) for loop in self.loops]
        lines += [f"the model: {self.parameters:,} parameters, {self.bytes:,} bytes"]
        if self.lstms:
            lines[-1] += f"; {self._flops}"
        if self.other_ops:
            lines.append("other nodes: " + ", ".join(f"{op} {count}" for op, count in self.other_ops.items()))
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    @property
    def _flops(self) -> str:
        """Of the recurrent nodes; a size that the file lacks makes a sum of 0 or a part of it, which is no count."""
        uncounted = sum(not lstm.flops_per_step for lstm in self.lstms)
        if not self.flops_per_step:
            return f"the FLOPs of its {self._kinds} are not counted"
        counted = f"its {self._kinds} {self.flops_per_step:,} FLOPs per sequence and step"
        return f"{counted}, without the {uncounted} that are not counted" if uncounted else counted

    def _streams(self) -> str:
        """Whether chunks give what the whole sequence gives, and how late."""
        if self.metadata.not_streamable:
            return f"no: {self.metadata.not_streamable}"
        streaming = self.metadata.streaming
        if streaming is None:
            return "yes"
        return f"yes, in chunks of {streaming.lengths}: delay {streaming.delay}, hop {streaming.hop}"

    def _pair(self, source: str, target: str) -> str:
        """As in ``h0 <- hn``, and whether it starts from stored values instead of zeros."""
        return f"{source} <- {target}" + (" (starts from stored values)" if source in self.metadata.initial else "")

    @property
    def _kinds(self) -> str:
        others = {lstm.kind for lstm in self.lstms} & {"GRU", "RNN"}
        return "recurrent nodes" if others else "LSTMs"


def _values_of(spec: InputSpec) -> str:
    """The values of an input: lengths are bounded by an axis, anything else has only the range of the example."""
    if isinstance(spec.high, str):
        return f", from {spec.low} to {spec.high}"
    return f", example: {spec.low} to {spec.high}"


def _table(lstms: Sequence[LSTMInfo]) -> list[str]:
    heads = ("name", "kind", "direction", "input", "hidden", "proj", "bias", "states", "lengths", "dtype")
    rows: list[tuple[str, ...]] = [(*heads, "parameters", "bytes", "FLOPs/step")]
    for lstm in lstms:
        sizes = ("?" if lstm.input_size is None else str(lstm.input_size), str(lstm.hidden_size or "?"))
        lengths = "-" if lstm.lengths is None else lstm.lengths or "computed"
        words = ("yes" if lstm.bias else "no", ", ".join(lstm.states) or "-", lengths, lstm.dtype)
        flops = f"{lstm.flops_per_step:,}" if lstm.flops_per_step else "?"
        numbers = (f"{lstm.parameters:,}", f"{lstm.bytes:,}", flops)
        cells = (lstm.name, lstm.kind, lstm.direction, *sizes, str(lstm.proj_size or "-"), *words, *numbers)
        rows.append(tuple(one_line(cell, _MOST_CELL) for cell in cells))
    return table_lines(rows, right=(3, 4, 5, 10, 11, 12))

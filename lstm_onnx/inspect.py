"""The LSTMs in any ONNX file, also in one that others made: sizes, states, parameters, bytes and FLOPs.

The file is only read: no weight is loaded (sizes come from the tensors' dimensions), no node runs.
LSTMs are the operator of that name, ONNX Runtime's quantised one, and the Scan that lstm-onnx writes
for a projected layer; they are also found within If, Loop and Scan bodies and model functions.

FLOPs are counted for one sequence and one time step.  A multiplication, an addition and an
activation count as one each, and a product of an ``m x n`` matrix with a vector as ``2mn``.  With I
input features, H hidden_size, P proj_size, and S features of h as the node carries it, each
direction takes

    2 * 4H * (I + S)    W x and R h, accumulated into the four gates
    + 4H                with biases
    + 6H                with peepholes
    + 9H                4 activations, f c, i g, their sum, tanh(c), o tanh(c), on H features each
    + 2 * P * H         with a projection

S is P in a Scan.  A projection that is folded into the operator leaves S = H, which is what is
really computed there.  What happens once a sequence (mapping h0 and hn) is not counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    checker,
    helper,
    inliner,
)

from .errors import ConfigError, FileError, ModelError
from .files import readable_file
from .spec import GATES, Story

_LARGEST_PROTOBUF = 2**31 - 1
_MOVES_DATA = frozenset(
    {"Cast", "CastLike", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"}
    | {"Tile", "Transpose", "Unsqueeze"}
)
"""Operators whose result is their first input, moved about."""
_KEEPS_SHAPE = frozenset({"Cast", "CastLike", "DequantizeLinear", "Identity"})
"""Operators behind which a stored weight keeps its shape."""
_INDEX_TYPES = frozenset(
    {TensorProto.INT32, TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64, TensorProto.BOOL, TensorProto.STRING}
)
"""What shapes, axes and indices are stored as, never a weight."""


@dataclass(frozen=True)
class Value:
    """An input or output of the model; an axis is a size, a name, or None where it has neither."""

    name: str
    dtype: str
    axes: tuple[int | str | None, ...]

    def __str__(self) -> str:
        """As in ``input float32 (time, batch, 4)``."""
        return f"{self.name} {self.dtype} ({', '.join('?' if axis is None else str(axis) for axis in self.axes)})"


@dataclass(frozen=True)
class LSTMInfo:
    """One LSTM node.

    Attributes:
        name: the node's name, or its first output's where it has none.
        kind: "LSTM"; "DynamicQuantizeLSTM", ONNX Runtime's with int8 weights; or "Scan", lstm-onnx's
            exact lowering of a projected layer.
        direction: "forward", "reverse" or "bidirectional".
        input_size: features of its input, None where the file does not tell.
        hidden_size: 0 where the file does not tell.
        proj_size: 0 without a projection.
        bias: whether it has biases.
        states: the model's inputs that feed the initial h and c; empty where those are zeros, other
            constants, or computed.
        lengths: the model's input that feeds the sequences' lengths, "" where they are computed or
            constant, None where all sequences are whole.
        dtype: what the node computes in, or its weights where those are quantised.
        parameters: numbers in its stored weights, 0 where the weights are computed.
        bytes: bytes of those.
        flops_per_step: for one sequence and time step (see the module), 0 where a size is unknown.
        notes: what else is particular: peepholes, clip, layout, activations, sizes that are unknown.
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


@dataclass(frozen=True)
class Inspection:
    """What is in an ONNX file.

    Attributes:
        file: the path as given.
        file_bytes: of the file and its external data.
        ir_version: of the file format.
        opset: of the default ONNX domain, None where only others are used.
        producer: what wrote it.
        inputs: of the model, without those that are initializers.
        outputs: of the model.
        states: which output feeds which state input, where the file says so.
        lstms: every LSTM, in the file's order.
        other_ops: how many of each other operator, bodies included; "domain.Op" outside the default
            domain.  The body of an LSTM's own Scan belongs to the LSTM.
        parameters: numbers in all initializers and Constants; not single numbers, nor 32- and 64-bit
            integers and bools, which are shapes and indices.
        bytes: bytes of those.
        flops_per_step: of all LSTMs, each run once a step.
        story: what a file from lstm-onnx says of itself, empty for any other.
        notes: what is amiss, such as external data that is missing.
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
    story: Story
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the story is null for a file that lstm-onnx did not write."""
        result = asdict(self)
        if self.story == Story():
            result["story"] = None
        return result

    def __str__(self) -> str:
        """A summary and a table, for people."""
        opset = "no default opset" if self.opset is None else f"opset {self.opset}"
        lines = [
            f"{self.file}: {self.file_bytes:,} bytes, {opset}, IR {self.ir_version}, by {self.producer or 'unknown'}"
        ]
        lines += [f"  in   {value}" for value in self.inputs] + [f"  out  {value}" for value in self.outputs]
        if self.states:
            lines.append("  states  " + ", ".join(f"{source} <- {target}" for source, target in self.states.items()))
        if self.story.digest:
            lines.append(f"  weights  {self.story.digest}")
        lines += ["", *_table(self.lstms)] if self.lstms else ["no LSTM in this file"]
        lines += [f"{lstm.name}: {note}" for lstm in self.lstms for note in lstm.notes]
        lines += [f"the model: {self.parameters:,} parameters, {self.bytes:,} bytes"]
        if self.lstms:
            lines[-1] += f"; its LSTMs {self.flops_per_step:,} FLOPs per sequence and step"
        if self.other_ops:
            lines.append("other nodes: " + ", ".join(f"{op} {count}" for op, count in self.other_ops.items()))
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Find the LSTMs in an ONNX file.

    Raises:
        FileError: it is missing, empty, a folder or not readable.
        ModelError: it is not an ONNX model, is cut short, or its lstm_onnx metadata are damaged.
    """
    found = readable_file(path, "an .onnx file")
    model = _parsed(found)
    try:
        story = Story.from_metadata({entry.key: entry.value for entry in model.metadata_props})
        top = _Scope.of(model.graph)
        lstms, others, stored = _walk(top)
    except (ConfigError, ModelError) as error:
        raise ModelError(f"{path}: {error}") from error
    weights = [tensor for tensor in stored if tensor.dims and tensor.elem_type not in _INDEX_TYPES]
    external, notes = _external_bytes(found, stored)
    return Inspection(
        file=os.fspath(path),
        file_bytes=found.stat().st_size + external,
        ir_version=model.ir_version,
        opset=next((opset.version for opset in model.opset_import if _is_default(opset.domain)), None),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=tuple(_value(item) for item in model.graph.input if item.name not in top.tensors),
        outputs=tuple(_value(item) for item in model.graph.output),
        states=dict(story.states),
        lstms=tuple(lstms),
        other_ops=dict(sorted(others.items())),
        parameters=sum(tensor.size for tensor in weights),
        bytes=sum(tensor.num_bytes for tensor in weights),
        flops_per_step=sum(lstm.flops_per_step for lstm in lstms),
        story=story,
        notes=tuple(notes),
    )


def _walk(top: _Scope) -> tuple[list[LSTMInfo], Counter[str], list[_Tensor]]:
    """Every LSTM, the count of every other operator, and every stored tensor."""
    lstms: list[LSTMInfo] = []
    others: Counter[str] = Counter()
    stored: list[_Tensor] = []
    for scope in _scopes(top):
        stored += scope.stored
        for node in scope.nodes:
            info = _lstm(scope, node)
            if info is not None:
                lstms.append(info)
            elif node.op_type != "Constant":
                others[node.op_type if _is_default(node.domain) else f"{node.domain}.{node.op_type}"] += 1
    return lstms, others, stored


def _parsed(path: Path) -> ModelProto:
    """The model, its functions inlined."""
    try:
        if path.stat().st_size > _LARGEST_PROTOBUF:
            raise ModelError(f"{path}: is over 2 GiB, which no ONNX model is; its weights belong in a file beside it")
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}; expected an .onnx file") from error
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, RuntimeError) as error:
        raise ModelError(f"{path}: is not an ONNX model, or is cut short ({error}); export or copy it again") from error
    if not model.opset_import or not model.HasField("graph"):
        raise ModelError(f"{path}: is not an ONNX model, or is cut short (it has no graph or no opset)")
    if not _is_text(model):
        raise ModelError(f"{path}: is damaged: a name in it is not UTF-8 text; export or copy it again")
    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except (checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: its functions cannot be inlined ({error})") from error


def _is_text(message: Message) -> bool:
    """Whether every string is one: protobuf hands out what is not UTF-8 as bytes, without a word."""
    for kind, value in message.ListFields():
        items = [value] if isinstance(value, (str, bytes, int, float, Message)) else value
        if kind.type == kind.TYPE_STRING and not all(isinstance(item, str) for item in items):
            return False
        if kind.type == kind.TYPE_MESSAGE and not all(_is_text(item) for item in items):
            return False
    return True


@dataclass(frozen=True)
class _Tensor:
    """A stored tensor, by its dimensions alone; `location` is its file where that is another."""

    dims: tuple[int, ...]
    elem_type: int
    location: str | None = None

    @property
    def size(self) -> int:
        return prod(self.dims)

    @property
    def num_bytes(self) -> int:
        return -(-self.size * _bits(self.elem_type) // 8)

    @classmethod
    def of(cls, tensor: TensorProto) -> _Tensor:
        if any(dim < 0 for dim in tensor.dims):
            raise ModelError(f"the tensor {tensor.name!r} has a negative dimension: {tuple(tensor.dims)}")
        external = tensor.data_location == TensorProto.EXTERNAL
        keys = {entry.key: entry.value for entry in tensor.external_data} if external else {}
        return cls(tuple(tensor.dims), tensor.data_type, keys.get("location"))


@dataclass(frozen=True)
class _Scope:
    """A graph and where its values come from; `caller` is the node whose body it is, in `parent`."""

    nodes: Sequence[NodeProto]
    inputs: list[str]
    tensors: dict[str, _Tensor]
    stored: list[_Tensor]
    producers: dict[str, NodeProto]
    types: dict[str, Value]
    parent: _Scope | None = None
    caller: NodeProto | None = None
    known: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, graph: GraphProto, parent: _Scope | None = None, caller: NodeProto | None = None) -> _Scope:
        tensors = {tensor.name: _Tensor.of(tensor) for tensor in graph.initializer}
        sparse = [_Tensor.of(item.values) for item in graph.sparse_initializer]
        for node in graph.node:
            if node.op_type == "Constant" and node.output:
                tensors.update((node.output[0], tensor) for item in node.attribute for tensor in _constant(item))
        producers = {output: node for node in graph.node for output in node.output if output}
        inputs = [item.name for item in graph.input]
        types = {item.name: _value(item) for item in (*graph.value_info, *graph.input, *graph.output)}
        known = frozenset((*tensors, *producers, *inputs))
        return cls(graph.node, inputs, tensors, [*tensors.values(), *sparse], producers, types, parent, caller, known)

    def home(self, name: str) -> _Scope | None:
        """The innermost graph that defines the value `name`, as seen from this one."""
        scope: _Scope | None = self
        while scope is not None and name not in scope.known:
            scope = scope.parent
        return scope

    def weight(self, name: str) -> tuple[_Tensor | None, tuple[int, ...], str]:
        """The stored tensor behind `name` or None, its dimensions where known, and the dtype it is used in."""
        dtype = ""
        home = self.home(name)
        for _ in range(8):  # a cycle ends here, too
            if home is None or name in home.tensors:
                break
            dims = home.types[name].axes if name in home.types else ()
            node = home.producers.get(name)
            if node is None or node.op_type not in _KEEPS_SHAPE or not node.input:
                fixed = tuple(dim for dim in dims if isinstance(dim, int))
                return None, fixed if len(fixed) == len(dims) else (), dtype
            if node.op_type == "Cast":
                dtype = dtype or _dtype(_integer(_attributes(node), "to"))
            name = node.input[0]
            home = home.home(name)
        tensor = home.tensors.get(name) if home else None
        return (tensor, tensor.dims, dtype or _dtype(tensor.elem_type)) if tensor else (None, (), dtype)


def _scopes(scope: _Scope) -> Iterator[_Scope]:
    """A graph and the bodies in it, those of LSTMs' own Scans left out."""
    yield scope
    for node in scope.nodes:
        if _is_lstm_scan(scope, node):
            continue
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
            for body in bodies:
                yield from _scopes(_Scope.of(body, scope, node))


def _origins(scope: _Scope, name: str) -> tuple[list[str], list[str]]:
    """The model's inputs that `name` is taken from, and the operators that compute it where it is not."""
    inputs: list[str] = []
    computed: list[str] = []
    todo, seen = [(scope, name)], set()
    while todo:
        asking, name = todo.pop()
        home = asking.home(name)
        if not name or home is None or (id(home), name) in seen or name in home.tensors:
            continue
        seen.add((id(home), name))
        node = home.producers.get(name)
        if node is not None:
            sources = _sources(node)
            computed += [node.op_type] if sources is None else []
            todo += [(home, source) for source in reversed(sources or [])]
        elif home.parent is None or home.caller is None:
            inputs.append(name)
        else:
            # A Loop's and a Scan's body takes its inputs in the order of the node's own.
            index = home.inputs.index(name)
            todo += [(home.parent, source) for source in home.caller.input[index : index + 1]]
    return inputs, computed


def _sources(node: NodeProto) -> list[str] | None:
    """The inputs whose content the node hands on; None where it computes something new."""
    if node.op_type in _MOVES_DATA:
        return list(node.input[:1])
    if node.op_type == "Concat":
        return list(node.input)
    if node.op_type == "Less":  # steps < lengths, the mask of our Scan
        return list(node.input[1:])
    if node.op_type == "MatMul" and len(node.input) == 2 and node.input[1].endswith("/W_hr_pinv"):  # our fold
        return list(node.input[:1])
    return [] if node.op_type == "ConstantOfShape" else None


def _lstm(scope: _Scope, node: NodeProto) -> LSTMInfo | None:
    if _is_lstm_scan(scope, node):
        return _scan_info(scope, node)
    if node.op_type == "LSTM" and _is_default(node.domain):
        return _operator_info(scope, node)
    if node.op_type == "DynamicQuantizeLSTM" and node.domain == "com.microsoft":
        return _operator_info(scope, node)
    return None


def _operator_info(scope: _Scope, node: NodeProto) -> LSTMInfo:
    """An LSTM operator: X, W (D, 4H, I), R (D, 4H, H), B (D, 8H), sequence_lens, initial_h, initial_c, P (D, 3H).

    The quantised one has W and R transposed.
    """
    inputs = [*node.input, *[""] * (8 - len(node.input))]
    attributes = _attributes(node)
    notes = _particulars(attributes, peepholes=bool(inputs[7]))
    weights = {name: scope.weight(inputs[at]) for name, at in (("W", 1), ("R", 2), ("B", 3), ("P", 7)) if inputs[at]}
    prefix = node.name.removesuffix("/LSTM")
    projection = scope.weight(f"{prefix}/W_hr")[0] if node.name.endswith("/LSTM") else None
    if projection is not None:
        weights |= {name: scope.weight(f"{prefix}/{name}") for name in ("W_hr", "W_hr_pinv")}
        notes.append("a projection is folded in: R is R W_hr, and pinv(W_hr) is stored for h0")
    unknown = [name for name, (tensor, _, _) in weights.items() if tensor is None]
    if unknown:
        notes.append(f"{', '.join(unknown)} computed in the graph: not counted as parameters")
    transposed = node.op_type == "DynamicQuantizeLSTM"
    wide = _dims(weights, "W")
    recurrent = _dims(weights, "R")
    input_size = (wide[1] if transposed else wide[2]) if wide else None
    hidden_size = _integer(attributes, "hidden_size")
    if recurrent:
        hidden_size = recurrent[1] if transposed else recurrent[2]
    elif not hidden_size and wide:
        hidden_size = (wide[2] if transposed else wide[1]) // GATES
    if input_size is None or not hidden_size:
        notes.append("sizes are not in the file: FLOPs are not counted")
    return _info(
        scope,
        node,
        direction=_text(attributes.get("direction", "forward")),
        input_size=input_size,
        hidden_size=hidden_size,
        proj_size=projection.dims[-1] if projection is not None and len(projection.dims) > 1 else 0,
        folded=True,
        bias=bool(inputs[3]),
        peepholes=bool(inputs[7]),
        initial=(inputs[5], inputs[6]),
        lengths=inputs[4],
        dtype=next((dtype for _, _, dtype in weights.values() if dtype), "") or _used_dtype(scope, inputs[0]),
        weights=[tensor for tensor, _, _ in weights.values() if tensor],
        notes=notes,
    )


def _is_lstm_scan(scope: _Scope, node: NodeProto) -> bool:
    return node.op_type == "Scan" and _is_default(node.domain) and bool(_scan_weights(scope, node))


def _scan_weights(scope: _Scope, node: NodeProto) -> dict[str, _Tensor]:
    """The matrices of a projected layer by the names that graph.py gives them; empty for any other Scan."""
    if not node.name.endswith("/Scan"):
        return {}
    prefix = node.name.removesuffix("Scan")
    suffixes = ("_forward", "_reverse") if scope.weight(f"{prefix}R_forward")[0] else ("",)
    names = ["W", *(f"{name}{suffix}" for name in ("R", "W_hr") for suffix in suffixes)]
    weights = {name: tensor for name in names if (tensor := scope.weight(prefix + name)[0]) and len(tensor.dims) == 2}
    if len(weights) != len(names) or len(node.input) < 3 * len(suffixes):
        return {}
    biases = scope.weight(f"{prefix}B")[0]
    return weights if biases is None else {**weights, "B": biases}


def _scan_info(scope: _Scope, node: NodeProto) -> LSTMInfo:
    """A projected layer: W (I, D*4H), B (D*4H), and for each direction R (P, 4H) and W_hr (H, P)."""
    weights = _scan_weights(scope, node)
    both = "R_forward" in weights
    count = 2 if both else 1
    projection = weights["W_hr_forward" if both else "W_hr"]
    backwards = any(_list(_attributes(node), "scan_input_directions"))
    return _info(
        scope,
        node,
        direction="bidirectional" if both else "reverse" if backwards else "forward",
        input_size=weights["W"].dims[0],
        hidden_size=projection.dims[0],
        proj_size=projection.dims[1],
        folded=False,
        bias="B" in weights,
        peepholes=False,
        initial=tuple(node.input[: 2 * count]),
        lengths=node.input[3 * count] if len(node.input) > 3 * count else "",
        dtype=_dtype(weights["W"].elem_type),
        weights=list(weights.values()),
        notes=["torch's two biases are stored as their sum"] if "B" in weights else [],
    )


def _info(
    scope: _Scope,
    node: NodeProto,
    *,
    direction: str,
    input_size: int | None,
    hidden_size: int,
    proj_size: int,
    folded: bool,
    bias: bool,
    peepholes: bool,
    initial: tuple[str, ...],
    lengths: str,
    dtype: str,
    weights: Sequence[_Tensor],
    notes: list[str],
) -> LSTMInfo:
    """What both lowerings share: origins of states and lengths, and the sums."""
    origins = [_origins(scope, name) for name in initial]
    computed = sorted({op for _, ops in origins for op in ops})
    if computed:
        notes.append(f"initial states are computed in the graph ({', '.join(computed)})")
    flops = 0
    if input_size is not None and hidden_size:
        carried = hidden_size if folded else proj_size
        matrices = 2 * GATES * hidden_size * (input_size + carried) + 2 * proj_size * hidden_size
        flops = matrices + hidden_size * (9 + GATES * bias + 6 * peepholes)
        flops *= 2 if direction == "bidirectional" else 1
    return LSTMInfo(
        name=node.name or next((output for output in node.output if output), ""),
        kind=node.op_type,
        direction=direction,
        input_size=input_size,
        hidden_size=hidden_size,
        proj_size=proj_size,
        bias=bias,
        states=tuple(dict.fromkeys(source for sources, _ in origins for source in sources)),
        lengths=next(iter(_origins(scope, lengths)[0]), "") if lengths else None,
        dtype=dtype,
        parameters=sum(tensor.size for tensor in weights),
        bytes=sum(tensor.num_bytes for tensor in weights),
        flops_per_step=flops,
        notes=tuple(notes),
    )


def _particulars(attributes: dict[str, Any], *, peepholes: bool) -> list[str]:
    """What an LSTM does that torch's does not."""
    notes = ["peepholes"] if peepholes else []
    if "clip" in attributes:
        notes.append(f"clip {_text(attributes['clip'])}")
    if attributes.get("layout", 0):
        notes.append("layout=1 (batch first), which ONNX Runtime refuses")
    if attributes.get("input_forget", 0):
        notes.append("input_forget (input and forget gate are coupled)")
    activations = [_text(name) for name in _list(attributes, "activations")]
    if [name.lower() for name in activations] != ["sigmoid", "tanh", "tanh"] * (len(activations) // 3):
        notes.append(f"activations {', '.join(activations)}")
    return notes


def _dims(weights: dict[str, tuple[_Tensor | None, tuple[int, ...], str]], name: str) -> tuple[int, ...]:
    """Three dimensions, or none where they are not known."""
    dims = weights[name][1] if name in weights else ()
    return dims if len(dims) == 3 else ()


def _used_dtype(scope: _Scope, name: str) -> str:
    home = scope.home(name)
    return home.types[name].dtype if home is not None and name in home.types else "unknown"


def _is_default(domain: str) -> bool:
    return domain in ("", "ai.onnx")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _attributes(node: NodeProto) -> dict[str, Any]:
    """Attributes that are numbers, strings or lists of them."""
    plain = {
        AttributeProto.FLOAT,
        AttributeProto.INT,
        AttributeProto.STRING,
        AttributeProto.FLOATS,
        AttributeProto.INTS,
        AttributeProto.STRINGS,
    }
    return {item.name: helper.get_attribute_value(item) for item in node.attribute if item.type in plain}


def _integer(attributes: dict[str, Any], name: str) -> int:
    value = attributes.get(name)
    return value if isinstance(value, int) else 0


def _list(attributes: dict[str, Any], name: str) -> list[Any]:
    value = attributes.get(name)
    return value if isinstance(value, list) else []


def _constant(attribute: AttributeProto) -> list[_Tensor]:
    """The tensor in an attribute of a Constant node."""
    if attribute.type == AttributeProto.TENSOR:
        return [_Tensor.of(attribute.t)]
    if attribute.type == AttributeProto.SPARSE_TENSOR:
        return [_Tensor.of(attribute.sparse_tensor.values)]
    if attribute.type == AttributeProto.FLOATS:
        return [_Tensor((len(attribute.floats),), TensorProto.FLOAT)]
    # Whatever else it holds (numbers, integers, strings) is no weight.
    return [_Tensor((), TensorProto.INT64)]


def _value(item: ValueInfoProto) -> Value:
    kind = item.type.WhichOneof("value") or "unknown"
    if kind != "tensor_type":
        return Value(item.name, kind.removesuffix("_type"), ())
    tensor = item.type.tensor_type
    axes = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim)
    return Value(item.name, _dtype(tensor.elem_type), axes)


def _type_name(elem_type: int) -> str:
    try:
        return str(TensorProto.DataType.Name(elem_type))
    except ValueError:
        return "UNDEFINED"


def _dtype(elem_type: int) -> str:
    """numpy's name of an ONNX element type."""
    name = _type_name(elem_type)
    return {"FLOAT": "float32", "DOUBLE": "float64", "UNDEFINED": "unknown"}.get(name, name.lower())


def _bits(elem_type: int) -> int:
    """Bits of one element, which the type's name tells: float16, int4, float8e4m3fn."""
    name = _dtype(elem_type).lstrip("abcdefghijklmnopqrstuvwxyz")
    digits = name[: len(name) - len(name.lstrip("0123456789"))]
    return int(digits) if digits else 8


def _external_bytes(path: Path, tensors: Sequence[_Tensor]) -> tuple[int, list[str]]:
    """Bytes of the files beside the model that hold its weights, and which of them are amiss."""
    total, notes = 0, []
    for location in sorted({tensor.location for tensor in tensors if tensor.location is not None}):
        beside = Path(location)
        if beside.is_absolute() or ".." in beside.parts:
            notes.append(f"external data {location!r} lies outside the model's folder, which every runtime refuses")
            continue
        try:
            total += (path.parent / beside).stat().st_size
        except (OSError, ValueError):
            notes.append(f"external data {location!r} is missing; it belongs beside the model")
    return total, notes


def _table(lstms: Sequence[LSTMInfo]) -> list[str]:
    heads = ("name", "kind", "direction", "input", "hidden", "proj", "bias", "states", "lengths", "dtype")
    rows = [(*heads, "parameters", "bytes", "FLOPs/step")]
    for lstm in lstms:
        sizes = ("?" if lstm.input_size is None else str(lstm.input_size), str(lstm.hidden_size or "?"))
        lengths = "-" if lstm.lengths is None else lstm.lengths or "computed"
        words = ("yes" if lstm.bias else "no", ", ".join(lstm.states) or "-", lengths, lstm.dtype)
        numbers = (f"{lstm.parameters:,}", f"{lstm.bytes:,}", f"{lstm.flops_per_step:,}")
        rows.append((lstm.name, lstm.kind, lstm.direction, *sizes, str(lstm.proj_size or "-"), *words, *numbers))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = {3, 4, 5, 10, 11, 12}
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

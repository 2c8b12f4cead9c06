"""Reads recurrent layers: ONNX's LSTM, GRU and RNN, ONNX Runtime's int8 LSTM, and the Scans that lstm-onnx writes.

ONNX's operators have the inputs ``X, W, R, B, sequence_lens, initial_h``, an LSTM also ``initial_c, P``, and the
outputs ``Y, Y_h``, an LSTM also ``Y_c``.  DynamicQuantizeLSTM has the same first eight inputs, with W and R transposed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from onnx import NodeProto

from .nodes import bodies_of
from .tensors import attributes_of, is_default, text, typed

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""ONNX's recurrent operators, and the number of gates of each."""
DEFAULT_ACTIVATIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
"""ONNX's default activations for one direction, in lower case; cuDNN's recurrent layers have no others."""
QUANTIZED_LSTM = "DynamicQuantizeLSTM"
SEQUENCE_LENS, INITIAL_H, INITIAL_C, PEEPHOLES = 4, 5, 6, 7
"""Indices of the operators' inputs."""


def input_of(node: NodeProto, index: int) -> str:
    """The name of an input; "" if it is left out."""
    return str(node.input[index]) if index < len(node.input) else ""


def is_onnx_operator(node: NodeProto) -> bool:
    """Whether it is ONNX's LSTM, GRU or RNN."""
    return node.op_type in GATES and is_default(node.domain)


def is_operator(node: NodeProto) -> bool:
    """Whether it is ONNX's LSTM, GRU or RNN, or ONNX Runtime's int8 LSTM."""
    return is_onnx_operator(node) or (node.op_type == QUANTIZED_LSTM and node.domain == "com.microsoft")


def is_scan(node: NodeProto) -> bool:
    """Whether it is ONNX's Scan."""
    return node.op_type == "Scan" and is_default(node.domain)


def batch_axis(node: NodeProto) -> int:
    """The batch axis of an operator's X; the time axis is the other of the first two."""
    return 0 if typed(attributes_of(node), "layout", int) == 1 else 1


def scanned_inputs(node: NodeProto) -> list[str]:
    """The inputs that a Scan iterates over; none for any other node."""
    count = typed(attributes_of(node), "num_scan_inputs", int) if node.op_type == "Scan" else 0
    return list(node.input[len(node.input) - count :]) if count else []


def initial_states(node: NodeProto) -> list[str]:
    """The initial states of an operator or a Scan; "" for zeros."""
    if node.op_type == "Scan":
        return list(node.input[: len(node.input) - len(scanned_inputs(node))])
    return list(node.input[INITIAL_H : INITIAL_C + 1])


def final_states(node: NodeProto) -> list[str]:
    """The final states in the order of `initial_states`; for a Scan, its other outputs follow."""
    return list(node.output) if node.op_type == "Scan" else list(node.output[1:3])


def direction_of(node: NodeProto) -> str:
    """An operator's direction, as written in the file."""
    return text(attributes_of(node).get("direction", "forward"))


def activations_of(node: NodeProto) -> list[str]:
    """An operator's activations, as written in the file; empty if it leaves them to the default.

    ONNX's default for an RNN is two, of which one direction uses the first.
    """
    names = [text(name) for name in typed(attributes_of(node), "activations", list)]
    one = node.op_type == "RNN" and len(names) == 2 and direction_of(node) != "bidirectional"
    return names[:1] if one else names


def has_default_activations(node: NodeProto) -> bool:
    """Whether its activations are those of nn.LSTM, nn.GRU or nn.RNN, in each direction."""
    names = tuple(name.lower() for name in activations_of(node))
    default = DEFAULT_ACTIVATIONS["LSTM" if node.op_type == QUANTIZED_LSTM else node.op_type]
    return not names or names == default * (len(names) // len(default))


@dataclass(eq=False)
class Port:
    """One input of a node, or one output, by its index."""

    node: NodeProto
    index: int
    output: bool = False

    @property
    def value(self) -> str:
        """The value's name, "" if there is none; setting it rewires the node."""
        values = self.node.output if self.output else self.node.input
        return str(values[self.index]) if self.index < len(values) else ""

    @value.setter
    def value(self, name: str) -> None:
        values = self.node.output if self.output else self.node.input
        values[self.index] = name


@dataclass(frozen=True)
class RecurrentLayer:
    """One recurrent layer.

    Attributes:
        node: its operator or Scan.
        op_type: "LSTM", "GRU" or "RNN", whichever it computes.
        directions: 1 or 2.
        hidden_size: the attribute's value, 0 if it is absent.
        W, R, B, W_hr: the ports that read the weights, empty if absent: for an operator one each and no W_hr;
            for a Scan one R and, with a projection, one W_hr for each direction, in its body.
        Rb: for a GRU's Scan, the ports that read the recurrent bias of the new gate, one for each direction.
        lengths: the port that reads sequence_lens, or a Scan's mask; None if all sequences have full length.
    """

    node: NodeProto
    op_type: str
    directions: int
    hidden_size: int
    W: tuple[Port, ...]
    R: tuple[Port, ...]
    B: tuple[Port, ...]
    W_hr: tuple[Port, ...]
    lengths: Port | None
    Rb: tuple[Port, ...] = ()

    @property
    def name(self) -> str:
        """The node's name or, if it has none, its operator and its first output."""
        return self.node.name or f"{self.node.op_type} of {next(filter(None, self.node.output), 'nothing')}"

    @property
    def scan(self) -> bool:
        """Whether it is a Scan."""
        return self.node.op_type == "Scan"

    @property
    def states(self) -> int:
        """The number of states: 2 for an LSTM, h and c, otherwise 1."""
        return 2 if self.op_type == "LSTM" else 1

    @property
    def gates(self) -> int:
        """The number of gates."""
        return GATES[self.op_type]

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The node's attributes."""
        return attributes_of(self.node)

    @property
    def direction(self) -> str:
        """Its direction; for an operator as written in the file."""
        if not self.scan:
            return direction_of(self.node)
        if self.directions == 2:
            return "bidirectional"
        return "reverse" if any(typed(self.attributes, "scan_input_directions", list)) else "forward"

    @property
    def x(self) -> str:
        """The value that it reads step by step, time first; for a Scan, the input's part of the gates."""
        return input_of(self.node, self.states * self.directions if self.scan else 0)

    @property
    def y(self) -> list[str]:
        """The outputs of all steps, "" for one that is unused; for a Scan one for each direction."""
        first = self.states * self.directions if self.scan else 0
        count = self.directions if self.scan else 1
        return [str(value) for value in self.node.output[first : first + count]]

    def initial(self, state: str) -> list[Port]:
        """The ports that read the initial "h" or "c"; empty for zeros."""
        if self.scan:
            return [Port(self.node, index) for index in self._of_scan(state)]
        port = Port(self.node, INITIAL_H if state == "h" else INITIAL_C)
        return [port] if port.value and (state == "h" or self.op_type == "LSTM") else []

    def final(self, state: str) -> list[Port]:
        """The ports of the final "h" or "c"; empty if it is unused."""
        if self.scan:
            return [Port(self.node, index, output=True) for index in self._of_scan(state)]
        port = Port(self.node, 1 if state == "h" else 2, output=True)
        return [port] if port.value and (state == "h" or self.op_type == "LSTM") else []

    def _of_scan(self, state: str) -> range:
        """The indices of a Scan's inputs and outputs for the "h" or "c" of each direction."""
        if state == "h":
            return range(self.directions)
        return range(self.directions, self.states * self.directions)

    def folded_projection(
        self, nodes: Iterable[NodeProto], producers: Mapping[str, NodeProto]
    ) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
        """The ports that read pinv(W_hr), and those that read W_hr, for a projection that lstm-onnx folded into R.

        Args:
            nodes: the nodes of the layer's graph.
            producers: the node that computes each value in that graph.
        """
        outputs = {str(value) for value in self.node.output} - {""}
        before = [producers.get(port.value) for port in self.initial("h")]
        after = [node for node in nodes if node.op_type == "MatMul" and node.input and node.input[0] in outputs]
        return (
            tuple(Port(node, 1) for node in before if node is not None and _ends(node, MAP_H0)),
            tuple(Port(node, 1) for node in after if _ends(node, *PROJECTIONS)),
        )


def read_layer(node: NodeProto, producers: Mapping[str, NodeProto]) -> RecurrentLayer | None:
    """Read a node as a recurrent layer; None for any other node, and for a Scan that lstm-onnx did not write.

    Args:
        node: any node.
        producers: the node that computes each value in the same graph.
    """
    if is_operator(node):
        bias, lengths = Port(node, 3), Port(node, SEQUENCE_LENS)
        return RecurrentLayer(
            node,
            node.op_type if node.op_type in GATES else "LSTM",
            2 if direction_of(node) == "bidirectional" else 1,
            typed(attributes_of(node), "hidden_size", int),
            (Port(node, 1),),
            (Port(node, 2),),
            (bias,) if bias.value else (),
            (),
            lengths if lengths.value else None,
        )
    return _read_scan(node, producers) if is_scan(node) else None


def _read_scan(node: NodeProto, producers: Mapping[str, NodeProto]) -> RecurrentLayer | None:
    """Read the Scan that `lstm_onnx.exporter.scan_layers` writes for a layer, recognized by its body's node names."""
    body = next(bodies_of(node), None)
    if body is None:
        return None
    recurrent = _second_inputs(body.node, RECURRENT_MATMUL)
    new_h = [each for each in body.node if _ends(each, NEW_H)]
    projection = tuple(Port(each, 1) for each in new_h if each.op_type == "MatMul")
    count = len(recurrent)
    scanned = len(scanned_inputs(node))
    if not count or len(new_h) != count or len(projection) not in (0, count) or scanned not in (count, 2 * count):
        return None
    states = (len(node.input) - scanned) // count
    reset = any(_ends(each, RESET) for each in body.node)
    op_type = "LSTM" if states == 2 else "GRU" if reset else "RNN"
    if states not in (1, 2) or len(node.input) != states * count + scanned or len(body.output) < states * count:
        return None
    # The size of c if there is one, since h may be projected.
    cell = body.output[(states - 1) * count].type.tensor_type.shape.dim
    gates = producers.get(node.input[states * count])
    if gates is not None and gates.op_type == "Split":
        gates = producers.get(input_of(gates, 0))
    bias: tuple[Port, ...] = ()
    if gates is not None and gates.op_type == "Add":
        bias, gates = (Port(gates, 1),), producers.get(input_of(gates, 0))
    if gates is None or gates.op_type != "MatMul" or not cell or cell[-1].dim_value < 1:
        return None
    return RecurrentLayer(
        node,
        op_type,
        count,
        cell[-1].dim_value,
        (Port(gates, 1),),
        recurrent,
        bias,
        projection,
        Port(node, (states + 1) * count) if scanned > count else None,
        _second_inputs(body.node, RECURRENT_BIAS),
    )


def _second_inputs(nodes: Sequence[NodeProto], suffix: str) -> tuple[Port, ...]:
    return tuple(Port(node, 1) for node in nodes if _ends(node, suffix))


def _ends(node: NodeProto, *suffixes: str) -> bool:
    return str(node.name).endswith(suffixes)


_CALL = re.compile(r"(?:^|(?<=/))call[0-9]+/(?=l[0-9]+/[A-Za-z]*$)")
_LAYER = re.compile(r"(?:(?P<path>.+)/)?l[0-9]+/(?:LSTM|GRU|RNN|Scan)")
PSEUDO_INVERSE = "/W_hr_pinv"
"""The suffix of the weight that maps h0 into a layer whose projection is folded into R."""
MAP_H0, PROJECTIONS = "/unproject_h0", ("/project", "/project_hn")
"""The suffixes of the MatMuls before and after such a layer."""
RECURRENT_MATMUL, NEW_H = "/recurrent_gates", "/new_h"
"""Suffixes of nodes in the body of a layer's Scan, for each direction: R h, and h itself (the product with W_hr)."""
RESET, RECURRENT_BIAS = "/reset", "/recurrent_new_biased"
"""Suffixes of nodes in a GRU's body: the new gate's part of R h times the reset gate, and that part plus its bias."""


def module_path(node: str) -> str | None:
    """The path of the nn.Module whose layer has a node of this name; None if the name is not a layer's."""
    match = _LAYER.fullmatch(_CALL.sub("", node))
    return (match["path"] or "").replace("/", ".") if match else None

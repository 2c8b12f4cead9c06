"""Proves that a mutant only changes what no output depends on, by putting other numbers there.

The graph alone cannot tell if rows are picked by numbers, like those of a packed sequence.  If large numbers of either
sign in place of what a mutant changes leave the bits of all outputs the same in every case, the file does not read it.
The comparison is with a file that has the same additional nodes and its own numbers, since nodes between two operators
change how half precision is rounded there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import NodeProto

from ...errors import LSTMOnnxError
from ...onnxgraph.padding import is_within, root
from ...onnxgraph.recurrent import Port, RecurrentLayer
from ...onnxgraph.tensors import attributes_of
from ...runtime import Model
from ..expected import Expected
from .graph_edit import Edit, redirect

Replace = Callable[[Edit, RecurrentLayer, float | None], bool]
"""Puts a number where a mutant changes something, or with None what is there, by the same nodes; whether it could."""
NUMBERS = (1e3, -1e3)
"""Far from what gates give, and exact in float16."""
WHOLE_RUNS = ("whole", "values", "sweep", "data")
"""Kinds of cases in which each call is a single run."""


WITNESS = "mutant/witness"
"""An output of copies that shows that the numbers in place of others do have an effect, if not on any other output."""


def replace_recurrent(edit: Edit, layer: RecurrentLayer, number: float | None) -> bool:
    """Put a number in place of R, which has no effect on a first step from h = 0 where no other step is read.

    The layer's final h is the witness: in a case of one step nothing would depend on R.
    """
    if edit.graph is not edit.model.graph:  # of a generating file
        return False
    dtype = np.dtype(np.float32)
    for port in layer.R:
        array = edit.constant(port.value)
        if array is None or array.dtype.kind != "f":
            return False
        dtype = array.dtype
        if number is not None:
            port.value = edit.array(np.full_like(array, number))
    _add_witness(edit, edit.named_final(layer, "h")[0], dtype)
    return True


def _add_witness(edit: Edit, value: str, dtype: np.dtype) -> None:
    edit.graph.node.append(onnx.helper.make_node("Identity", [value], [WITNESS], name=WITNESS))
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    edit.graph.output.append(onnx.helper.make_tensor_value_info(WITNESS, kind, None))


def replace_padding(edit: Edit, layer: RecurrentLayer, number: float | None) -> bool:
    """Put a number in place of everything that a layer's lengths affect.

    In a forward direction these are the steps past each sequence's end; in a reverse one, which would begin there, all
    steps of the shorter sequences, unless it stays at zero up to their ends; and the final states of the shorter ones.
    """
    return _replace_padding(edit, layer, number, still=stays_at_zero(edit, layer))


def replace_one_step_off(edit: Edit, layer: RecurrentLayer, number: float | None) -> bool:
    """The same in all layers with one mask, which a longer mask affects; for an operator, with shorter lengths."""
    if layer.lengths is None:
        return False
    if not layer.scan:
        return _replace_last_step(edit, layer, layer.lengths, number)
    mask = layer.lengths.value
    sharing = [other for other in edit.layers if other.lengths is not None and other.lengths.value == mask]
    nodes = [other.node for other in sharing]
    if edit.is_output(mask) or any(reader not in nodes for reader in edit.readers(mask)):
        return False
    # A layer below may share the mask, so that its outputs are no longer zero where they were.
    return all(_replace_padding(edit, other, number, still=False) for other in sharing)


def shorter_lengths(edit: Edit, lengths: str) -> str:
    """Add lengths that are one step too short."""
    one = np.array(1, np.int32)
    return edit.node("Max", edit.node("Sub", lengths, one), one)


def _replace_last_step(edit: Edit, layer: RecurrentLayer, lengths: Port, number: float | None) -> bool:
    """The lengths are the witness: sequences of one step keep theirs."""
    if edit.graph is not edit.model.graph:
        return False
    own = lengths.value
    lengths.value = shorter_lengths(edit, own)
    _add_witness(edit, own if number is None else lengths.value, np.dtype(np.int32))
    replaced = _replace_padding(edit, layer, number, still=False)
    lengths.value = own
    return replaced


def _replace_padding(edit: Edit, layer: RecurrentLayer, number: float | None, *, still: bool) -> bool:
    """`still` says that a reverse direction gives the same without lengths."""
    weights = edit.constant(layer.W[0].value)
    finals = [port.value for state in ("h", "c") for port in layer.final(state)]
    used = [value for value in (*layer.y, *finals) if edit.used(value)]
    if layer.lengths is None or weights is None or any(map(edit.is_output, used)):
        return False
    forward = {"forward": [True], "reverse": [False], "bidirectional": [True, False]}[layer.direction]
    whole = _of_full_length(edit, layer)
    for index, value in enumerate((*layer.y, *finals)):
        if value not in used:
            continue
        readers = edit.readers(value)
        steps = value in layer.y
        # An operator's value has all directions, along its axis 1 or 0; a Scan has a value for each.
        own = forward[index % layer.directions :][:1] if layer.scan else forward
        ahead = np.array(own).reshape((1, -1, 1, 1) if steps else (-1, 1, 1))
        kept = whole
        if steps:
            kept = edit.node("Or", kept, edit.node("And", _within_lengths(edit, layer, value), ahead))
        if still:
            kept = edit.node("Or", kept, ~ahead)
        if number is None:
            kept = edit.node("Or", kept, edit.node("Not", kept))
        other = edit.node("Where", kept, value, np.array(number or 0, weights.dtype))
        redirect(readers, value, other)
    return True


def _of_full_length(edit: Edit, layer: RecurrentLayer) -> str:
    """Add which sequences have no padding, (batch, 1)."""
    assert layer.lengths is not None  # noqa: S101 - the caller's condition
    if layer.scan:
        return edit.node("Gather", layer.lengths.value, np.array(-1), axis=0)
    shorter = edit.node("Less", layer.lengths.value, _steps(edit, layer.x))
    return edit.node("Unsqueeze", edit.node("Not", shorter), np.array([1]))


def _within_lengths(edit: Edit, layer: RecurrentLayer, y: str) -> str:
    """Add which steps are within the lengths, (time, 1, batch, 1)."""
    assert layer.lengths is not None  # noqa: S101 - the caller's condition
    if layer.scan:
        return edit.node("Unsqueeze", layer.lengths.value, np.array([1]))
    time = edit.node("Range", np.array(0, np.int32), _steps(edit, y), np.array(1, np.int32))
    column = edit.node("Reshape", time, np.array([-1, 1, 1, 1]))
    return edit.node("Less", column, edit.node("Unsqueeze", layer.lengths.value, np.array([1])))


def _steps(edit: Edit, value: str) -> str:
    """Add the size of a value's first axis, int32 like lengths."""
    return edit.node(
        "Cast", edit.node("Gather", edit.node("Shape", value), np.array(0), axis=0), to=onnx.TensorProto.INT32
    )


def same_outputs(model: Model, copies: Sequence[Model], cases: Sequence[Expected]) -> bool:
    """Whether copies of a file give the same bits as it does in every case that is run as a whole; False for none.

    Each copy's `WITNESS`, where there is one, must differ in some case.
    """
    calls = [call for case in cases if case.kind in WHOLE_RUNS for call in case.calls]
    unseen = set(range(len(copies)))
    try:
        for call in calls:
            right = model.run(call.feeds)
            witness = right.pop(WITNESS, None)
            for index, copy in enumerate(copies):
                other = copy.run(call.feeds)
                if witness is None or not np.array_equal(witness, other[WITNESS], equal_nan=True):
                    unseen.discard(index)
                if not all(np.array_equal(array, other[name], equal_nan=True) for name, array in right.items()):
                    return False
    except LSTMOnnxError:
        return False
    return bool(calls) and not unseen


_ZERO_AT_ZERO = frozenset({"Identity", "Cast", "Dropout", "Relu", "Tanh"})
"""Operators of one input, element by element, that are 0 at 0."""


def stays_at_zero(edit: Edit, layer: RecurrentLayer) -> bool:
    """Whether a layer's states and outputs are zero as long as it runs over nothing but padding, from its start.

    Its input is zero past each sequence's end, it has no bias, and it starts from zeros: then the candidate is
    tanh(0) = 0, and whatever the gates are, c and h stay 0.
    """
    if layer.lengths is None or not _zero_activations(layer):
        return False
    starts = [port.value for state in ("h", "c") for port in layer.initial(state)]
    if not all(map(edit.is_zero, (*starts, *(port.value for port in (*layer.B, *layer.Rb))))):
        return False
    return _zero_past_end(edit, layer.x, 0, 1, layer)


def _zero_activations(layer: RecurrentLayer) -> bool:
    names = layer.attributes.get("activations")
    if layer.scan or names is None:
        return True
    return layer.op_type == "RNN" and {bytes(name).lower() for name in names} <= {b"tanh", b"relu"}


def _zero_past_end(edit: Edit, value: str, time: int, batch: int, layer: RecurrentLayer) -> bool:
    """Whether a value with these axes of time and batch is zero past the ends of the sequences of `layer`."""
    if any(value in below.y and _same_lengths(edit, below, layer) for below in edit.layers):
        return (time, batch) == (0, 2)
    node = edit.maker(value)
    if node is None or not node.input:
        return False
    source, op = str(node.input[0]), node.op_type
    attributes = attributes_of(node)
    if op in _ZERO_AT_ZERO:
        return _zero_past_end(edit, source, time, batch, layer)
    if op == "Transpose" and "perm" in attributes:
        perm = [int(axis) for axis in attributes["perm"]]
        return _zero_past_end(edit, source, perm[time], perm[batch], layer)
    if op == "Squeeze" and len(node.input) == 2:
        return _zero_before_squeeze(edit, node, time, batch, layer)
    if op == "Reshape":
        # Sizes of 0 are copied: up to the later of the two axes, it changes nothing.
        shape = edit.constant(node.input[1])
        copied = shape is not None and not attributes.get("allowzero") and not shape[: max(time, batch) + 1].any()
        return copied and _zero_past_end(edit, source, time, batch, layer)
    features = edit.shapes.get(source)
    if features is None or len(features) - 1 in (time, batch):
        return False
    if op == "MatMul":  # along the features
        weights = edit.constant(node.input[1])
        right = weights is not None and weights.ndim == 2 and bool(np.isfinite(weights).all())
        return right and _zero_past_end(edit, source, time, batch, layer)
    along = int(attributes.get("axis", 0)) % len(features)
    if op not in ("Concat", "Split") or along in (time, batch):
        return False
    parts = node.input if op == "Concat" else [source]
    return all(_zero_past_end(edit, str(part), time, batch, layer) for part in parts)


def _zero_before_squeeze(edit: Edit, node: NodeProto, time: int, batch: int, layer: RecurrentLayer) -> bool:
    removed, source = edit.constant(node.input[1]), str(node.input[0])
    if removed is None or not edit.shapes.get(source):
        return False
    for axis in sorted(int(one) % len(edit.shapes[source]) for one in removed.reshape(-1)):
        time, batch = time + (axis <= time), batch + (axis <= batch)
    return _zero_past_end(edit, source, time, batch, layer)


def _same_lengths(edit: Edit, one: RecurrentLayer, other: RecurrentLayer) -> bool:
    """Whether two layers have the lengths of the same value, each as an operator's input or as the mask of a Scan."""
    sources = [_lengths_of(edit, layer) for layer in (one, other)]
    return sources[0] == sources[1] != ""


def _lengths_of(edit: Edit, layer: RecurrentLayer) -> str:
    if layer.lengths is None:
        return ""
    value = layer.lengths.value
    if not layer.scan:
        return root(edit, value)
    less = edit.maker(value)
    lengths = root(edit, less.input[1]) if less is not None and less.op_type == "Less" else ""
    return lengths if lengths and is_within(edit, value, lengths) else ""

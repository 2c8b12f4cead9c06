"""LO301-304: state inputs, the outputs that feed them, and the initial states of an LSTM."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from onnx import TensorProto, helper

from ...metadata import Metadata
from ...onnxgraph import dtype_name, node_label, shape_of, shown
from ...onnxgraph.recurrent import (
    INITIAL_C,
    INITIAL_H,
    QUANTIZED_LSTM,
    final_states,
    initial_states,
    input_of,
    is_operator,
)
from ...runtime.interface import LSTM_STATES
from ..context import CheckContext
from ..finding import Finding
from ..graph import Graph, end_of
from ..rule import applies, rule

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_LSTMS = ("LSTM", QUANTIZED_LSTM)

STATES_PAIRED = rule(
    "LO301",
    "states-paired",
    "error",
    summary="a state and the output that feeds it do not match",
    why="A stream passes the final states of each run to the next. If names, dtypes or shapes of a pair differ, or "
    "if h and c or two layers are swapped, it fails or, worse, continues with wrong values.",
    fix="export the model again",
)
LOOSE_STATES = rule(
    "LO302",
    "loose-states",
    "warning",
    summary="state inputs that the metadata does not pair with outputs",
    why="Nothing in ONNX says which output feeds which state, so the file cannot be streamed as it is.",
    fix="name the output that feeds each state, as the file calls them: lstm_onnx.load(file, states={STATE: "
    "OUTPUT}), or as JSON in the file's metadata, lstm_onnx.states",
)
LOST_STATE = rule(
    "LO303",
    "lost-state",
    "warning",
    summary="an LSTM's c0 is an input, but its final cell state is not an output",
    why="The next chunk of a stream cannot continue where this one ended: no other output has the cell state.",
    fix="export with (hn, cn) among the outputs",
)
H0_WITHOUT_C0 = rule(
    "LO304",
    "h0-without-c0",
    "warning",
    summary="an LSTM has only one of its two initial states",
    why="The other one is zero (as measured with ONNX Runtime), which nn.LSTM cannot express: most often a name was "
    "lost.",
    fix="pass both states, or none",
)


class _End(NamedTuple):
    """A final state of a layer: h or c, the layer's name, and the input from which it starts; "" if there is none."""

    kind: str
    layer: str
    start: str


@applies(STATES_PAIRED)
def states_paired(context: CheckContext) -> Iterator[Finding]:
    """Every state input is fed by an output of its dtype and shape."""
    graph, metadata = context.graph, context.metadata
    if metadata is None:
        yield STATES_PAIRED.skipped("the metadata that pairs them cannot be read")
        return
    if metadata.spec is not None and dict(metadata.states) != LSTM_STATES:
        pairs = ", ".join(f"{source} <- {target}" for source, target in metadata.states.items()) or "nothing"
        yield STATES_PAIRED.violated("", f"the metadata says {pairs}; a bare LSTM has h0 <- hn, c0 <- cn")
        return
    unpaired = [name for name in (*metadata.initial, *metadata.origins) if name not in metadata.states]
    if unpaired:
        message = f"the metadata describes the state {unpaired[0]}, but pairs it with no output"
        yield STATES_PAIRED.violated(unpaired[0], message)
    elif metadata.states:
        problems = list(_pair_problems(graph, metadata.states)) or list(_swapped(graph, metadata.states))
        problems += _initial_problems(graph, metadata)
        pairs = ", ".join(_pair_text(metadata, source, target) for source, target in metadata.states.items())
        yield from problems or [STATES_PAIRED.passed(f"{pairs}, with equal dtypes and shapes")]
    elif any(scope.origins(value)[0] for scope, node in graph.recurrent for value in initial_states(node)):
        yield STATES_PAIRED.passed("the metadata pairs no states")
    else:
        starts = {(scope, value) for scope, node in graph.recurrent for value in initial_states(node) if value}
        inputs = sorted(set().union(*(scope.data_sources(value) for scope, value in starts)))
        computed = f"initial states are computed from {', '.join(inputs)}, and the metadata pairs none"
        yield STATES_PAIRED.passed(computed if inputs else "no recurrent node starts from an input")


def _pair_text(metadata: Metadata, source: str, target: str) -> str:
    """As in ``lstm.h0 <- lstm.hn (h of lstm)``."""
    origin = metadata.origins.get(source)
    module = f" ({'c' if origin.index else 'h'} of {origin.module or 'the module'})" if origin else ""
    return f"{source} <- {target}{module}"


def _pair_problems(graph: Graph, states: Mapping[str, str]) -> Iterator[Finding]:
    fed: dict[str, str] = {}
    for source, target in states.items():
        pair = f"{source} <- {target}"
        for kind, name, known in (("input", source, graph.inputs), ("output", target, graph.outputs)):
            if name not in known:
                message = f"the {kind} {name} is missing; the {kind}s are {', '.join(known)}"
                yield STATES_PAIRED.violated(pair, message)
        if target in fed:
            yield STATES_PAIRED.violated(pair, f"{target} already feeds {fed[target]}")
        fed.setdefault(target, source)
        if source in graph.inputs and target in graph.outputs:
            kinds = graph.inputs[source], graph.outputs[target]
            types = [dtype_name(kind.tensor_type.elem_type) for kind in kinds]
            shapes = [shape_of(kind) for kind in kinds]
            if types[0] != types[1]:
                yield STATES_PAIRED.violated(pair, f"{source} is {types[0]} and {target} is {types[1]}")
            if shapes[0] != shapes[1]:
                yield STATES_PAIRED.violated(pair, f"{source} is {shown(shapes[0])} and {target} is {shown(shapes[1])}")


def _swapped(graph: Graph, states: Mapping[str, str]) -> Iterator[Finding]:
    """An h that is fed by a c, a c by an h, which have the same shape; or states of one layer by those of another.

    An input that holds several states, such as h and c in one tensor, counts as neither.
    """
    starts: dict[str, list[_End]] = {}
    ends: dict[str, _End] = {}
    for scope, node in graph.recurrent:
        kinds = "hc" if node.op_type in _LSTMS else "h" if is_operator(node) else ""
        for kind, value, output in zip(kinds, initial_states(node), final_states(node), strict=False):
            sources = scope.origins(value)[0]
            ends[output] = _End(kind, node_label(node), sources[0] if len(sources) == 1 else "")
            for source in sources:
                starts.setdefault(source, []).append(ends[output])
    fed = {source: ends.get(end_of(graph.scopes[0], target)) for source, target in states.items()}
    for source, target in states.items():
        end, own = fed[source], starts.get(source, [])
        message = ""
        if end is None or len({start.kind for start in own}) != 1:
            continue
        if own[0].kind != end.kind:
            message = f"the state {source} is {own[0].kind}, but {target} is {end.kind}"
        elif len(own) == 1 and own[0] is not end and _returns(source, fed):
            message = f"the state {source} is of {own[0].layer}, but {target} of {end.layer}"
        if message:
            yield STATES_PAIRED.violated(f"{source} <- {target}", message)


def _returns(source: str, fed: Mapping[str, _End | None]) -> bool:
    """Whether following the pairs backwards from a state, layer by layer, leads back to it."""
    end = fed[source]
    for _ in fed:
        if end is None or end.start == source:
            break
        end = fed.get(end.start)
    return end is not None and end.start == source


def _initial_problems(graph: Graph, metadata: Metadata) -> Iterator[Finding]:
    """Stored initial states must fit; one entry along a dynamic axis is used for every size."""
    for source, array in metadata.initial.items():
        kind = graph.inputs.get(source)
        if kind is None:
            continue  # reported for the pair
        shape = shape_of(kind) or ()
        fits = len(shape) == array.ndim and all(
            size == dim if isinstance(dim, int) else size > 0 for size, dim in zip(array.shape, shape, strict=True)
        )
        elem_type = kind.tensor_type.elem_type
        # The graph decides: the file may have been converted to another float since its metadata was written.
        floats = array.dtype.kind == "f" and elem_type in _FLOATS
        if not fits or not (floats or helper.np_dtype_to_tensor_dtype(array.dtype) == elem_type):
            message = f"{source} {shown(shape)} starts from {array.dtype.name} {array.shape}, which does not fit"
            yield STATES_PAIRED.violated(source, message)


@applies(LOOSE_STATES, LOST_STATE)
def loose_states(context: CheckContext) -> Iterator[Finding]:
    """States that come from inputs, in a file of another tool without metadata on them."""
    if context.metadata is None or context.ours or context.metadata.states:
        return
    pairs: dict[str, str] = {}
    lost: list[Finding] = []
    outputs: dict[str, list[str]] = {}
    for name in context.graph.outputs:
        outputs.setdefault(end_of(context.graph.scopes[0], name), []).append(name)
    for scope, node in context.operators:
        for index, final in ((INITIAL_H, 1), (INITIAL_C, 2)):
            sources = scope.origins(input_of(node, index))[0]
            ends = outputs.get(node.output[final], []) if len(node.output) > final else []
            for source in sources:
                fitting = (name for name in ends if _may_feed(context.graph, name, source))
                pairs.setdefault(source, next(fitting, ""))
            is_cell = index == INITIAL_C and node.op_type in _LSTMS
            if sources and is_cell and not any(map(context.is_used, node.output[2:])):
                message = f"it starts from the input {sources[0]}, but nothing reads its final cell state"
                lost.append(LOST_STATE.violated(node, message))
    if pairs and not lost:
        message = f"{', '.join(pairs)} {'is a state' if len(pairs) == 1 else 'are states'} that nothing pairs"
        yield LOOSE_STATES.violated(next(iter(pairs)), message, _pairing_fix(pairs))
    yield from lost


def _may_feed(graph: Graph, output: str, source: str) -> bool:
    """Whether an output, which may be squeezed or have other features, too, may have the shape of a state input."""
    given, wanted = shape_of(graph.outputs[output]), shape_of(graph.inputs[source])
    if given is None or wanted is None:
        return True
    sizes = zip(given, wanted, strict=False)
    return len(given) == len(wanted) and all(a == b or isinstance(a, str) or isinstance(b, str) for a, b in sizes)


def _pairing_fix(pairs: Mapping[str, str]) -> str:
    """The pairs in the file's own names, if the graph shows them all; "" for the rule's own fix."""
    if not all(pairs.values()) or len(set(pairs.values())) < len(pairs):
        return ""
    text = json.dumps(pairs, ensure_ascii=False)
    return (
        f"name the pairs: lstm_onnx.load(file, states={text}), or the same as JSON in the file's metadata, "
        "lstm_onnx.states"
    )


@applies(H0_WITHOUT_C0)
def one_state(context: CheckContext) -> Iterator[Finding]:
    """An LSTM that starts only from h0, or only from c0."""
    for _, node in context.onnx_operators:
        if node.op_type == "LSTM":
            h, c = (bool(input_of(node, index)) for index in (INITIAL_H, INITIAL_C))
            if h != c:
                present, absent = ("initial_h", "initial_c") if h else ("initial_c", "initial_h")
                message = f"it takes {present}, but {absent} is left out and is zeros"
                yield H0_WITHOUT_C0.violated(node, message)

"""LO309: chunks of a sequence give the same as the whole."""

from __future__ import annotations

from collections.abc import Iterator

from ...metadata import Metadata
from ...onnxgraph.recurrent import SEQUENCE_LENS, final_states, initial_states, input_of
from ...streaming import follow_time
from ..context import CheckContext
from ..finding import Finding
from ..graph import Graph
from ..rule import applies, rule

NOT_STREAMABLE = rule(
    "LO309",
    "not-streamable",
    "warning",
    summary="the file has states, but chunks of a sequence give other values than the whole",
    why="A stream carries the states of the recurrent nodes. If steps depend on each other in another way (a "
    "convolution, a mean or a softmax over time, a reverse direction, positions, a recurrent node whose states are "
    "not inputs), the first steps of each chunk lack what came before. The runtime opens no stream of such a file.",
    fix="run whole sequences, or export a module in which steps depend on each other only through its states",
)


@applies(NOT_STREAMABLE)
def not_streamable(context: CheckContext) -> Iterator[Finding]:
    """Steps that depend on each other outside of the states, unless the metadata says so."""
    metadata = context.metadata
    states = dict(metadata.states) if metadata is not None and metadata.states else _likely_pairs(context.graph)
    if not states:
        return
    reason = _metadata_reason(metadata)
    streaming = metadata.streaming if metadata is not None else None
    if streaming is not None and not reason:
        steps = "1 step" if streaming.delay == 1 else f"{streaming.delay} steps"
        yield NOT_STREAMABLE.passed(
            f"it takes chunks of {streaming.lengths} of {', '.join(streaming.time)}: delay {steps}, "
            f"hop {streaming.hop}, with the caches {', '.join(streaming.caches) or '(none)'}"
        )
        return
    if reason:
        yield NOT_STREAMABLE.passed(f"the metadata says that it cannot be streamed, and no stream is opened: {reason}")
        return
    lengths = {spec.name for spec in metadata.inputs if isinstance(spec.high, str)} if metadata is not None else set()
    if metadata is not None and metadata.spec is not None:
        lengths.add("lengths")
    for scope, node in context.operators:
        lengths |= set(scope.origins(input_of(node, SEQUENCE_LENS))[0])
    found = follow_time(context.shaped, states, lengths)
    if found.meeting is not None:
        message = f"{found.meeting}; its states do not carry that from chunk to chunk"
        yield NOT_STREAMABLE.violated(found.meeting.node, message)
    elif not found.names:
        yield NOT_STREAMABLE.passed("each call is one step of a stream: no dynamic axis of its inputs is time")
    elif found.by_hand is None:
        yield NOT_STREAMABLE.passed(
            f"it streams along {', '.join(sorted(found.names))}: steps depend on each other only through its states"
        )


def _metadata_reason(metadata: Metadata | None) -> str:
    """Why the file's metadata refuses streams; "" if it does not."""
    if metadata is None:
        return ""
    if metadata.spec is not None and metadata.spec.bidirectional:
        return "its reverse direction starts at the sequence's end"
    return metadata.not_streamable or ""


def _likely_pairs(graph: Graph) -> dict[str, str]:
    """State inputs from which recurrent nodes start, with the outputs of the same nodes' final states."""
    pairs: dict[str, str] = {}
    for scope, node in graph.recurrent:
        starts, ends = initial_states(node), final_states(node)
        of_node: dict[str, str] = {}
        for index, start in enumerate(starts):
            inputs = scope.origins(start)[0] if start else []
            end = ends[index] if index < len(ends) else ""
            if len(inputs) == 1 and end in graph.outputs and inputs[0] in graph.inputs:
                of_node[inputs[0]] = end
        # If one is missing, lost-state reports that no stream can continue.
        pairs |= of_node if len(of_node) == sum(map(bool, starts)) else {}
    return pairs

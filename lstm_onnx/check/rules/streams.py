"""The rule on streams: what a file's states do not carry, chunks of a sequence get wrong."""

from __future__ import annotations

from collections.abc import Iterator

from ...metadata import Metadata
from ...streaming import follow_time
from ..context import LENGTHS, Subject, input_of
from ..graph import Graph, initial_states
from ..report import Finding, failed, passed

_RULE = "not-streamable"


def not_streamable(subject: Subject) -> Iterator[Finding]:
    """Steps that meet outside of the states, where the metadata does not say so itself."""
    metadata = subject.metadata
    states = dict(metadata.states) if metadata is not None and metadata.states else _likely_pairs(subject.graph)
    if not states:
        return
    said = _said(metadata)
    if said:
        yield passed(_RULE, f"the metadata says that it cannot be streamed, and no stream is opened: {said}")
        return
    lengths = {spec.name for spec in metadata.inputs if isinstance(spec.high, str)} if metadata is not None else set()
    if metadata is not None and metadata.spec is not None:
        lengths.add("lengths")
    for scope, node in subject.recurrent:
        lengths |= set(scope.origins(input_of(node, LENGTHS))[0])
    found = follow_time(subject.shaped, states, lengths)
    if found.meeting is not None:
        yield failed(_RULE, found.meeting.node, f"{found.meeting}; its states do not carry that from chunk to chunk")
    elif not found.names:
        yield passed(_RULE, "each call is one step of a stream: no open axis of its inputs is time")
    elif found.by_hand is None:
        yield passed(
            _RULE,
            f"it streams along {', '.join(sorted(found.names))}: steps depend on each other through its states alone",
        )


def _said(metadata: Metadata | None) -> str:
    """Why the file's own metadata refuses streams; "" where it does not."""
    if metadata is None:
        return ""
    if metadata.spec is not None and metadata.spec.bidirectional:
        return "its reverse direction starts at the sequence's end"
    return metadata.not_streamable or ""


def _likely_pairs(graph: Graph) -> dict[str, str]:
    """State inputs that recurrent nodes start from, and the outputs that hold the ends of the same nodes."""
    pairs: dict[str, str] = {}
    for scope, node in graph.recurrent:
        ends = list(node.output) if node.op_type == "Scan" else list(node.output[1:3])
        found: dict[str, str] = {}
        starts = initial_states(node)
        for index, start in enumerate(starts):
            inputs = scope.origins(start)[0] if start else []
            end = ends[index] if index < len(ends) else ""
            if len(inputs) == 1 and end in graph.outputs and inputs[0] in graph.inputs:
                found[inputs[0]] = end
        # Where an end is missing, another rule tells that no stream can go on.
        pairs |= found if len(found) == sum(map(bool, starts)) else {}
    return pairs

"""A file whose steps meet outside of its recurrent states, made to stream by caches of earlier steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from ...errors import ExportError
from ...metadata import Metadata
from ...streaming.convert import delay_reason, streaming_metadata
from ...streaming.proof import prove_stream
from ...streaming.rewrite import NodeRefusedError, OwnStateError, RefusedError, Rewritten, rewrite
from ..lowering.rename import TracedGraph
from ..write import float64_notes
from .shape_trial import written_for_trial
from .stream_trial import time_places


@dataclass(frozen=True)
class StreamingFile:
    """A model without initializers and metadata, those two, and notes."""

    model: ModelProto
    initializers: dict[str, np.ndarray]
    metadata: Metadata
    notes: tuple[str, ...] = ()


def with_caches(
    graph: TracedGraph, model: ModelProto, metadata: Metadata, *, max_delay: int, chunk: int | None, check: bool
) -> StreamingFile:
    """A file that streams, if that is possible; else the same with the reason in its metadata.

    Args:
        graph: the lowered graph, with the initializers.
        model: the model, which takes whole sequences.
        metadata: the file's; `not_streamable` says why its own states are not enough.
        max_delay: the most steps of look-ahead to accept.
        chunk: every chunk has a multiple of so many steps; None for chunks of any length.
        check: whether the file is compared with the whole one before it is kept.

    Raises:
        ExportError: it differs from the whole one.
    """
    whole = StreamingFile(model, graph.nodes.initializers, metadata)
    time = time_places(metadata, metadata.time_axes)
    if not time:
        return whole
    try:
        done = rewrite(model, graph.nodes.initializers, time, metadata.states, chunk)
    except OwnStateError:
        return whole  # the trial has said how its chunks differ
    except RefusedError as why:
        return replace(whole, metadata=replace(metadata, not_streamable=_reason(why, graph.lines)))
    if done.delay > max_delay:
        reason = f"{_delay(done, graph.lines)}; export it with max_delay={done.delay} to accept that"
        return replace(whole, metadata=replace(metadata, not_streamable=reason))
    found = streaming_metadata(metadata, done, time, chunk)
    assert found.streaming is not None  # noqa: S101 - just set
    if check and not float64_notes(graph.nodes.nodes, graph.nodes.initializers):
        _compare(whole, StreamingFile(done.model, done.initializers, found))
    note = (
        f"the file takes {done.time} in chunks of {found.streaming.lengths}: {', '.join(done.caches)} are states "
        f"too; delay {done.delay}, hop {done.hop}"
    )
    return StreamingFile(done.model, done.initializers, found, (note,))


def _reason(why: RefusedError, lines: Mapping[str, str]) -> str:
    """The node, the line of the module, and what could be written instead."""
    line = lines.get(why.node) if isinstance(why, NodeRefusedError) else None
    at = f", at {line}" if line else ""
    return f"{why}{at}{f'; what could stream: {why.instead}' if why.instead else ''}"


def _delay(done: Rewritten, lines: Mapping[str, str]) -> str:
    line = next((lines[node] for node in done.look_ahead if node in lines), None)
    return f"{delay_reason(done)}{f', at {line}' if line else ''}"


def _compare(whole: StreamingFile, streaming: StreamingFile) -> None:
    opened = []
    for file in (whole, streaming):
        complete = ModelProto()
        complete.CopyFrom(file.model)
        opened.append(written_for_trial(complete, file.initializers, file.metadata))
    proof = prove_stream(*opened)
    if proof.problem:
        raise ExportError(f"the file in chunks differs from the whole sequence: {proof.problem}; it was not written")

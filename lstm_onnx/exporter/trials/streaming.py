"""Adds caches of earlier steps to a file whose steps meet outside of its recurrent states, so that it streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnx import ModelProto

from ...streaming.convert import delay_reason, limit_of_time, streaming_metadata
from ...streaming.proof import StreamProof, prove_stream
from ...streaming.rewrite import NodeRefusedError, OwnStateError, RefusedError, Rewritten, rewrite
from ..lowering.rename import TracedGraph
from ..module_options import ModuleOptions
from ..result import BuiltModel
from ..write import float64_notes
from .shape_trial import written_for_trial
from .stream_trial import time_places


def with_caches(graph: TracedGraph, whole: BuiltModel, options: ModuleOptions) -> BuiltModel:
    """A model that streams, if that is possible; otherwise the given one, with the reason in its metadata.

    Args:
        graph: the lowered graph.
        whole: the model that takes whole sequences; `not_streamable` says why its own states are not enough.
        options: the largest look-ahead, the length of chunks, and whether the model is compared with the whole one.
    """
    metadata = whole.metadata
    time = time_places(metadata, metadata.time_axes)
    if not time:
        return whole
    try:
        limit = limit_of_time(metadata, whole.model.graph, time)
        done = rewrite(whole.model, whole.initializers, time, metadata.states, options.chunk, limit)
    except OwnStateError:
        return whole  # the trial has said how its chunks differ
    except RefusedError as why:
        return replace(whole, metadata=replace(metadata, not_streamable=_reason(why, graph.lines)))
    if not done.caches and not metadata.states:
        reason = (
            f"it has no states: the steps along {done.time} are computed one by one, so run them in calls of any size"
        )
        return replace(whole, metadata=replace(metadata, not_streamable=reason))
    streaming = done.streaming
    if streaming.delay > options.max_delay:
        accepted = f"max_delay={streaming.delay} (--max-delay {streaming.delay})"
        reason = f"{_delay(done, graph.lines)}; export it with {accepted} to accept that"
        return replace(whole, metadata=replace(metadata, not_streamable=reason))
    note = (
        f"the file takes {done.time} in chunks of {streaming.lengths}: {', '.join(done.caches)} are states "
        f"too; delay {streaming.delay}, hop {streaming.hop}"
    )
    found = BuiltModel(done.model, done.initializers, streaming_metadata(metadata, done), whole.notes).noted(note)
    if options.check and not float64_notes(graph.nodes.nodes, graph.nodes.initializers):
        proof = _compared(whole, found)
        if proof.problem:  # the module changes its states, such as by a tanh after each call
            reason = f"the file in chunks differs from the whole sequence: {proof.problem}"
            return replace(whole, metadata=replace(metadata, not_streamable=reason))
        if proof.not_run:
            return found.noted(f"chunks were not compared with whole sequences: {proof.not_run}")
    return found


def _reason(why: RefusedError, lines: Mapping[str, str]) -> str:
    """The node, the line of the module, and what can be written instead."""
    line = lines.get(why.node) if isinstance(why, NodeRefusedError) else None
    at = f", at {line}" if line else ""
    return f"{why}{at}{f'; what can be streamed: {why.instead}' if why.instead else ''}"


def _delay(done: Rewritten, lines: Mapping[str, str]) -> str:
    line = next((lines[node] for node in done.look_ahead if node in lines), None)
    return f"{delay_reason(done)}{f', at {line}' if line else ''}"


def _compared(whole: BuiltModel, streaming: BuiltModel) -> StreamProof:
    opened = []
    for built in (whole, streaming):
        complete = ModelProto()
        complete.CopyFrom(built.model)
        opened.append(written_for_trial(replace(built, model=complete)))
    return prove_stream(*opened)

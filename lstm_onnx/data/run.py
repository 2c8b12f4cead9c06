"""Runs a model on the records of a data file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from functools import cache
from itertools import groupby
from typing import NamedTuple

import numpy as np

from ..errors import InputError, RunError
from ..runtime import Model
from ..runtime.chunks import output_time_axes, run_chunks, time_axis
from ..runtime.tensor_info import require_known_names, validated_feeds, validated_lengths
from .cast_inputs import (
    add_batch_axis,
    arrange_table,
    cast_inputs,
    fill_in_lengths,
    is_single_sequence,
    remove_batch_axis,
)
from .formats import Record, Records, place_of

_LARGE_BATCH = 64
"""The number of rows from which a batch is run row by row through `Model.map`, which uses all cores."""


class _Placed(NamedTuple):
    """Inputs, and their place in the file, "" if the file has one record."""

    place: str
    feeds: Record


def run_records(
    model: Model,
    records: Records,
    *,
    chunk: int | None = None,
    workers: int | None = None,
    on_note: Callable[[str], None] = lambda _: None,
) -> Generator[Record, None, None]:
    """Run a model on each record of a data file; single sequences are batched by `Model.map`.

    Args:
        model: any model.
        records: as `lstm_onnx.data.read` returns them; arrays have the names of the model's inputs.
        chunk: time steps per call, with the states carried from one call to the next; None runs whole sequences.
        workers: the number of threads, as in `Model.map`.
        on_note: called once with each note, such as that a file's float64 is cast to float32.

    Yields:
        The outputs of each record, in order.

    Raises:
        InputError: a record does not fit the model; the message starts with its place in the file.
        RunError: ONNX Runtime failed.
        FileError: a later record cannot be read.
    """
    tell_once = cache(on_note)

    def cast(numbered: tuple[int, Record]) -> _Placed:
        index, record = numbered
        place = place_of(record, index) if records.many else ""
        with _at(place):
            if records.is_table:
                record = arrange_table(model.inputs, record)
            feeds, notes = cast_inputs(model.inputs, record, typed=records.typed)
        for note in sorted(notes):
            tell_once(note)
        return _Placed(place, feeds)

    def can_be_mapped(item: _Placed) -> bool:
        named = all("batch" in model.inputs[name].shape for name in item.feeds if name in model.inputs)
        return records.many and not chunk and named and is_single_sequence(model.inputs, item.feeds)

    for mapped, items in groupby(map(cast, enumerate(records.rows)), key=can_be_mapped):
        if mapped:
            yield from _map(model, items, workers)
            continue
        for item in items:
            with _at(item.place):
                outputs = _run_alone(model, item.feeds, chunk, workers)
            for name in _of_the_last_chunk(model, outputs) if chunk else ():
                tell_once(f"{name} has no time axis, so its value is that of the last chunk")
            yield outputs


@contextlib.contextmanager
def _at(place: str) -> Iterator[None]:
    """A context that puts a record's place before the message of an error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}" if place else str(error), name=error.name) from error


def _map(model: Model, items: Iterator[_Placed], workers: int | None) -> Iterator[Record]:
    """Run records that are single sequences through `Model.map`."""
    places: list[str] = []

    def feeds() -> Iterator[Record]:
        for item in items:
            places.append(item.place)
            yield item.feeds

    try:
        yield from model.map(feeds(), workers=workers)
    except (InputError, RunError) as error:
        # The index in map's error counts from the first sequence of this call.
        if not isinstance(error.index, int) or error.__cause__ is None:
            raise
        raise type(error)(f"{places[error.index]}: {error.__cause__}", name=error.name, index=error.index) from error


def _run_alone(model: Model, feeds: Record, chunk: int | None, workers: int | None) -> Record:
    """Run one record; a single sequence runs as a batch of one, and its outputs have no batch axis."""
    single = model.spec is None and is_single_sequence(model.inputs, feeds)
    if single:
        feeds = fill_in_lengths(model.inputs, model.counts, add_batch_axis(model.inputs, feeds))
    outputs = run_chunks(model, feeds, chunk) if chunk else _run_record(model, feeds, workers)
    return remove_batch_axis(model.outputs, outputs) if single else outputs


def _of_the_last_chunk(model: Model, outputs: Record) -> list[str]:
    """The outputs that each chunk overwrites, in a file that does not say which outputs belong to a chunk."""
    if model.spec is not None or model.metadata.not_streamable is not None:
        return []
    joined = output_time_axes(model, time_axis(model))
    return [name for name in outputs if name not in joined and name not in model.states.values()]


def _run_record(model: Model, feeds: Record, workers: int | None) -> Record:
    """Run one record without chunks; for a bare LSTM it may lack the batch axis, or one of the states."""
    spec = model.spec
    if spec is None or "input" not in feeds:
        return model.run(feeds)
    if _is_large_batch(model, feeds):
        return _run_large_batch(model, feeds, workers)
    require_known_names(model.inputs, feeds)
    states = None
    if "h0" in feeds or "c0" in feeds:
        present = feeds["h0"] if "h0" in feeds else feeds["c0"]
        axes = present.shape[:-1]  # layers and batch, or only layers for a single sequence
        h0 = feeds.get("h0", np.zeros((*axes, spec.state_size), present.dtype))
        c0 = feeds.get("c0", np.zeros((*axes, spec.hidden_size), present.dtype))
        states = (h0, c0)
    output, (hn, cn) = model(feeds["input"], states, lengths=feeds.get("lengths"))
    return {"output": output, "hn": hn, "cn": cn}


def _is_large_batch(model: Model, feeds: Record) -> bool:
    spec = model.spec
    if spec is None or set(feeds) - {"input", "lengths"} or feeds["input"].ndim != 3:
        return False
    return feeds["input"].shape[0 if spec.batch_first else 1] >= _LARGE_BATCH and "lengths" in model.inputs


def _run_large_batch(model: Model, feeds: Record, workers: int | None) -> Record:
    """Run the rows of a batch through `Model.map`, and join the results to a batch."""
    spec = model.spec
    assert spec is not None  # noqa: S101 - see `_is_large_batch`
    x = validated_feeds({"input": model.inputs["input"]}, {"input": feeds["input"]})["input"]
    rows = x if spec.batch_first else np.swapaxes(x, 0, 1)
    batch, time = rows.shape[:2]
    lengths = validated_lengths(feeds.get("lengths"), batch, time)
    output = np.zeros((batch, time, spec.output_size), x.dtype)
    hn, cn = np.empty(spec.h_shape(batch), x.dtype), np.empty(spec.c_shape(batch), x.dtype)
    sequences = (row[:length] for row, length in zip(rows, lengths, strict=True))
    for index, (y, (h, c)) in enumerate(model.map(sequences, workers=workers)):
        output[index, : len(y)], hn[:, index], cn[:, index] = y, h, c
    return {"output": output if spec.batch_first else np.swapaxes(output, 0, 1), "hn": hn, "cn": cn}

"""Decides whether a model can be streamed, from its metadata or, if that does not say, by a test."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from ..checksum import is_intact
from ..errors import InputError
from ..metadata import METADATA_PREFIX
from ..symbolic_dims import names_in
from .batch_axes import batch_name
from .interface import LSTM_STATES
from .loaded_model import LoadedModel, fingerprint
from .stream_states import stream_start
from .tensor_info import ValueInfo

if TYPE_CHECKING:
    from .compared_chunks import Compared

_chunks: weakref.WeakKeyDictionary[LoadedModel, Compared | None] = weakref.WeakKeyDictionary()
_rows_mix: weakref.WeakKeyDictionary[LoadedModel, str] = weakref.WeakKeyDictionary()
_joined: weakref.WeakKeyDictionary[LoadedModel, ValueInfo | None] = weakref.WeakKeyDictionary()
"""The results of tests of models whose metadata does not say; "" for no problem."""
_proven: weakref.WeakKeyDictionary[LoadedModel, bool] = weakref.WeakKeyDictionary()


def is_proven(model: LoadedModel) -> bool:
    """Whether the metadata on chunks and rows is about this very graph: no other tool has changed it since.

    Such a tool may keep the metadata, as ONNX Runtime's quantize_dynamic does, after which all sequences of a batch,
    and all steps of a chunk, share one scale.
    """
    if model not in _proven:
        # Metadata without a checksum is a copy of ours in a file that another tool has written.
        written = any(key.startswith(METADATA_PREFIX) for key in model.session.get_modelmeta().custom_metadata_map)
        replaced = model.fingerprint not in (None, fingerprint(model.file))  # since it was loaded
        _proven[model] = not written or replaced or is_intact(model.file)
    return _proven[model]


def require_streamable(model: LoadedModel, *, check: bool = True) -> None:
    """Refuse a model whose chunks give numbers other than the whole sequence.

    Files from lstm-onnx say in their metadata whether they can be streamed.  For another file, for one that another
    tool has changed since, or with other pairs of states than the file's own, steps (or frames, of a file that takes
    no single steps) are run at once and in chunks when the first stream is opened.

    Args:
        model: the model.
        check: False skips that comparison, but not a refusal in the metadata.

    Raises:
        InputError: it has no states, or cannot be streamed, with the reason.
    """
    declared = dict(model.metadata.states) == model.states  # these pairs are those of the metadata
    if declared and model.metadata.not_streamable:
        raise InputError(
            f"cannot be streamed: {model.metadata.not_streamable}", hint="run whole sequences instead", path=model.path
        )
    if not model.states:
        raise InputError(
            "has no states to carry from chunk to chunk",
            hint='export it with states="explicit" (--states explicit), or name the states that the file does not: '
            "load(..., states=...) (--state INPUT=OUTPUT)",
            path=model.path,
        )
    if model.spec is not None and model.spec.bidirectional:
        raise InputError(
            "is bidirectional: its reverse direction starts at the sequence's end, which a stream has not reached",
            hint="run whole sequences instead",
            path=model.path,
        )
    is_lstm = model.spec is not None and model.states == LSTM_STATES
    known = declared and (is_lstm or (model.spec is None and model.metadata.not_streamable is not None))
    if not check or (known and is_proven(model)):
        return
    streaming = model.metadata.streaming_or_default
    if known and (streaming.last is not None or streaming.steps is not None):  # no random states would fit
        raise InputError(
            "cannot be trusted to stream: it was made for chunks, and another tool has changed it since",
            hint="change the file before it is made to stream (check=False opens a stream anyway)",
            path=model.path,
        )
    if model not in _chunks:
        from .compared_chunks import compared_chunks  # our own files never need it

        _chunks[model] = compared_chunks(model)
    compared = _chunks[model]
    if compared is not None and compared.why:
        raise InputError(
            f"cannot be streamed: {compared.why}",
            hint="run whole sequences instead (check=False opens a stream anyway)",
            path=model.path,
        )


def found_chunks(model: LoadedModel) -> Compared | None:
    """The result of `require_streamable` if it ran the model; None if it did not."""
    return _chunks.get(model)


def rows_mix(model: LoadedModel) -> str:
    """How an output of a sequence depends on the others in its batch; "" if none is known to.

    Files from lstm-onnx say so in their metadata.  Other files, and those that another tool has changed since, are run
    once on a batch and on one of its sequences alone.
    """
    known = "" if model.spec is not None else model.metadata.batch_mixes
    if known or (known is not None and is_proven(model)):
        return known
    if model not in _rows_mix:
        from .row_check import why_rows_mix

        _rows_mix[model] = why_rows_mix(model)
    return _rows_mix[model]


def require_separate_rows(model: LoadedModel, *, check: bool = True) -> None:
    """Refuse a model whose streams cannot be stepped as one batch (InputError); `check` as of `require_streamable`."""
    mixes = rows_mix(model) if check else model.metadata.batch_mixes
    if mixes:
        raise InputError(
            f"streams cannot be stepped together: {mixes}", hint="use model.stream() for each of them", path=model.path
        )


def require_concatenable(model: LoadedModel) -> None:
    """Refuse several sequences at once where an output has all steps of one sequence before those of the next.

    Then each chunk's output has the steps of all its sequences, and concatenated chunks are in another order.

    Raises:
        InputError: an axis of an output has the batch before time, such as ``decoded.view(-1, 5)`` of (batch, time, 5).
    """
    if model not in _joined:
        compared = found_chunks(model)
        outputs = [model.outputs[name] for name in stream_outputs(model)]
        unclear = [info for info in outputs if any(_may_be_joined(model, dim) for dim in info.shape)]
        joined = compared is not None and compared.joined
        if compared is None and unclear and model.spec is None and model.metadata.streaming is None:
            from .compared_chunks import joins_sequences

            joined = joins_sequences(model)
        _joined[model] = unclear[0] if joined and unclear else None
    info = _joined[model]
    if info is not None:
        raise InputError(
            f"several sequences cannot be run in chunks: its output {info} has all steps of one sequence before those "
            "of the next, so chunks cannot be concatenated",
            hint="use model.stream() for each of them, or export the module with batch and time as separate axes",
            path=model.path,
            name=info.name,
        )


def _may_be_joined(model: LoadedModel, dim: int | str | None) -> bool:
    """Whether an output's axis may hold the batch and something else, as far as its size tells."""
    known = {name for info in model.inputs.values() for name in info.shape if isinstance(name, str)}
    apart = known - {batch_name(model)}
    return dim is None or (isinstance(dim, str) and dim not in known and not names_in(dim) <= apart)


def stream_inputs(model: LoadedModel) -> dict[str, ValueInfo]:
    """The inputs that a caller of a stream passes: neither states nor the input that marks the end of a sequence."""
    last = model.metadata.streaming_or_default.last
    return {name: info for name, info in model.inputs.items() if name not in model.states and name != last}


def stream_outputs(model: LoadedModel) -> list[str]:
    """The outputs that a step of several streams returns: those that are not states, or all where every one is."""
    ends = model.states.values()
    return [name for name in model.outputs if name not in ends] or list(model.outputs)


def is_streamable(model: LoadedModel) -> bool:
    """Whether a stream of one sequence can be opened."""
    try:
        require_streamable(model)
        stream_start(model, 1)
    except InputError:
        return False
    return True

"""Whether a model may be streamed: what its file says of it or, where that says nothing, what trying it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from .model import Model

_OF_BARE_LSTM = {"h0": "hn", "c0": "cn"}


def require_streamable(model: Model, *, check: bool = True) -> None:
    """Refuse a model that gives other numbers in chunks than in one piece.

    Files from lstm-onnx say in their metadata whether they may be streamed.  Of another file, or with other
    pairs of states than the file's own, six steps are run whole and in chunks when its first stream is opened.

    Args:
        model: the model.
        check: False leaves that comparison out, not what the metadata says.

    Raises:
        InputError: it has no states, or cannot be streamed; the message says why.
    """
    if not model.states:
        raise InputError(f"{model.path}: has no states to carry from chunk to chunk; load(..., states=...) names them")
    if model.spec is not None and model.spec.bidirectional:
        raise InputError(
            f"{model.path}: is bidirectional: its reverse direction starts at the sequence's end, "
            "which a stream has not seen yet; run whole sequences instead"
        )
    own = dict(model.metadata.states) == model.states
    if own and model.metadata.not_streamable:
        raise InputError(
            f"{model.path}: cannot be streamed: {model.metadata.not_streamable}; run whole sequences instead"
        )
    bare = model.spec is not None and model.states == _OF_BARE_LSTM
    said = own and (bare or (model.spec is None and model.metadata.not_streamable is not None))
    if said or not check:
        return
    if model.chunks_differ is None:
        from .chunk_check import why_not_streamable  # which our own files never need

        model.chunks_differ = why_not_streamable(model)
    if model.chunks_differ:
        raise InputError(
            f"{model.path}: cannot be streamed: {model.chunks_differ}; run whole sequences instead "
            "(check=False opens a stream all the same)"
        )

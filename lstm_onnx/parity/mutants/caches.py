"""Mistakes in the states that hold earlier steps, in a file that takes chunks of any length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...onnxgraph.recurrent import RecurrentLayer
from .equivalence import ABSENT, APPLIED, Outcome
from .graph_edit import Edit


def stale(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """A cache that is never written."""
    found = next(_caches(edit), None)
    if found is None:
        return ABSENT
    name, after = found
    edit.replace_output(after, lambda _: edit.node("Identity", name))
    return APPLIED


def lost(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """A cache that is zero after each call."""
    for _, after in _caches(edit):
        edit.wrap_output(after, "Mul", np.zeros(1, np.float32))
        return APPLIED
    return ABSENT


def _caches(edit: Edit) -> Iterator[tuple[str, str]]:
    """The caches of which every later step depends: where steps are counted, some are read at the start alone."""
    metadata = edit.metadata
    streaming = metadata.streaming
    if streaming is None or streaming.steps is not None:
        return
    floats = {value.name for value in edit.graph.input if value.type.tensor_type.elem_type == 1}
    for name in streaming.caches:
        if name in floats and edit.maker(metadata.states[name]) is not None:
            yield name, metadata.states[name]

"""What makes a change none: proofs that a wrong graph computes what the right one does.

Each says why, as a reason for the report, or "" where there is no proof.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto

from .graph_edit import Edit, Port, Site

LARGEST = 2**24
"""Entries of a weight up to which it is looked at."""
_POINTWISE = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Relu", "Tanh", "Sigmoid"})


def same_blocks(edit: Edit, ports: Sequence[tuple[Port, int]], axis: int, first: int, second: int, gates: int) -> str:
    """Two gates' blocks are equal in every port; `ports` with the number of blocks that each has along `axis`."""
    for port, blocks in ports:
        array = edit.constant(port.value)
        if array is None or array.size > LARGEST:
            return ""
        parts = np.split(array, blocks, axis=axis)
        for start in range(0, blocks, gates):
            if not np.array_equal(parts[start + first], parts[start + second]):
                return ""
    return "the two gates have the same weights"


def single_step(edit: Edit, site: Site) -> str:
    """A layer that is only ever called on one step has no order in time."""
    return "it is called on one step at a time" if edit.size(site.x, 0) == 1 else ""


def unread_recurrence(edit: Edit, site: Site) -> str:
    """R acts on nothing: one step from h = 0, or R itself is zeros."""
    if all(edit.is_zero(port.value) for port in site.R):
        return "R is zeros"
    starts = site.initial("h")
    if single_step(edit, site) and all(edit.is_zero(port.value) for port in starts):
        return "it is called on one step at a time, from h = 0"
    return ""


def unheard_h(edit: Edit, site: Site) -> str:
    """The initial h of an LSTM is read by R alone."""
    starts = site.initial("h")
    if all(edit.is_zero(port.value) for port in starts):
        return "it starts from h = 0"
    return "R is zeros" if site.op_type != "GRU" and all(edit.is_zero(port.value) for port in site.R) else ""


def unread_padding(edit: Edit, site: Site) -> str:
    """Without its lengths a forward layer gives other numbers past a sequence's end alone, which nobody reads."""
    if site.directions != 1 or site.scan or _reverse(site):
        return ""
    finals = [port.value for state in ("h", "c") for port in site.final(state)]
    assert site.lengths is not None  # noqa: S101 - the caller's condition
    if any(not _unread_row(edit, value) for value in finals if edit.used(value)):
        return ""
    masked = all(_masked(edit, value, site.lengths.value) for value in site.y if value)
    return "what it gives past a sequence's end is read by nobody" if masked else ""


def _reverse(site: Site) -> bool:
    return any(item.name == "direction" and item.s == b"reverse" for item in site.node.attribute)


def _masked(edit: Edit, value: str, lengths: str) -> bool:
    """Whether all that is read of a padded sequence lies within the lengths."""
    if edit.is_output(value):
        return False
    for node in edit.readers(value):
        if node.op_type in _POINTWISE:
            right = all(_masked(edit, out, lengths) for out in node.output if out)
        elif node.op_type == "Where":
            right = value in node.input[1:] and _within(edit, node.input[0], lengths)
        else:
            right = any(site.node is node and site.x == value and site.lengths is not None for site in edit.sites)
            right = right and node.input[4] == lengths if len(node.input) > 4 else False
        if not right:
            return False
    return True


def _within(edit: Edit, condition: str, lengths: str) -> bool:
    """Whether a condition is ``step < length``."""
    node = edit.maker(condition)
    while node is not None and node.op_type in _POINTWISE:
        node = edit.maker(node.input[0])
    if node is None or node.op_type != "Less":
        return False
    return _root(edit, node.input[1]) == _root(edit, lengths) and _made_by_range(edit, node.input[0])


def _root(edit: Edit, value: str) -> str:
    node = edit.maker(value)
    return _root(edit, node.input[0]) if node is not None and node.op_type in _POINTWISE else value


def _made_by_range(edit: Edit, value: str) -> bool:
    node = edit.maker(_root(edit, value))
    start = None if node is None or node.op_type != "Range" else edit.constant(node.input[0])
    return start is not None and not np.any(start)


def _unread_row(edit: Edit, value: str) -> bool:
    """Whether a final state is only put beside others of which one is then chosen that is not it."""
    if edit.is_output(value):
        return False
    for node in edit.readers(value):
        rows = [edit.size(name, 0) for name in node.input]
        if node.op_type != "Concat" or any(size is None for size in rows) or edit.is_output(node.output[0]):
            return False
        place = list(node.input).index(value)
        begin = sum(size or 0 for size in rows[:place])
        own = range(begin, begin + (rows[place] or 0))
        total = sum(size or 0 for size in rows)
        if not all(_chooses_another(edit, reader, own, total) for reader in edit.readers(node.output[0])):
            return False
    return True


def _chooses_another(edit: Edit, reader: NodeProto, own: range, total: int) -> bool:
    axis = next((item.i for item in reader.attribute if item.name == "axis"), 0)
    index = edit.constant(reader.input[1]) if reader.op_type == "Gather" and axis == 0 else None
    return index is not None and not set((index.reshape(-1) % total).tolist()) & set(own)

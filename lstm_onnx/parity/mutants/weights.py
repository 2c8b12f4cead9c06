"""Mistakes in a layer's weights: order, orientation, what is left out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .equivalence import LARGEST, same_blocks, unread_recurrence
from .graph_edit import Edit, Port, Site
from .outcome import ABSENT, APPLIED, Outcome, equivalent

Apply = Callable[[Edit, Site], Outcome]
_TOO_LARGE = {"float16": 1.5}
"""By what weights are too large, which half precision must be able to tell; a tenth elsewhere."""


def swapped_gates(first: int, second: int, op_type: str) -> Apply:
    """Two gates exchanged in W, R and B."""

    def apply(edit: Edit, site: Site) -> Outcome:
        if site.op_type != op_type:
            return ABSENT
        order = list(range(site.gates))
        order[first], order[second] = order[second], order[first]
        axis = -1 if site.scan else 1
        ports = _by_gate(site)
        if reason := same_blocks(edit, ports, axis, first, second, site.gates):
            return equivalent(reason)
        for port, blocks in ports:
            rows = np.arange(site.hidden)
            index = np.concatenate([rows + block * site.hidden for block in _ordered(blocks, order)])
            edit.insert("Gather", port.value, index, ports=[port], axis=axis)
        return APPLIED

    return apply


def _by_gate(site: Site) -> list[tuple[Port, int]]:
    """Each port that reads weights by gate, and how many blocks it has: an operator's B has W's and then R's."""
    if site.scan:
        wide = site.gates * site.directions
        return [*((port, wide) for port in (*site.W, *site.B)), *((port, site.gates) for port in site.R)]
    return [*((port, site.gates) for port in (*site.W, *site.R)), *((port, site.gates * 2) for port in site.B)]


def _ordered(blocks: int, order: list[int]) -> list[int]:
    return [start + gate for start in range(0, blocks, len(order)) for gate in order]


def transposed_recurrent(edit: Edit, site: Site) -> Outcome:
    """R transposed, gate by gate; of a projected layer only where a gate's block is square."""
    port = site.R[0]
    array = edit.constant(port.value)
    if site.scan and (array is None or array.shape[0] != site.hidden):
        return ABSENT
    if site.hidden == 1:
        return equivalent("R is one number a gate")
    if reason := unread_recurrence(edit, site):
        return equivalent(reason)
    gates, hidden = site.gates, site.hidden
    split, flat, perm = (site.directions, gates, hidden, hidden), (site.directions, -1, hidden), [0, 1, 3, 2]
    if site.scan:
        split, flat, perm = (hidden, gates, hidden), (hidden, -1), [2, 1, 0]  # type: ignore[assignment]
    blocks = edit.node("Reshape", port.value, np.array(split, np.int64))
    turned = edit.node("Transpose", blocks, perm=perm)
    port.value = edit.node("Reshape", turned, np.array(flat, np.int64))
    return APPLIED


def bias(keep: tuple[float, float]) -> Apply:
    """The input's bias and the recurrent one, each times a number; a Scan keeps only their sum."""

    def apply(edit: Edit, site: Site) -> Outcome:
        if not site.B or (site.scan and keep[0] != keep[1]):
            return ABSENT
        port = site.B[0]
        array = edit.constant(port.value)
        if array is None:
            return ABSENT
        half = np.repeat(np.array(keep), site.gates * site.hidden)
        factor = np.full(array.shape[-1], keep[0]) if site.scan else half
        if np.array_equal(array * factor, array):
            return equivalent("that bias is zeros")
        edit.insert("Mul", port.value, factor.astype(array.dtype), ports=[port])
        return APPLIED

    return apply


def too_large(ports: Callable[[Site], tuple[Port, ...]], *, recurrent: bool = False) -> Apply:
    """Weights a tenth too large; in half precision by a half."""

    def apply(edit: Edit, site: Site) -> Outcome:
        if recurrent and (reason := unread_recurrence(edit, site)):
            return equivalent(reason)
        arrays = [edit.constant(port.value) for port in ports(site)]
        if any(array is None for array in arrays):
            return ABSENT
        if not any(np.any(array) for array in arrays if array is not None):
            return equivalent("these weights are zeros")
        for port, array in zip(ports(site), arrays, strict=True):
            if array is not None:
                by = _TOO_LARGE.get(array.dtype.name, 1.1)
                edit.insert("Mul", port.value, np.array(by, array.dtype), ports=[port])
        return APPLIED

    return apply


def exchanged_directions(edit: Edit, site: Site) -> Outcome:
    """Every weight of the two directions exchanged."""
    if site.directions != 2:
        return ABSENT
    if site.scan:
        width = site.gates * site.hidden
        turned = np.concatenate([np.arange(width) + width, np.arange(width)])
        for port in (*site.W, *site.B):
            edit.insert("Gather", port.value, turned, ports=[port], axis=-1)
        for pair in (site.R, site.W_hr):
            pair[0].value, pair[1].value = pair[1].value, pair[0].value
        return APPLIED
    for port in (*site.W, *site.R, *site.B):
        edit.insert("Gather", port.value, np.array([1, 0]), ports=[port], axis=0)
    return APPLIED


def misordered_projection(edit: Edit, site: Site) -> Outcome:
    """The rows of W_hr in the opposite order."""
    ports = site.W_hr[:1] or edit.fold(site)[1]
    arrays = [edit.constant(port.value) for port in ports]
    if not ports or any(array is None or array.size > LARGEST for array in arrays):
        return ABSENT
    if all(array is not None and np.array_equal(array[..., ::-1, :], array) for array in arrays):
        return equivalent("W_hr is the same from its other end")
    for port, array in zip(ports, arrays, strict=True):
        if array is not None:
            index = np.arange(array.shape[-2])[::-1]
            edit.insert("Gather", port.value, index, ports=[port], axis=array.ndim - 2)
    return APPLIED

"""Writes ``golden.json``, with the cases, and ``golden.bin``, with the little-endian bytes of their arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .cases import WebCall, WebCase

SCHEMA = 1
"""The version of the layout, which golden.mjs requires."""
_ALIGNMENT = 8
"""The alignment of arrays: JavaScript's typed arrays start at multiples of their element's size."""


def golden_files(cases: Sequence[WebCase], header: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The contents of golden.json and golden.bin; equal arrays are stored once.

    Args:
        cases: the cases.
        header: further entries for golden.json, such as the source of the numbers.
    """
    store = _Store()
    described = [_case(case, store) for case in cases]
    text = json.dumps({"schema": SCHEMA, **header, "bytes": len(store.content), "cases": described}, allow_nan=False)
    return text.encode(), bytes(store.content)


class _Store:
    """The bytes of golden.bin."""

    def __init__(self) -> None:
        self.content = bytearray()
        self._known: dict[tuple[str, tuple[int, ...], bytes], dict[str, Any]] = {}

    def add(self, array: np.ndarray) -> dict[str, Any]:
        """Store an array; return its dtype, shape and position for golden.json."""
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        key = array.dtype.name, array.shape, hashlib.sha256(data).digest()
        if key not in self._known:
            self.content += bytes(-len(self.content) % _ALIGNMENT)
            self._known[key] = {"dtype": array.dtype.name, "shape": list(array.shape), "offset": len(self.content)}
            self.content += data
        return self._known[key]


def _case(case: WebCase, store: _Store) -> dict[str, Any]:
    return {
        "label": case.label,
        "kind": case.kind,
        "batch": case.batch,
        "chunkings": [list(sizes) for sizes in case.chunkings],
        "time_axes": dict(case.time_axes),
        "every": dict(case.every),
        "calls": [_call(call, store) for call in case.calls],
    }


def _call(call: WebCall, store: _Store) -> dict[str, Any]:
    return {
        "label": call.label,
        "feeds": {name: store.add(np.asarray(array)) for name, array in call.feeds.items()},
        "expected": {
            name: {
                **store.add(np.asarray(array)),
                "allowed": call.allowed[name],
                **({"free": list(call.free[name])} if name in call.free else {}),
            }
            for name, array in call.expected.items()
        },
    }

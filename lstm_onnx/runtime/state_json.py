"""Converts the states of a stream to and from JSON, for another program to continue; lstm-onnx.mjs does the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, shown
from ..metadata import packed, unpacked
from .conversion import to_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray


def state_to_json(state: Mapping[str, Any]) -> str:
    """`Stream.state` as JSON text: for each state its dtype, shape and little-endian bytes as base64.

    Args:
        state: names to arrays.

    Raises:
        InputError: `state` is anything else.
    """
    if not isinstance(state, Mapping):
        raise InputError(f"state is a {type(state).__name__}", hint="it must map names to arrays, as stream.state does")
    arrays, _ = to_arrays(state, {})
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name} has dtype {array.dtype}", hint="it must be numbers", name=name)
    return json.dumps({name: packed(array) for name, array in arrays.items()})


def state_from_json(text: str | bytes) -> dict[str, NDArray[Any]]:
    """Names to arrays, to be set as `Stream.state`.

    Args:
        text: the result of `state_to_json`, or of JSON.stringify on a stream's state in JavaScript.

    Raises:
        InputError: `text` is anything else.
    """
    try:
        return {name: np.array(unpacked(item)) for name, item in json.loads(text).items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"is not a stream's state as JSON ({shown(str(error))})",
            hint='it must be {"NAME": {"dtype": ..., "shape": [...], "data": base64}}',
        ) from error

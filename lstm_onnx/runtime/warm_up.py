"""Makes inputs for a run whose results nobody reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from ..symbolic_dims import is_expression, names_in
from .arguments import positive_integer
from .initial_states import initial_state
from .loaded_model import LoadedModel
from .tensor_info import axis_sizes


def smallest_feeds(model: LoadedModel, sizes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Ones for each input at the given sizes of named axes, and at the smallest possible of the others.

    Raises:
        InputError: an axis is not one of the model's, or a size is not possible.
    """
    dims = {dim for info in model.inputs.values() for dim in info.shape if isinstance(dim, str)}
    known = {dim for dim in dims if not is_expression(dim)}.union(*map(names_in, filter(is_expression, dims)))
    unknown = [name for name in sizes if name not in known]
    if unknown:
        raise InputError(
            f"{', '.join(unknown)}: not an axis of the model",
            hint=f"its axes are {', '.join(sorted(known))}",
            name=unknown[0],
        )
    sizes = {name: positive_integer(name, size) for name, size in sizes.items()}
    try:
        # Ones, since a count of 0 would be an empty sequence.
        feeds = {
            name: np.ones(info.smallest_shape(sizes), info.dtype)
            for name, info in model.inputs.items()
            if name not in model.states and not (name == "lengths" and model.spec is not None)
        }
    except (MemoryError, ValueError) as error:
        raise InputError(f"there is no memory for inputs of the sizes {sizes}: {error}") from error
    streaming = model.metadata.streaming_or_default
    if streaming.last is not None:
        feeds[streaming.last][...] = 0  # a sequence that ends here may have too few steps
    known_sizes = axis_sizes(model.inputs, feeds)
    for name in model.states:
        info = model.inputs[name]
        start = initial_state(info, known_sizes, model.metadata.initial.get(name))
        if start is not None and streaming.least > 1:
            feeds[name] = start  # for the same reason: the sequence continues from a state
        elif start is None:
            # Some tools (tf2onnx) name each dynamic axis differently, so no other input gives a state's batch.
            feeds[name] = np.zeros(info.smallest_shape({**sizes, **known_sizes}), info.dtype)
    return feeds

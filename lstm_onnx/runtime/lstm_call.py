"""Calls a model that is a bare LSTM like an nn.LSTM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .conversion import to_numpy
from .loaded_model import LoadedModel
from .run import run_model

if TYPE_CHECKING:
    from ..spec import LSTMSpec


def call_lstm(
    model: LoadedModel, input: Any, states: tuple[Any, Any] | None, lengths: Any
) -> tuple[Any, tuple[Any, Any]]:
    """``output, (hn, cn)``; see `Model.__call__` for shapes and errors."""
    spec = model.metadata.spec
    if spec is None:
        raise InputError(
            "is not a bare LSTM", path=model.path, hint=f"call run({{name: array}}) with {', '.join(model.inputs)}"
        )
    x, to_caller_type = to_numpy(input, model.inputs["input"], "input")
    feeds = {"input": x}
    if states is not None:
        if not isinstance(states, (tuple, list)) or len(states) != 2:
            raise InputError("states must be the pair (h0, c0)", name="states")
        for name, value in zip(("h0", "c0"), states, strict=True):
            feeds[name], _ = to_numpy(value, model.inputs[name], name)
    unbatched = x.ndim == 2
    if unbatched:
        if lengths is not None:
            raise InputError(
                "lengths require a batch", hint="one sequence (time, input_size) always has full length", name="lengths"
            )
        feeds = _with_batch_axis(feeds, spec)
    if lengths is not None:
        feeds["lengths"] = np.asarray(to_numpy(lengths, None, "lengths")[0])
    results = run_model(model, feeds)
    output, hn, cn = results["output"], results["hn"], results["cn"]
    if unbatched:
        output, hn, cn = output.squeeze(0 if spec.batch_first else 1), hn[:, 0], cn[:, 0]
    return to_caller_type(output), (to_caller_type(hn), to_caller_type(cn))


def _with_batch_axis(feeds: dict[str, np.ndarray], spec: LSTMSpec) -> dict[str, np.ndarray]:
    """One sequence and its states with a batch axis of 1."""
    batched = {"input": np.expand_dims(feeds["input"], 0 if spec.batch_first else 1)}
    for name in ("h0", "c0"):
        if name in feeds:
            if feeds[name].ndim != 2:
                raise InputError(
                    f"{name} has shape {feeds[name].shape}",
                    hint="for one sequence (time, input_size) it has 2 axes",
                    name=name,
                )
            batched[name] = feeds[name][:, np.newaxis]
    return batched

"""Runs a model once, on inputs by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError, RunError
from .bindings import Key, key_of
from .call import call
from .cancellation import options_of
from .conversion import as_passed, to_arrays
from .loaded_model import LoadedModel
from .non_finite_inputs import warn_of_non_finite


def run_model(model: LoadedModel, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Its outputs by name; see `Model.run`."""
    if not isinstance(feeds, Mapping):
        raise InputError(f"run takes names to arrays, such as {{name: array}}, not {type(feeds).__name__}")
    if model.provider == "cuda":
        from .device import device_of, run_on_device

        if any(device_of(value) == "cuda" for value in feeds.values()):
            return run_on_device(model, feeds)
    # For most inputs only names, shapes and dtypes matter; for lengths and generation's prompts, values do.
    bound = model.provider == "cpu" and model.can_be_bound and model.valued.isdisjoint(feeds)
    key = key_of(feeds) if bound and model.metadata.generation is None else None
    binding = None if key is None else model.bindings.find(key)
    if binding is not None and key is not None:
        model.require_counts(feeds)
        warn_of_non_finite(model, feeds)
        for name, array in feeds.items():
            binding.inputs[name][...] = array
        try:
            binding.run(options_of(model))
        except RunError:
            # Either the model fails on this input, and will fail again, or its output shapes depend on more
            # than its input shapes, and it must not be bound.
            results = _run_unbound(model, feeds, None)
            model.bindings.exclude(key)
            return results
        return {name: array.copy() for name, array in binding.outputs.items()}
    return _run_unbound(model, feeds, key)


def _run_unbound(model: LoadedModel, feeds: Mapping[str, Any], key: Key | None) -> dict[str, Any]:
    """Run without a binding; feeds of this `key` may be bound the next time."""
    arrays, to_caller_type = to_arrays(feeds, model.inputs)
    arrays = model.validated(arrays)
    if model.spec is None:  # a bare LSTM's lengths were validated when they were completed
        model.require_counts(arrays)
    warn_of_non_finite(model, arrays)
    model.require_steps(arrays, feeds)
    names = list(model.outputs)
    values = call(model.path, model.session.run, names, arrays, options_of(model))
    if key is not None:
        model.bindings.record(key, model.session_for, model.path, model.inputs, model.outputs, arrays, values)
    return as_passed(dict(zip(names, values, strict=True)), to_caller_type)


def complete_feeds(model: LoadedModel, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """`feeds` as checked arrays, with the states and lengths that `Model.run` fills in.

    Raises:
        InputError: they do not fit the model.
    """
    if not isinstance(feeds, Mapping):
        raise InputError.of_argument("inputs", feeds, "a dict of arrays by input name")
    return model.validated(to_arrays(feeds, model.inputs)[0])

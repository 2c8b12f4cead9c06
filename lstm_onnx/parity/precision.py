"""A source in another precision: the same weights, cast before the export and in PyTorch alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..exporter.sources.source import LSTMSource, Source
from ..exporter.tracing.clone import cloned
from ..exporter.weights import fitted


def in_precision(source: Source, dtype: str) -> Source:
    """`source` with its parameters and floating-point inputs in `dtype`: "float16", "float32" or "float64".

    Raises:
        WeightsError: a weight is too large for float16.
    """
    if isinstance(source, LSTMSource):
        spec = replace(source.spec, dtype=dtype)
        return replace(source, spec=spec, state=fitted(spec, source.state, where=source.name))
    kind: torch.dtype = getattr(torch, dtype)
    inputs = tuple(replace(spec, dtype=dtype) if np.dtype(spec.dtype).kind == "f" else spec for spec in source.inputs)
    example = source.example
    if example is not None:
        tensors = {
            name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in example.tensors.items()
        }
        example = replace(example, tensors=tensors)
    return replace(source, held=cloned(source.held, kind), inputs=inputs, example=example)

"""The operators, one module per family; importing this package registers them."""

from __future__ import annotations

from . import (
    concatenation,
    constants,
    convolutions,
    cumulative,
    elementwise,
    expansion,
    indexing,
    normalization,
    padding,
    positions,
    products,
    recurrent,
    reductions,
    reshaping,
    resizing,
    shapes,
    slicing,
    spectra,
    transposed_convolutions,
)

__all__ = [
    "concatenation",
    "constants",
    "convolutions",
    "cumulative",
    "elementwise",
    "expansion",
    "indexing",
    "normalization",
    "padding",
    "positions",
    "products",
    "recurrent",
    "reductions",
    "reshaping",
    "resizing",
    "shapes",
    "slicing",
    "spectra",
    "transposed_convolutions",
]

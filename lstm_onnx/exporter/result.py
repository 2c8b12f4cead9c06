"""A model that is ready to be written, and what an export wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from onnx import ModelProto

from ..metadata import Metadata
from ..spec import ExportOptions, LSTMSpec


@dataclass(frozen=True)
class BuiltModel:
    """A model that is ready to be written.

    Attributes:
        model: without its initializers and metadata.
        initializers: its weights and constants by name.
        metadata: with options and a digest.
        notes: remarks for the user.
    """

    model: ModelProto
    initializers: Mapping[str, np.ndarray]
    metadata: Metadata
    notes: tuple[str, ...] = ()

    def noted(self, *notes: str) -> BuiltModel:
        """The same with further notes."""
        return replace(self, notes=(*self.notes, *notes))


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        path: the .onnx file.
        spec: the LSTM's sizes; None for a module that is more than an nn.LSTM.
        options: the options of the export.
        nodes: the number of the graph's nodes, without those of a Scan's body.
        parameters: the number of the module's parameters, as PyTorch counts them.
        num_bytes: the size of all files that were written.
        digest: SHA-256 of the weights.
        external_data: the file beside `path` that holds the weights of a model over 2 GB, or None.
        inputs: the names of the graph's inputs.
        outputs: the names of the graph's outputs.
        states: each state input and the output that is its next value.
        notes: remarks for the user, such as limits of an axis.
    """

    path: str
    spec: LSTMSpec | None
    options: ExportOptions
    nodes: int
    parameters: int
    num_bytes: int
    digest: str
    external_data: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The fields, ready for JSON; spec and options as dicts."""
        return asdict(self)

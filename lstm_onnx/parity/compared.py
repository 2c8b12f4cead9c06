"""What was compared: a case, on which sides, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..exporter.sources.torch_lstm import module_of
from ..exporter.weights import StateDict
from ..runtime import Model
from ..spec import LSTMSpec
from .cases import Case
from .expected import Expected
from .report import CaseResult


@dataclass(frozen=True)
class Sides:
    """What is compared: a file, and the module in its own precision and in float64."""

    model: Model
    own: nn.LSTM
    wide: nn.LSTM

    @classmethod
    def of(cls, model: Model, spec: LSTMSpec, state: StateDict) -> Sides:
        """A file and an LSTM with these parameters."""
        # A float64 model has no wider reference than itself: its own rounding is float32's, scaled down.
        own = torch.float32 if spec.dtype == "float64" else getattr(torch, spec.dtype)
        return cls(model, module_of(spec, state).to(own), module_of(spec, state).to(torch.float64))


@dataclass(frozen=True)
class Compared:
    """A case that was run, on which sides, and what came of it."""

    sides: Sides
    case: Case
    expected: Expected
    result: CaseResult

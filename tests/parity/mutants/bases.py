"""Right files of every lowering, to be made wrong."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
from torch import nn

import lstm_onnx
from lstm_onnx import ExportOptions, LSTMSpec, Model
from lstm_onnx.exporter.sources.torch_lstm import module_of, seeded_state
from lstm_onnx.parity.build import ranges_of
from lstm_onnx.parity.lstm.verification import LSTMVerification
from lstm_onnx.parity.results import Range

BASES = {
    "plain": (LSTMSpec(5, 8), ExportOptions()),
    "stacked": (LSTMSpec(5, 8, num_layers=2, bidirectional=True, batch_first=True), ExportOptions(lengths=True)),
    "scan": (LSTMSpec(5, 8, num_layers=2, bidirectional=True, proj_size=3), ExportOptions(lengths=True)),
    "scan forward": (LSTMSpec(5, 8, batch_first=True, proj_size=3), ExportOptions()),
    "fold": (LSTMSpec(5, 8, num_layers=2, proj_size=3), ExportOptions(lengths=True, projection="fold")),
    "fold both ways": (LSTMSpec(5, 8, bidirectional=True, proj_size=3), ExportOptions(projection="fold")),
}


@dataclass(frozen=True)
class Base:
    """A module, its file, and the file's graph; nobody may change them."""

    module: nn.LSTM
    path: Path
    graph: onnx.ModelProto

    def loaded(self) -> Model:
        return lstm_onnx.load(self.path, provider="cpu", threads=1)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()  # goes with the process


@cache
def base(name: str, scale: float = 1.0, bias: bool = True) -> Base:
    """A configuration of `BASES` with its weights times `scale`."""
    spec, options = BASES[name]
    if not bias:
        spec = LSTMSpec(**{**vars(spec), "bias": False})
    state = {key: (value * scale).astype(value.dtype) for key, value in seeded_state(spec, 7).items()}
    module = module_of(spec, state)
    path = Path(_folder().name) / f"{name}-{scale}-{bias}.onnx"
    lstm_onnx.export(module, path, lengths=options.lengths, projection=options.projection)
    return Base(module, path, onnx.load(path))


@cache
def verification(name: str, scale: float = 1.0) -> LSTMVerification:
    """A verification of a base that has run."""
    made = base(name, scale)
    verification = LSTMVerification(made.loaded(), made.module)
    assert all(result.passed for result in verification.results())
    return verification


@cache
def tried(name: str) -> tuple[Range, ...]:
    """What a base was compared at."""
    done = verification(name)
    return ranges_of(done.model, done.pairs)

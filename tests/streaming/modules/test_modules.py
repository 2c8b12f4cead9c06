"""Modules that are streamed: each right for every chunking, with the look-ahead that it has, or refused by a rule."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx import InputError

from .models import FEATURES, MODELS, REFUSED, chunkings

pytestmark = pytest.mark.sweep(12)

STEPS = 48
"""A multiple of all strides."""
FEW = (
    "strided, centred",
    "two outputs",
    "the first and the last step repeated",
    "linear interpolation",
    "completed and cut",
    "channels as rows, a step ahead",
    "over frequency and over time, a step ahead",
    "channels written in place",
)
"""Those of every run; the others are slow."""


def exported(module: nn.Module, path: Path, max_delay: int) -> lstm_onnx.ExportResult:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = torch.randn(2, STEPS, FEATURES)
    inputs = {"x": x, "ref": torch.randn(2, STEPS, FEATURES)} if hasattr(module, "ref") else {"x": x}
    shapes = {name: {0: "batch", 1: "time"} for name in inputs}
    return lstm_onnx.export(
        module.eval(), path, example_inputs=inputs, dynamic_shapes=shapes, states="explicit", max_delay=max_delay
    )


def require_equal(module: nn.Module, path: Path, delay: int) -> None:
    """Chunks of every kind give PyTorch's whole sequence, for one sequence and for three."""
    with lstm_onnx.load(path, "cpu", threads=1) as model:
        names = ["x", "ref"] if hasattr(module, "ref") else ["x"]
        for batch, steps in ((1, STEPS), (3, STEPS + 12)):
            feeds = {name: torch.randn(batch, steps, FEATURES) for name in names}
            with torch.no_grad():
                whole = module(**feeds)
            whole = whole if isinstance(whole, dict) else {"output": whole}
            stream = model.stream(batch=batch)
            assert stream.delay == delay
            for cut in chunkings(steps, stream.hop, batch):
                stream.reset()
                ends = list(itertools.accumulate(cut))
                parts = [
                    stream.run({name: value.numpy()[:, end - size : end] for name, value in feeds.items()})
                    for end, size in zip(ends, cut, strict=True)
                ]
                parts.append(stream.flush())
                for name, value in whole.items():
                    found = parts[-1][name] if value.ndim == 2 else np.concatenate([part[name] for part in parts], 1)
                    assert found.shape == tuple(value.shape), (name, cut)
                    np.testing.assert_allclose(found, value.numpy(), rtol=0, atol=3e-5 * max(1, value.abs().max()))


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_a_module_in_chunks_is_the_whole(name: str, tmp_path: Path) -> None:
    make, delay = MODELS[name]
    module = make()
    exported(module, tmp_path / "m.onnx", max_delay=delay)
    require_equal(module, tmp_path / "m.onnx", delay)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_the_whole_sequence_is_refused(name: str, tmp_path: Path) -> None:
    make, reason = REFUSED[name]
    exported(make(), tmp_path / "m.onnx", max_delay=100)
    with lstm_onnx.load(tmp_path / "m.onnx", "cpu") as model, pytest.raises(InputError, match=reason):
        model.stream()


def test_there_are_sixty_modules() -> None:
    assert len(MODELS) + len(REFUSED) >= 60

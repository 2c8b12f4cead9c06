"""What the tests of this folder share."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lstm_onnx.exporter.sources.torch_lstm import module_of
from lstm_onnx.runtime import Model, load
from lstm_onnx.spec import ExportOptions, LSTMSpec

from ..models import exported, randoms

TIME, BATCH = 6, 3


def pair(folder: Path, **sizes: Any) -> tuple[Model, torch.nn.LSTM, LSTMSpec]:
    """The same LSTM in ONNX Runtime and in torch."""
    options = ExportOptions(lengths=sizes.pop("lengths", False))
    spec, state = exported(folder / "model.onnx", options=options, **sizes)
    return load(folder / "model.onnx", provider="cpu"), module_of(spec, state), spec


def drawn(spec: LSTMSpec, batch: int = BATCH, time: int = TIME) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    x = randoms(*spec.sequence_shape(batch, time, spec.input_size))
    return x, (randoms(*spec.h_shape(batch), seed=2), randoms(*spec.c_shape(batch), seed=3))


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """No gradients, and no remark on which of its kernels torch takes for projections."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")
        yield


def by_torch(module: torch.nn.LSTM, x: np.ndarray, states: tuple[np.ndarray, ...] | None) -> list[np.ndarray]:
    with quiet_torch():
        given = None if states is None else tuple(torch.tensor(array) for array in states)
        output, (hn, cn) = module(torch.tensor(x), given)
    return [output.numpy(), hn.numpy(), cn.numpy()]


def flat(result: tuple[Any, tuple[Any, Any]]) -> list[Any]:
    output, (hn, cn) = result
    return [output, hn, cn]


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 2e-6) -> None:
    for name, one, other in zip(("output", "hn", "cn"), found, expected, strict=True):
        assert one.shape == other.shape, name
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance, err_msg=name)

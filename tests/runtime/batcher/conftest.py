"""A model that is served, and a batcher whose batches are held back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.batcher.batcher import Batcher

from ..models import exported
from .callers import Gate


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("batcher") / "m.onnx"
    exported(path, num_layers=2)
    return load(path, "cpu", threads=1)


@pytest.fixture
def gated(model: Model) -> Iterator[tuple[Batcher, Gate]]:
    server = Batcher(model, max_batch=8, window=0, queue=4)
    gate = Gate(server)
    yield server, gate
    gate.open.set()
    server.close()

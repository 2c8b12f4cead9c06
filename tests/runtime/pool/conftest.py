"""Models that are pooled, and steps that are divided however small."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.pool import bound_batches
from lstm_onnx.spec import ExportOptions

from ..models import exported
from .inputs import SIZES


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("pools")
    opened = {}
    for name, sizes in SIZES.items():
        exported(folder / f"{name}.onnx", options=ExportOptions(lengths=name == "lengths"), **sizes)
        opened[name] = load(folder / f"{name}.onnx", "cpu", threads=1)
    opened["three_threads"] = load(folder / "lengths.onnx", "cpu", threads=3)
    opened["spinning"] = load(folder / "lengths.onnx", "cpu", threads=3, spin=0.0002)
    return opened


@pytest.fixture(scope="module", autouse=True)
def small_work_counts() -> Iterator[None]:
    """Every batch is divided into as many parts as the model has threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bound_batches, "PART_FLOPS", 1.0)
        yield

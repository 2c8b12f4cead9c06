"""The acceptance set: every architecture is exported from one example and right at other sizes."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.exporter.call.arguments import Arguments, bind_arguments
from lstm_onnx.exporter.functional.call_with_states import call_with_states
from lstm_onnx.exporter.functional.make_functional import make_functional
from lstm_onnx.parity.criterion import compare
from tests.architectures import ALL, Architecture, packed, stateful
from tests.exporter.helpers import Made, made

SIZES = ((1, 1), (1, 7), (3, 1), (3, 5), (5, 12), (4, 9))
_QUICK = 41
pytestmark = [
    pytest.mark.sweep(54),
    pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:`torch.nn.utils.weight_norm`"),
]


def _quick() -> frozenset[str]:
    """The part that every run tries: all with states of their own, all packed, all cells, and a draw of the rest."""
    telling = {*stateful.ARCHITECTURES, *packed.ARCHITECTURES, *(item for item in ALL if item.cell_calls)}
    rest = [item for item in ALL if item not in telling]
    homes: dict[str, Architecture] = {}
    for item in rest:
        homes.setdefault(item.build().__class__.__module__, item)
    telling |= set(homes.values())
    left = [item for item in rest if item not in telling]
    telling |= set(random.Random(0).sample(left, max(0, _QUICK - len(telling))))  # noqa: S311 - a sample of tests
    return frozenset(item.name for item in telling)


QUICK = _quick()


def parameters() -> list[Any]:
    return [pytest.param(item, id=item.name, marks=() if item.name in QUICK else pytest.mark.slow) for item in ALL]


def fresh(architecture: Architecture, batch: int) -> nn.Module:
    module = architecture.build()
    if architecture.set_state is not None:
        architecture.set_state(module, batch)
    return module


def arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


class Judge:
    """A file beside its architecture, in its own precision and in float64."""

    def __init__(self, result: Made, architecture: Architecture, batch: int, time: int) -> None:
        self.result, self.architecture = result, architecture
        self.own, self.wide = (
            make_functional(fresh(architecture, batch), self.arguments(batch, time), dtype=dtype)
            for dtype in (None, torch.float64)
        )

    def arguments(self, batch: int, time: int) -> Arguments:
        architecture = self.architecture
        return bind_arguments(architecture.build(), architecture.inputs(batch, time), architecture.dynamic_shapes)

    def compare(self, batch: int, time: int) -> None:
        """Fails unless the file is right at this size, by the criterion, with random states."""
        model, metadata = self.result.model, self.result.model.metadata
        rng = np.random.default_rng(100 * batch + time)
        held = {}
        for name in self.own.states:
            if name in model.inputs:
                shape = [batch if isinstance(dim, str) else int(dim or 0) for dim in model.inputs[name].shape]
                held[name] = torch.from_numpy(np.tanh(rng.standard_normal(shape)).astype(np.float32))
        inputs = self.arguments(batch, time).tensors
        actual = model.run(arrays({**inputs, **held}))
        expected = call_with_states(self.own, metadata, inputs, held)
        reference = call_with_states(self.wide, metadata, doubled(inputs), doubled(held))
        assert set(actual) == set(reference)
        cells = [call.final[-1] for recurrent in self.wide.recurrent_modules.values() for call in recurrent.calls]
        scale = max(float(cell.abs().max()) for cell in cells)
        for name, array in actual.items():
            judged = compare(
                name,
                array,
                expected[name].double().numpy(),
                reference[name].double().numpy(),
                dtype="float32",
                scale=max(1.0, scale),
            )
            assert judged.passed, f"batch {batch}, time {time}: {judged}"


def doubled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def check_nodes(result: Made, architecture: Architecture) -> None:
    counts = Counter(result.operators)
    assert counts["LSTM"] == architecture.lstm_nodes + architecture.cell_calls
    assert counts["Scan"] == architecture.scan_nodes
    assert {kind: counts[kind] for kind in ("GRU", "RNN") if counts[kind]} == architecture.other_nodes
    assert not any(domain.domain for domain in result.proto.opset_import)
    large = [
        (tuple(tensor.dims), tensor.data_type, tensor.raw_data)
        for tensor in result.proto.graph.initializer
        # Biases of two layers may well be equal (a forget bias of 1); what is written twice, has its matrices twice.
        if len(tensor.raw_data) > 64 and not tensor.name.endswith("/B")
    ]
    assert len(large) == len(set(large))


@pytest.mark.parametrize("architecture", parameters())
def test_an_architecture_is_right_at_sizes_other_than_the_example(architecture: Architecture, tmp_path: Path) -> None:
    batch, time = architecture.example_sizes
    module = fresh(architecture, batch)
    result = made(module, architecture.inputs(batch, time), architecture.dynamic_shapes, tmp_path)
    check_nodes(result, architecture)
    # The least time is noted where it is not 1, and why a file with states cannot be streamed.
    least = f"time is {architecture.min_time} or more in the file: "
    assert all(note.startswith((least, "the file cannot be streamed: ")) for note in result.exported.notes)
    assert len([name for name in result.exported.states if name not in result.model.metadata.origins]) >= (
        architecture.states
    )
    sizes = [size for size in SIZES if architecture.takes(*size)]
    assert len(sizes) >= 2
    judge = Judge(result, architecture, batch, time)
    for size in sizes:
        judge.compare(*size)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ALL, ids=lambda item: item.name)
def test_verify_agrees(architecture: Architecture, tmp_path: Path) -> None:
    batch, time = architecture.example_sizes
    module = fresh(architecture, batch)
    inputs = architecture.inputs(batch, time)
    path = made(module, inputs, architecture.dynamic_shapes, tmp_path).path
    assert lstm_onnx.verify(module, path, example_inputs=inputs)

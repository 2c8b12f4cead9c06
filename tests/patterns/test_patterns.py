"""Every pattern: exported from an example alone, right at other sizes, verified without help, its module unchanged."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import lstm_onnx
from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.call_with_states import call_with_states
from lstm_onnx.exporter.functional.make_functional import make_functional
from lstm_onnx.parity.criterion import compare
from tests.architectures import ALL as ARCHITECTURES
from tests.architectures.architecture import Inputs
from tests.exporter.helpers import Made, eager
from tests.exporter.test_architectures import doubled
from tests.patterns import ALL, Pattern
from tests.patterns.unchanged import unchanged

QUICK = 5
pytestmark = [
    pytest.mark.sweep(27),
    pytest.mark.filterwarnings(
        "ignore:LSTM with projections", "ignore:`torch.nn.utils.weight_norm`", "ignore:enable_nested_tensor is True"
    ),
]


def parameters() -> list[Any]:
    """All of them; what is not in the seeded sample is slow."""
    quick = random.Random(303).sample([item.name for item in ALL], QUICK)  # noqa: S311
    return [pytest.param(item, id=item.name, marks=() if item.name in quick else pytest.mark.slow) for item in ALL]


def exported(pattern: Pattern, module: nn.Module, inputs: Inputs, folder: Path) -> Made:
    """`module`'s file, made from example inputs alone."""
    path = folder / "pattern.onnx"
    result = lstm_onnx.export(module, path, example_inputs=inputs)
    return Made(result, lstm_onnx.load(path, provider="cpu", threads=1), path)


def compare_at(pattern: Pattern, module: nn.Module, file: Made, batch: int, time: int) -> None:
    """Fails unless the file gives what the module itself does, as near to its float64 values as PyTorch's own."""
    inputs = pattern.inputs(batch, time)
    actual = file.run(inputs)
    expected = eager(module, pattern.inputs(batch, time))
    arguments = bind_arguments(module, inputs, None)
    wide = make_functional(module, arguments, dtype=torch.float64)
    reference = list(call_with_states(wide, file.model.metadata, doubled(arguments.tensors), {}).values())
    assert len(expected) > 0
    assert min(len(actual), len(reference)) >= len(expected)  # attribute states follow
    cells = [call.final[-1] for recurrent in wide.recurrent_modules.values() for call in recurrent.calls]
    scale = max(1.0, *(float(cell.abs().max()) for cell in cells))
    names = list(file.model.outputs)
    for name, ours, own, exact in zip(names, actual, expected, reference, strict=False):
        assert (ours.dtype, ours.shape) == (own.dtype, own.shape), name
        exact_array = exact.double().numpy()
        # The float64 copy is the exporter's own; what it computes must be what the module does.
        np.testing.assert_allclose(own, exact_array, rtol=1e-3, atol=1e-3)
        judged = compare(name, ours, own.astype(float), exact_array, dtype="float32", scale=scale)
        assert judged.passed, f"batch {batch}, time {time}: {judged}"


def test_there_are_eighty_and_none_is_an_architecture() -> None:
    right = [item for item in ALL if not item.refused]
    assert len(right) >= 80
    assert len({item.name for item in ALL}) == len(ALL)
    assert not {item.name for item in ALL} & {item.name for item in ARCHITECTURES}
    assert all(item.seen_in.count("/") >= 1 and " " in item.seen_in for item in ALL)


@pytest.mark.parametrize("pattern", parameters())
def test_a_pattern_is_exported_from_an_example_right_and_verified(pattern: Pattern, tmp_path: Path) -> None:
    module, inputs = pattern.build(), pattern.inputs(*pattern.example_sizes)
    if pattern.refused:
        with unchanged(module, inputs), pytest.raises(lstm_onnx.LSTMOnnxError) as refusal:
            exported(pattern, module, inputs, tmp_path)
        assert pattern.refused in str(refusal.value)
        assert not list(tmp_path.iterdir())
        return
    with unchanged(module, inputs):
        file = exported(pattern, module, inputs, tmp_path)
    for batch, time in pattern.sizes:
        compare_at(pattern, pattern.build(), file, batch, time)
    with unchanged(module, inputs):
        report = lstm_onnx.verify(module, file.path, provider="cpu", threads=1)
    assert report, str(report)


def test_a_changed_module_is_noticed() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    notes: list[int] = []
    module.notes = notes  # type: ignore[assignment]
    for change in (
        lambda: module[0].weight.data.add_(1),
        lambda: module[0].weight.detach().add_(0),  # the same bits, written
        lambda: notes.append(1),
        lambda: module.register_forward_hook(lambda *_: None),
        lambda: module.train(not module.training),
        lambda: torch.rand(1),
        lambda: setattr(module[0], "bias", nn.Parameter(module[0].bias.detach())),
    ):
        with pytest.raises(AssertionError), unchanged(module):
            change()
    with unchanged(module):
        module(torch.ones(1, 2))


def test_a_wrong_file_is_noticed(tmp_path: Path) -> None:
    pattern = next(item for item in ALL if item.name == "pose_smoother")
    file = exported(pattern, pattern.build(), pattern.inputs(*pattern.example_sizes), tmp_path)
    other = pattern.build()
    with torch.no_grad():
        next(parameter for name, parameter in other.named_parameters() if "weight_hh" in name).mul_(1.1)
    compare_at(pattern, pattern.build(), file, 3, 5)
    with pytest.raises(AssertionError, match="batch 3, time 5"):
        compare_at(pattern, other, file, 3, 5)


def test_inputs_follow_their_sizes() -> None:
    for pattern in ALL:
        sizes = [
            [tuple(leaf.shape) for leaf in pytree.tree_leaves(pattern.inputs(batch, time)) if hasattr(leaf, "shape")]
            for batch, time in (pattern.example_sizes, *pattern.sizes)
        ]
        assert len(set(map(str, sizes))) >= 4, pattern.name

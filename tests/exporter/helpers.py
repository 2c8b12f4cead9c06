"""Small modules exported, and their files run beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import lstm_onnx
from lstm_onnx import ExportResult, Model

BATCH_TIME = {0: "batch", 1: "time"}
X = {"x": BATCH_TIME}
X_LENGTHS = {"x": BATCH_TIME, "lengths": {0: "batch"}}

Inputs = Callable[[int, int], tuple[Any, ...]]


def signal(batch: int, time: int) -> tuple[Tensor]:
    """x (batch, time, 3), seeded by the sizes."""
    return (torch.randn((batch, time, 3), generator=torch.Generator().manual_seed(100 * batch + time)),)


def with_lengths(batch: int, time: int) -> tuple[Tensor, Tensor]:
    """x (batch, time, 3) and int64 lengths (batch,) of which the longest is the time."""
    return (*signal(batch, time), torch.tensor([time - 2 * i % time for i in range(batch)]))


@dataclass(frozen=True)
class Made:
    """An exported file, open for running."""

    exported: ExportResult
    model: Model
    path: Path

    @property
    def proto(self) -> ModelProto:
        return onnx.load(self.path)

    @property
    def operators(self) -> list[str]:
        return [node.op_type for node in nodes(self.proto)]

    def run(self, inputs: Any) -> list[np.ndarray]:
        """All outputs, for the tensors in `inputs` in their order."""
        tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
        results = self.model.run({name: value.numpy() for name, value in zip(self.model.inputs, tensors, strict=False)})
        return list(results.values())


def nodes(proto: ModelProto) -> Iterator[NodeProto]:
    """Every node, those of bodies too."""
    todo = [proto.graph]
    while todo:
        graph = todo.pop()
        for node in graph.node:
            yield node
            todo += [item.g for item in node.attribute if item.HasField("g")]


def made(module: nn.Module, inputs: Any, shapes: Any, folder: Path, **options: Any) -> Made:
    """`module` in eval mode, exported into `folder` and loaded."""
    path = folder / "made.onnx"
    exported = lstm_onnx.export(module.eval(), path, example_inputs=inputs, dynamic_shapes=shapes, **options)
    return Made(exported, lstm_onnx.load(path, provider="cpu", threads=1), path)


def eager(module: nn.Module, inputs: Any) -> list[np.ndarray]:
    """The tensors of the module's own result."""
    with torch.no_grad():
        result = module(**inputs) if isinstance(inputs, dict) else module(*inputs)
    return [leaf.numpy().copy() for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def agree(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: float = 1e-5) -> None:
    """Fails unless both hold the same numbers in the same shapes and dtypes."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, strict=True)


def right(
    module: nn.Module,
    inputs: Inputs,
    shapes: Any,
    folder: Path,
    *,
    sizes: Sequence[tuple[int, int]] = ((1, 1), (3, 7), (5, 2)),
    tolerance: float = 1e-5,
    **options: Any,
) -> Made:
    """Export at batch 2 and time 4, and fail unless the file is right at other sizes."""
    result = made(module, inputs(2, 4), shapes, folder, **options)
    for batch, time in sizes:
        arguments = inputs(batch, time)
        agree(result.run(arguments), eager(module, arguments), tolerance)
    return result

"""One entry of the table: a module of a public package, and the inputs it takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map

from .packages import Package

EXAMPLE = (2, 6)
SHAPES = ((1, 1), (1, 5), (3, 1), (4, 9), (2, 13), (5, 2))
"""(batch, time), none of them the example."""


@dataclass(frozen=True, eq=False)
class Model:
    """A module of `package`, with random weights.

    `build` makes it by the package's own code.  `inputs(batch, time)` are positional arguments: tensors, or nested
    containers of them, drawn from torch's own generator; `time` counts the model's steps, of which each may be many
    samples.  `batch`: False for a module that takes one sequence.
    """

    name: str
    package: Package
    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], tuple[Any, ...]]
    batch: bool = True
    longer: int = 0
    """How many steps more than `EXAMPLE` and `SHAPES` say: for a module that needs at least so many."""
    gain: float = 1.0
    """What its weight matrices are multiplied by, where they are drawn so small that its outputs hardly follow from its
    inputs."""

    def made(self) -> nn.Module:
        """The module, seeded and in eval mode."""
        torch.manual_seed(0)
        module = self.build().eval()
        if self.gain != 1:
            for parameter in module.parameters():
                parameter.data *= self.gain if parameter.ndim > 1 else 1.0
        return module

    def drawn(self, batch: int, time: int, seed: int = 0) -> tuple[Any, ...]:
        """Its inputs at these sizes: the same for the same seed."""
        torch.manual_seed(1000 * seed + 37 * batch + time)
        return self.inputs(batch, time)

    @property
    def example(self) -> tuple[int, int]:
        """The sizes at which it is exported."""
        batch, time = EXAMPLE
        return batch if self.batch else 1, time + self.longer

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The other sizes at which what was exported is compared with it."""
        sizes = SHAPES if self.batch else tuple((1, time) for time in (1, 2, 3, 5, 9, 13))
        return tuple((batch, time + self.longer) for batch, time in sizes)

    def open_axes(self) -> list[dict[int, str]]:
        """For each tensor of its inputs, the axes that follow the batch or the time, by name."""
        batch, time = self.example
        at, wider, longer = (
            self.tensors(self.drawn(*sizes)) for sizes in ((batch, time), (batch + self.batch, time), (batch, time + 1))
        )
        names: dict[tuple[str, int], str] = {}
        counts = {"batch": itertools.count(2), "time": itertools.count(2)}

        def name(kind: str, size: int) -> str:
            if (kind, size) not in names:
                first = not any(known == kind for known, _ in names)
                names[kind, size] = kind if first else f"{kind}_{next(counts[kind])}"
            return names[kind, size]

        axes = []
        for one, two, three in zip(at, wider, longer, strict=True):
            pairs = enumerate(zip(one.shape, two.shape, three.shape, strict=True))
            axes.append({axis: name("batch" if a != b else "time", a) for axis, (a, b, c) in pairs if a != b or a != c})
        return axes

    def dynamic_shapes(self, dim: Callable[[str], Any] = str) -> tuple[Any, ...]:
        """`open_axes` nested as the arguments are, each name through `dim`."""
        axes = iter(self.open_axes())

        def of(leaf: Any) -> Any:
            return {axis: dim(name) for axis, name in next(axes).items()} if isinstance(leaf, torch.Tensor) else None

        return tree_map(of, self.drawn(*self.example))

    @staticmethod
    def tensors(value: Any) -> list[torch.Tensor]:
        """The tensors in it, in order."""
        return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, torch.Tensor)]

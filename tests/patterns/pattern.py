"""What is known about each pattern: where it was seen, how to make it, and what it is fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from tests.architectures.architecture import Inputs, seeded

SIZES = ((1, 1), (1, 7), (3, 2), (3, 5), (5, 12), (4, 9))
"""(batch, time) at which a file is compared with its module; none is the example's."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """A module of our own, written after one that was seen in public code.

    `seen_in` is the repository and the file.  `build` makes the module seeded and in eval mode.  `inputs(batch, time)`
    are its arguments at these sizes: a tuple of positional ones or a dict of keyword ones.  `min_time` is the shortest
    time it takes.  `one_sequence`: the module works at batch 1 only.  `refused`: a part of the sentence with which it
    is refused, for a pattern that no file can follow.
    """

    name: str
    seen_in: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], Inputs]
    min_time: int = 1
    one_sequence: bool = False
    refused: str = ""

    @property
    def example_sizes(self) -> tuple[int, int]:
        """The batch and the time at which it is exported."""
        return 1 if self.one_sequence else 2, 5 + self.min_time

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The other batches and times, at which file and module are compared."""
        longer = self.min_time - 1
        return tuple((1 if self.one_sequence else batch, time + longer) for batch, time in SIZES)


def trained(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """`make`, seeded, as after a training: no statistic of a norm and no bias is what it began with."""

    def build() -> nn.Module:
        module = make()
        for part in module.modules():
            if isinstance(part, _NormBase) and part.running_mean is not None and part.running_var is not None:
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 1.5)
        for parameter in module.parameters():
            if not parameter.detach().any():
                nn.init.uniform_(parameter, -0.3, 0.3)
        return module

    return seeded(build)

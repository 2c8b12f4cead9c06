"""What the acceptance set knows about each of its models, and the seeded inputs they are fed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Inputs = tuple[Any, ...] | dict[str, Any]


@dataclass(frozen=True, eq=False)
class Architecture:
    """One model as people write it, with what an export of it must show.

    `build` makes it seeded and in eval mode.  `inputs(batch, time)` are example inputs of those sizes, seeded by them:
    a tuple of positional arguments or a dict of keyword arguments, each a tensor or a nested container of tensors.
    `dynamic_shapes` names the dynamic axes by argument, nested as the argument is; None stands for an argument without.

    The counts are those of an ideal export: `lstm_nodes` sums num_layers over the calls of nn.LSTM (a bidirectional
    layer is one node), `scan_nodes` does so for projected LSTMs, `other_nodes` for GRU and RNN.  `cell_calls` counts
    calls of nn.LSTMCell, which an export may write as an LSTM of one step or as its parts.

    `fixed_batch`: works at batch 1 only; the model's docstring says why.  `fixed_time`: one step without a time axis.
    `min_time`: the shortest time it takes.  `set_state(module, batch)` sets a state that the module keeps in an
    attribute to zeros; `states` is the number of its tensors.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], Inputs]
    dynamic_shapes: Any | None
    lstm_nodes: int
    scan_nodes: int = 0
    other_nodes: dict[str, int] = field(default_factory=dict)
    cell_calls: int = 0
    fixed_batch: bool = False
    fixed_time: bool = False
    set_state: Callable[[nn.Module, int], None] | None = None
    states: int = 0
    min_time: int = 1

    @property
    def example_sizes(self) -> tuple[int, int]:
        """A batch and a time to export it at: 2 and 4, where it takes them."""
        return 1 if self.fixed_batch else 2, 1 if self.fixed_time else max(4, self.min_time)

    def example(self) -> tuple[nn.Module, Inputs]:
        """The model, its state set where it keeps one, and inputs of those sizes."""
        module = self.build()
        if self.set_state is not None:
            self.set_state(module, self.example_sizes[0])
        return module, self.inputs(*self.example_sizes)

    def takes(self, batch: int, time: int) -> bool:
        """Whether the model works at these sizes."""
        return (batch == 1 or not self.fixed_batch) and (time == 1 or not self.fixed_time) and time >= self.min_time


def seeded(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """`make` with torch's seed at 0 and the module in eval mode; the caller's random state is left as it was."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make().eval()

    return build


class Draw:
    """Random inputs for a batch and a time; the same sizes give the same draws in the same order."""

    def __init__(self, batch: int, time: int) -> None:
        self.batch = batch
        self.time = time
        self._generator = torch.Generator().manual_seed(1000 * batch + time)

    def floats(self, *shape: int) -> Tensor:
        """Standard normal numbers in the default dtype, `shape`."""
        return torch.randn(shape, generator=self._generator)

    def tokens(self, vocabulary: int, *shape: int) -> Tensor:
        """Int64 tokens of 1..vocabulary - 1 (0 is the padding), `shape` or else (batch, time)."""
        return torch.randint(1, vocabulary, shape or (self.batch, self.time), generator=self._generator)

    def lengths(self, *, trimmed: bool = False, descending: bool = False) -> Tensor:
        """Int64 lengths (batch,) from 1; the longest is the time, or less where `trimmed` and time > 1."""
        longest = max(1, self.time - 1 - self.time // 4) if trimmed else self.time
        draw_arguments = torch.randint(1, longest + 1, (self.batch,), generator=self._generator)
        draw_arguments[int(torch.randint(self.batch, (), generator=self._generator))] = longest
        return draw_arguments.sort(descending=True).values if descending else draw_arguments

    def mask(self) -> Tensor:
        """Bool (batch, time), True on the valid steps, which are the first ones of each row."""
        return torch.arange(self.time) < self.lengths().unsqueeze(1)

    def padded_tokens(self, vocabulary: int) -> Tensor:
        """Int64 tokens (batch, time) with zeros after the end of each row."""
        return self.tokens(vocabulary) * self.mask()


BATCH_TIME = {0: "batch", 1: "time"}
TIME_BATCH = {0: "time", 1: "batch"}
BATCH = {0: "batch"}
STATE = {1: "batch"}
"""The axes of a state of (layers, batch, hidden)."""


def signal(features: int) -> Callable[[int, int], Inputs]:
    """Inputs of one float tensor (batch, time, features)."""
    return lambda batch, time: (Draw(batch, time).floats(batch, time, features),)


def signal_time_first(features: int) -> Callable[[int, int], Inputs]:
    """Inputs of one float tensor (time, batch, features)."""
    return lambda batch, time: (Draw(batch, time).floats(time, batch, features),)


def text(vocabulary: int) -> Callable[[int, int], Inputs]:
    """Inputs of one int64 tensor (batch, time) of tokens."""
    return lambda batch, time: (Draw(batch, time).tokens(vocabulary),)


def text_time_first(vocabulary: int) -> Callable[[int, int], Inputs]:
    """Inputs of one int64 tensor (time, batch) of tokens."""
    return lambda batch, time: (Draw(batch, time).tokens(vocabulary, time, batch),)

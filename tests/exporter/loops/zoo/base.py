"""The list of modules, and parts that most of them use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

FEATURES, HIDDEN = 3, 4
BATCH_TIME = {0: "batch", 1: "time"}


def signal(batch: int, time: int) -> tuple[Tensor, ...]:
    return (torch.randn((batch, time, FEATURES), generator=torch.Generator().manual_seed(10 * batch + time)),)


def tokens(batch: int, time: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(10 * batch + time)
    return (torch.randint(0, 7, (batch, time), generator=generator),)


@dataclass(frozen=True)
class Entry:
    kind: type[nn.Module]
    becomes: str
    inputs: Callable[[int, int], tuple[Tensor, ...]] = signal
    axes: Sequence[dict[int, str]] = (BATCH_TIME,)


ZOO: dict[str, Entry] = {}


def entry(becomes: str, inputs: Any = signal, axes: Sequence[dict[int, str]] = (BATCH_TIME,)) -> Any:
    def keep(kind: type[nn.Module]) -> type[nn.Module]:
        ZOO[kind.__name__] = Entry(kind, becomes, inputs, axes)
        return kind

    return keep


class Loop(nn.Module):
    """Parts that most of the modules use."""

    def __init__(self) -> None:
        super().__init__()
        self.x4, self.h4 = nn.Linear(FEATURES, 4 * HIDDEN), nn.Linear(HIDDEN, 4 * HIDDEN)
        self.x1, self.h1 = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.out = nn.Linear(HIDDEN, 2)

    @staticmethod
    def start(x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], HIDDEN)

"""Counts after which a module does something else, far from any that is common."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, made, signal


class Episodes(nn.Module):
    """Forgets its state after so many calls, which `ended` says."""

    most = 1

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.hidden, self.calls = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)), 0

    def ended(self) -> bool:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        out, self.hidden = self.lstm(x, self.hidden)
        self.calls += 1
        if self.ended():
            self.hidden, self.calls = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)), 0
        return out


def in_the_code(self: Episodes) -> bool:
    return self.calls == 37


def in_an_attribute(self: Episodes) -> bool:
    return self.calls > self.most


def in_a_rest(self: Episodes) -> bool:
    return self.calls % 83 == 0


@pytest.mark.sweep(3)
@pytest.mark.parametrize("ended", [in_the_code, in_an_attribute, in_a_rest])
def test_a_count_that_the_code_can_see_is_tried(ended: Any, tmp_path: Path) -> None:
    module = type("Module", (Episodes,), {"ended": ended})()
    module.most = 1743
    with pytest.raises(ExportError, match=r"hidden\.hn depends on what earlier calls left in self.calls"):
        made(module, signal(2, 4), X, tmp_path)


def test_a_count_that_changes_nothing_is_no_state(tmp_path: Path) -> None:
    module = type("Module", (Episodes,), {"ended": lambda self: self.calls < 0})()
    states = made(module, signal(2, 4), X, tmp_path).exported.states
    assert states == {"hidden.h0": "hidden.hn", "hidden.c0": "hidden.cn"}


class Counting(nn.Module):
    """Doubles its output once what it keeps says so."""

    kept: Any

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.lstm(x)
        self.kept, late = self.count(self.kept)  # type: ignore[operator]
        return out * 2 if late else out


def in_a_list(kept: list[int]) -> Any:
    kept[0] += 1
    return kept, kept[0] >= 23


def in_items(kept: Any) -> Any:
    kept.append(1) if isinstance(kept, list | collections.deque) else kept.add(len(kept))
    return kept, len(kept) == 23


COUNTS: dict[str, tuple[Any, Any]] = {
    "an item of a list": ([0], in_a_list),
    "an item of a tuple": ((0, "a"), lambda kept: ((kept[0] + 1, "a"), kept[0] >= 22)),
    "a number of numpy's": (np.int64(0), lambda kept: (kept + 1, kept >= 22)),
    "seconds": (0.0, lambda kept: (kept + 0.1, 0.45 < kept < 0.55)),
    "the items of a list": ([], in_items),
    "the items of a deque": (collections.deque(maxlen=23), in_items),
    "the items of a set": (set(), in_items),
    "letters": ("", lambda kept: (kept + "x", len(kept) == 23)),
}


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", COUNTS)
def test_what_grows_is_tried_where_it_ends(name: str, tmp_path: Path) -> None:
    module = Counting()
    module.kept, count = COUNTS[name]
    module.count = count
    with pytest.raises(ExportError, match=r"output depends on what earlier calls left in self.kept"):
        made(module, signal(2, 4), X, tmp_path)


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    ("first", "count"),
    [(23, lambda kept: (kept - 1, kept == 1)), (1, lambda kept: (kept + 1, (kept + 1) % 37 == 0))],
    ids=["down", "from 1"],
)
def test_a_count_in_another_direction_or_from_another_start_is_a_state(first: int, count: Any, tmp_path: Path) -> None:
    module = Counting()
    module.kept, module.count = first, count
    assert made(module, signal(2, 4), X, tmp_path).exported.states == {"kept.h0": "kept.hn"}


class Ring(Counting):
    """Reads a place that it counts, and has another gain at some counts."""

    def __init__(self, gain: Any) -> None:
        super().__init__()
        self.kept, self.gain = 0, gain
        self.register_buffer("ring", torch.arange(1.0, 6.0))

    def forward(self, x: Tensor) -> Tensor:
        self.kept += 1
        return self.lstm(x)[0] * self.ring[self.kept % 5] * self.gain(self.kept)  # type: ignore[no-any-return, index]


def test_a_count_is_found_in_no_dict_as_a_tensor(tmp_path: Path) -> None:
    assert made(Ring(lambda kept: 2 * kept + 1), signal(2, 4), X, tmp_path).exported.states
    for gain in (lambda kept: {37: 3.0}.get(kept, 1.0), lambda kept: 2 if kept in {37, 39} else 1):
        with pytest.raises(ExportError, match=r"depends on what earlier calls left in self.kept"):
            made(Ring(gain), signal(2, 4), X, tmp_path)

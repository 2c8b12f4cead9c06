"""Sizes that the module refuses and the file takes are named in a note."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tests.exporter.helpers import X, made, signal

from .axis_limits.modules import module


def test_only_even_sizes(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        assert x.shape[1] % 2 == 0, "an odd number of steps"
        return self.gru(x)[0]

    *_, note = made(module(forward), signal(2, 8), X, tmp_path).exported.notes
    assert note.startswith("the file also takes sizes that the module refuses: at batch 2, time 3 ")
    assert "assert x.shape[1] % 2 == 0" in note
    assert "AssertionError: an odd number of steps" in note


def test_a_text_with_the_size_makes_no_note_of_each_one(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.shape[1] % 4:
            raise ValueError(f"{x.shape[1]} steps")
        return self.gru(x)[0]

    notes = made(module(forward), signal(2, 8), X, tmp_path).exported.notes
    assert sum("the file also takes sizes" in note for note in notes) == 1


@pytest.mark.parametrize("case", ["a limit excludes them", "the file refuses them too"])
def test_no_note_of_sizes_that_the_file_refuses(case: str, tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if case == "a limit excludes them":
            assert x.shape[1] <= 40
            return self.gru(x)[0]
        return self.gru(x)[0].reshape(x.shape[0], x.shape[1] // 4, 16)

    notes = made(module(forward), signal(2, 8), X, tmp_path).exported.notes
    assert not any("the file also takes sizes" in note for note in notes)

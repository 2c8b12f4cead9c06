"""The lengths at which a module's code may do something else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError
from lstm_onnx.exporter.loops.lengths import lengths_to_try

LIMIT = 61


@dataclass
class Settings:
    longest: int = 71


def cut(x: Tensor, most: int = 51) -> Tensor:
    return x[:, :most]


class Numbers(nn.Module):
    warm_up = 81

    def __init__(self) -> None:
        super().__init__()
        self.own, self.drawn, self.share = 31, np.int32(111), 120.5
        self.settings, self.namespace = Settings(), SimpleNamespace(deep={"within": [91]})
        self.register_buffer("mask", torch.zeros(101, 2))

    def forward(self, x: Tensor) -> Tensor:
        return cut(x) if x.shape[1] > 41 else self.halved(x)

    def halved(self, x: Tensor) -> Tensor:
        return x[:, :LIMIT]


def test_numbers_of_code_attributes_configurations_defaults_and_buffers_are_tried():
    found = set(lengths_to_try(Numbers()))
    for number in (31, 41, 51, 61, 71, 81, 91, 101, 111, 120):
        assert {number, number + 1, number + 2} <= found


def test_larger_numbers_of_the_code_are_tried_while_they_are_cheap():
    class Late(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :4000] if x.shape[1] > 1500 else x[:, :18_000] + 19_000 + 10**6

    found = lengths_to_try(Late())
    assert {1501, 1502, 4001, 4002} <= set(found)
    assert max(found) == 4002


def test_larger_numbers_that_a_module_holds_are_tried_unless_they_are_sizes_of_weights():
    class Late(nn.Module):
        def __init__(self, width: int, **settings: int) -> None:
            super().__init__()
            self.linear, self.width, self.settings = nn.Linear(2, width), width, settings

    found = lengths_to_try(Late(1100, reset=1500, longest=9000))
    assert {1501, 1502} <= set(found)
    assert max(found) == 1502
    assert 1101 not in found


def test_some_lengths_are_tried_whatever_the_code_holds():
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(x.size(0), 6)
            for t in range(x.size(1)):
                h = self.cell(x[:, t], h)
                h = h * 0 + 5 if t == len("." * 45) else h
            return h

    with pytest.raises(ExportError, match="so it was not kept"):
        lstm_onnx.export(
            Computed().eval(),
            os.devnull,
            example_inputs=(torch.randn(2, 5, 4),),
            dynamic_shapes={"x": {0: "batch", 1: "time"}},
        )


def test_numbers_that_are_no_lengths_are_left_out():
    assert all(0 < length <= 1002 for length in lengths_to_try(nn.Sequential(Numbers())))

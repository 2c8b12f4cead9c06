"""Global state during an export and a verification, and after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx.exporter.copies.caller_state import one_thread_if_small

pytestmark = pytest.mark.sweep(3)


class _OneThread(nn.Module):
    """Fails on more threads than one."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.get_num_threads() != 1:
            raise RuntimeError(f"{torch.get_num_threads()} threads")
        result: torch.Tensor = self.lstm(x)[0]
        return result


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_a_small_module_is_exported_and_verified_on_one_thread(tmp_path: Path) -> None:
    module, x = _OneThread().eval(), torch.randn(4, 2, 2)
    with pytest.raises(RuntimeError, match="3 threads"):
        module(x)
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=x)
    assert lstm_onnx.verify(module, tmp_path / "m.onnx", mutants="none")
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_the_threads_are_put_back_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="Expected 2"), one_thread_if_small(lstm := nn.LSTM(2, 3)):
        lstm(torch.randn(4, 2, 5))
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_a_large_module_keeps_its_threads() -> None:
    with one_thread_if_small(nn.LSTM(512, 512)):
        assert torch.get_num_threads() == 3

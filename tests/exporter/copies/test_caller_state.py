"""Global state during an export and a verification, and after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx.exporter import module as exporting
from lstm_onnx.exporter.copies.caller_state import ONE_AT_A_TIME, one_thread_if_small
from lstm_onnx.parity import verification

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


def is_free() -> bool:
    """Whether another thread may begin an export or a verification."""
    found: list[bool] = []

    def begin() -> None:
        found.append(ONE_AT_A_TIME.acquire(blocking=False))
        if found[0]:
            ONE_AT_A_TIME.release()

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("place", [(exporting, "make_functional"), (verification, "verification_of")])
def test_other_threads_wait_for_an_export_and_a_verification(
    place: tuple[Any, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, x, free = _OneThread().eval(), torch.randn(4, 2, 2), []
    own = getattr(*place)

    def noting(*args: Any, **options: Any) -> Any:
        free.append(is_free())
        return own(*args, **options)

    monkeypatch.setattr(*place, noting)
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=x)
    assert lstm_onnx.verify(module, tmp_path / "m.onnx", mutants="none")
    assert free == [False]
    assert is_free()

"""What a module computes only while it is compiled is not in its file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from lstm_onnx.exporter.tracing.eager_branches import eager_branches
from tests.exporter.helpers import X, right, signal

QUESTIONS: tuple[Callable[[], bool], ...] = (
    is_compiling,
    torch.compiler.is_exporting,
    torch._dynamo.is_compiling,
    torch.compiler.is_dynamo_compiling,
    torch.onnx.is_in_onnx_export,
    torch.jit.is_scripting,
    torch.jit.is_tracing,
)


class Asking(nn.Module):
    """Computes something else for each question to which the answer is that it is compiled."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(x)[0]
        for number, question in enumerate(QUESTIONS, 1):
            y = y * number if question() else y + number
        return y


def test_the_branches_that_pytorch_runs_are_exported(tmp_path: Path) -> None:
    right(Asking(), signal, X, tmp_path)


def test_other_threads_and_torch_get_the_true_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.compiler._is_compiling_flag", True)
    answers: list[bool] = []
    with eager_branches():
        thread = threading.Thread(target=lambda: answers.append(is_compiling()))
        thread.start()
        thread.join()
        assert not is_compiling()
        answers.append(_within_torch())
    assert answers == [True, True]
    assert is_compiling()


def _within_torch() -> bool:
    names = {"torch": torch}
    code = compile("answer = torch.compiler.is_compiling()", torch.__file__, "exec")
    exec(code, names)  # noqa: S102 - as a line of torch's
    return bool(names["answer"])

"""Functions of TorchScript that a module calls, with sizes and loops in them."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, eager, made, signal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def sized(y: Tensor) -> Tensor:
    return y.reshape(y.size(0) * y.size(1), -1).reshape(y.size(0), y.size(1), -1) + torch.arange(y.size(1)).unsqueeze(1)


def looped(y: Tensor) -> Tensor:
    h, found = torch.zeros_like(y[:, 0]), []
    for t in range(y.size(1)):
        h = torch.tanh(y[:, t] + 0.5 * h)
        found.append(h)
    return torch.stack(found, 1)


class Scripted(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.function = nn.LSTM(3, 4, batch_first=True), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.lstm(x)[0])


@pytest.mark.parametrize("function", [sized, looped])
def test_sizes_and_loops_stay_dynamic(function: Any, tmp_path: Path) -> None:
    before = vars(torch.jit.ScriptFunction)["__call__"]
    module = Scripted(torch.jit.script(function))
    file = made(module, signal(2, 4), X, tmp_path)
    assert vars(torch.jit.ScriptFunction)["__call__"] is before
    for batch, time in ((1, 1), (3, 7)):
        (actual,), (expected,) = file.run(signal(batch, time)), eager(module, signal(batch, time))
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)

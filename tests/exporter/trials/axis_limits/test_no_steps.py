"""A recurrent node that would get no steps, for an allowed size, is refused or bounded."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tests.exporter.helpers import X, agree, eager, made, signal

from .modules import Forward, module

# No limit of an axis keeps the steps from running out: the file fails there, as the module does.


def no_steps_now_and_then(self: Any, x: Tensor) -> Tensor:
    return self.gru(x[:, : x.size(1) % 5])[0]


def steps_by_the_batch(self: Any, x: Tensor) -> Tensor:
    return self.gru(x[:, x.size(0) :])[0]


def steps_by_value(self: Any, x: Tensor) -> Tensor:
    return self.gru(x[:, x[0, :, 0] > 0])[0]


EMPTY = """
import sys
import numpy as np
import lstm_onnx

model = lstm_onnx.load(sys.argv[1], provider="cpu", threads=1)
batch, time = map(int, sys.argv[2:])
try:
    model.run({"x": -np.ones((batch, time, 3), np.float32)})
except lstm_onnx.RunError as error:
    assert "gru/at_least_one_step" in str(error), error
else:
    raise AssertionError("it ran")
"""


@pytest.mark.sweep(4)
@pytest.mark.parametrize(
    ("forward", "size"),
    [(no_steps_now_and_then, (2, 5)), (steps_by_the_batch, (3, 3)), (steps_by_value, (2, 4))],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_steps_that_run_out_fail_in_the_file(forward: Forward, size: tuple[int, int], tmp_path: Path) -> None:
    found = module(forward)

    def positive(batch: int, time: int) -> tuple[Tensor, ...]:
        return tuple(x.abs() for x in signal(batch, time))

    result = made(found, positive(2, 4), X, tmp_path)
    for batch, time in ((2, 4), (1, 7), (3, 11)):
        agree(result.run(positive(batch, time)), eager(found, positive(batch, time)))
    # In a process of its own: without the nodes that make it fail, ONNX Runtime's GRU ends it.
    subprocess.run([sys.executable, "-c", EMPTY, str(result.path), *map(str, size)], check=True, timeout=120)

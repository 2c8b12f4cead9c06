"""What a branch of an ``if`` on a value writes that was there before, and has no copy of: the file wrote it always."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, eager, made, signal

pytestmark = pytest.mark.sweep(9)

Forward = Callable[[nn.Module, Tensor], Tensor]


def tensor_in_a_list(self: nn.Module, x: Tensor) -> Tensor:
    found = [self.lstm(x)[0] * 1]
    if x.abs().max() < 60:
        found[0].mul_(2)
    return found[0]


def sum_in_a_dict(self: nn.Module, x: Tensor) -> Tensor:
    found = {"y": self.lstm(x)[0] * 1}
    if x.abs().max() < 60:
        found["y"] += 1
    return found["y"]


def steps_in_a_list(self: nn.Module, x: Tensor) -> Tensor:
    found = [self.lstm(x)[0] * 1]
    if x.abs().max() < 60:
        found[0][:, 0] = 1
    return found[0]


def list_in_a_dict(self: nn.Module, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    found = {"y": [y]}
    if x.abs().max() < 60:
        found["y"].append(y * 2)
    else:
        found["y"].append(y * 3)
    return found["y"][1]


def entry_of_a_list_in_a_list(self: nn.Module, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    found = [[y]]
    if x.abs().max() < 60:
        found[0][0] = y * 2
    return found[0][0]


def own_list_of_what_was_there(self: nn.Module, x: Tensor) -> Tensor:
    y = self.lstm(x)[0] * 1
    if x.abs().max() < 60:
        found = [y]
        found[0] += 1
    return y


def in_place_within_an_expression(self: nn.Module, x: Tensor) -> Tensor:
    found, z = {"y": self.lstm(x)[0] * 1}, x
    if x.abs().max() < 60:
        z = found["y"].mul_(2)
    return found["y"] + z.sum() * 0


def argument_inplace(self: nn.Module, x: Tensor) -> Tensor:
    y = z = self.lstm(x)[0] * 1
    if x.abs().max() < 60:
        z = F.elu(y, 1.0, True) + 1
    return y + z


@pytest.mark.parametrize(
    ("forward", "what"),
    [
        (tensor_in_a_list, r"found\[0\], which shares its memory with something that"),
        (sum_in_a_dict, r"found\['y'\], which shares its memory with something that"),
        (steps_in_a_list, r"found\[0\], which shares its memory with something that"),
        (list_in_a_dict, r"found\['y'\], which"),
        (entry_of_a_list_in_a_list, r"found\[0\], which"),
        (own_list_of_what_was_there, r"found\[0\], which shares its memory with something that"),
        (in_place_within_an_expression, "a tensor, which shares its memory with something that"),
        (argument_inplace, "a tensor, which shares its memory with something that"),
    ],
)
def test_a_write_into_what_existed_before_is_refused(forward: Forward, what: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"at test_branch_writes.py:[0-9]+: .*writes into {what} existed before"):
        made(_module(forward), signal(2, 4), X, tmp_path)


def and_among_numbers(self: nn.Module, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    if (x.std() and x.max()) < 60:  # compares the second number, and not whether there are two
        y = y * 2
    return y


def not_and_itself(self: nn.Module, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    if (not x.abs().max() > 60) is not False:
        y = y * 2
    return y


@pytest.mark.parametrize("forward", [and_among_numbers, not_and_itself])
def test_what_is_compared_is_not_taken_for_a_truth(forward: Forward, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the code depends on the numbers in a tensor"):
        made(_module(forward), signal(2, 4), X, tmp_path)


def own_entries(self: nn.Module, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    found, factors = [y, y], {"k": 1.0}
    if x.abs().max() < 60:
        found[0] = y * 2
        factors["k"] += 1.0
        new = [y * 3]
        new[0] += 1
        new.append(F.elu(y * 2, 1.0, True))
        found[1] = new[0] + new[1]
    return torch.cat(found) * factors["k"]


def test_entries_and_what_a_branch_has_made_are_written(tmp_path: Path) -> None:
    module = _module(own_entries)
    model = made(module, signal(2, 4), X, tmp_path).model
    for x in (signal(3, 5)[0], 100 * signal(3, 5)[0]):
        np.testing.assert_allclose(model.run({"x": x.numpy()})["output"], eager(module, [x])[0], rtol=1e-4, atol=1e-5)


def _module(forward: Forward) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = type("Module", (nn.Module,), {"forward": forward})()
    module.lstm = nn.LSTM(3, 4, batch_first=True)
    return module.eval()

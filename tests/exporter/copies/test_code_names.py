"""Which functions a module's code can reach."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lstm_onnx.exporter.copies.code_names import code_names


class Applies(nn.Module):
    """Calls a function that it was given."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x, 1.0)


def test_a_function_of_torch_that_is_in_its_own_closure() -> None:
    function = torch.Tensor.__rsub__  # type: ignore[attr-defined]  # a wrapper of torch's
    assert function in [cell.cell_contents for cell in function.__closure__]
    assert [found.__name__ for found in code_names(Applies(function)).functions] == ["forward"]


def test_functions_in_the_closure_of_a_library_function() -> None:
    def own(x: Tensor) -> Tensor:
        return x * 2

    found = code_names(Applies(torch.no_grad()(own))).functions
    assert own in found

"""The batch of a module that takes a dozen tensors, of which only a few steps are read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx.exporter.call.arguments import bind_arguments
from lstm_onnx.exporter.functional.dynamic_axes import find_dynamic_axes
from lstm_onnx.exporter.functional.make_functional import make_functional

pytestmark = pytest.mark.sweep(2)

NAMES = ("values", "masks", "deltas", "forwards", "targets", "target_masks")


class Imputation(nn.Module):
    """Reads five steps of what goes forwards, or all; what goes backwards is only handed through."""

    def __init__(self, steps: int | None = 5) -> None:
        super().__init__()
        self.steps = steps
        self.cell, self.out = nn.LSTMCell(6, 4), nn.Linear(4, 1)

    def forward(self, data: dict[str, dict[str, Tensor]], labels: Tensor, weights: Tensor) -> dict[str, Tensor]:
        own = data["forward"]
        h = c = own["values"].new_zeros(own["values"].size(0), 4)
        for t in range(self.steps or own["values"].size(1)):
            x = own["masks"][:, t] * own["values"][:, t] + own["deltas"][:, t]
            h, c = self.cell(torch.cat([x, own["masks"][:, t]], 1), (h, c))
        loss = (self.out(h)[:, 0] - labels) * weights
        return {"loss": loss, "targets": own["targets"], "back": data.get("backward", own)["values"]}


def test_a_batch_of_many_inputs_is_found_beside_other_axes() -> None:
    data = {way: {name: torch.rand(2, 5, 3) for name in NAMES} for way in ("forward", "backward")}
    arguments = bind_arguments(Imputation(), (data, torch.rand(2), torch.rand(2)), None)
    axes = find_dynamic_axes(make_functional(Imputation(), arguments)).axes
    batch = {name for name, own in axes.items() if own[0] == "batch"}
    read = {f"data.forward.{name}" for name in ("values", "masks", "deltas")}
    assert batch == {*read, "labels", "weights"}  # the others go with no other input


def test_what_is_handed_through_is_open_where_the_search_used_all_its_runs() -> None:
    data = {"forward": {name: torch.rand(2, 5, 3) for name in (*NAMES, "last")}}
    module = Imputation(steps=None)
    arguments = bind_arguments(module, (data, torch.rand(2), torch.rand(2)), None)
    axes = find_dynamic_axes(make_functional(module, arguments)).axes
    # A file that held one of them at the example's batch could run no other.
    assert all(0 in own for own in axes.values()), axes

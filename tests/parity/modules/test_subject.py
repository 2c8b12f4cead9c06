"""A file beside its module: what PyTorch gives in a case, and why it gives nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.parity.modules.subject import Subject


class Short(nn.Module):
    """Takes few steps alone, once it is told so."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(2, 3, batch_first=True)
        self.most: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.most is not None and x.size(1) > self.most:
            raise ValueError("too many steps")
        return self.gru(x)[0] * 2


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    path, module = tmp_path_factory.mktemp("subject") / "m.onnx", Short().eval()
    shapes = {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 5, 2), dynamic_shapes=shapes, check=False)
    module.most = 6
    return Subject.of(lstm_onnx.load(path, provider="cpu", threads=1), module)


def test_a_case_that_the_module_refuses_says_why(subject: Subject) -> None:
    runs, refused = (subject.case(np.random.default_rng(0), 2, time) for time in (6, 7))
    expected = subject.expect(runs)
    assert expected is not None
    assert expected.calls[0].reference["output"].shape == (2, 6, 3)
    assert subject.refusal(runs) == ""
    assert subject.expect(refused) is None
    assert "too many steps" in subject.refusal(refused)
    with pytest.raises(lstm_onnx.InputError, match="the module itself fails on it"):
        subject.expect(replace(refused, kind="data"))


class Halves(Short):
    """Returns one tensor for a single step, and two otherwise."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return self.gru(x)[0].chunk(2, 1)


def test_another_number_of_results_at_other_sizes_is_no_parity(tmp_path: Path) -> None:
    path, module, x = tmp_path / "m.onnx", Halves().eval(), torch.randn(2, 4, 2)
    lstm_onnx.export(module, path, example_inputs=x, dynamic_shapes={"x": {0: "batch", 1: "time"}}, check=False)
    with pytest.raises(lstm_onnx.ExportError, match="forward returns 1 tensors, but 2 for the example"):
        lstm_onnx.verify(module, path, example_inputs=x, provider="cpu", mutants="none")


def test_kept_sizes_are_those_of_every_drawn_case(subject: Subject) -> None:
    kept = replace(subject, kept_sizes={"time": 4})
    assert kept.sizes(3, 9) == {"batch": 3, "time": 4}
    assert subject.sizes(3, 9) == {"batch": 3, "time": 9}

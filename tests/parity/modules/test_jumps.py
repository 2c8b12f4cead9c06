"""Modules that round on the way: a right file may be on the other side of a rounding; wrong ones are not excused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import export, load, verify
from lstm_onnx.parity.golden_file import Golden
from lstm_onnx.parity.modules.streams import _carried_cases
from lstm_onnx.parity.modules.verification import ModuleVerification
from lstm_onnx.parity.replay import replay
from lstm_onnx.parity.verification import make_report

pytestmark = pytest.mark.sweep(5)


class Rounded(nn.Module):
    """To `dtype` and back."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0].to(self.dtype).to(x)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[torch.dtype, Path]:
    folder, found = tmp_path_factory.mktemp("rounded"), {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        found[dtype] = folder / f"{dtype}.onnx"
        export(Rounded(dtype), found[dtype], example_inputs=torch.randn(2, 5, 3), check=False)
    return found


def test_a_right_file_at_an_edge_passes_and_wrong_ones_do_not(files: dict[torch.dtype, Path]) -> None:
    module = Rounded(torch.bfloat16)
    right = ModuleVerification(load(files[torch.bfloat16], "cpu", threads=1), module)
    rng = np.random.default_rng(0)
    drawn = (right.subject.expect(right.subject.case(rng, 64, 16)) for _ in range(100))
    case = next(one for one in drawn if one is not None and not replay(right.model, one).passed)
    found = right.explained(right.models, case)
    assert found is not None
    assert replay(right.model, found).passed
    (call,) = found.calls
    ((name, (below, above)),) = call.jumps.items()
    assert 0 < np.mean(above > below) < 0.02
    assert np.abs(call.reference[name]).max() < 1
    assert (above - below).max() <= 2.0**-7  # two units of bfloat16 below 1
    assert any("both sides of a jump pass" in note for note in right.notes)
    wrong = ModuleVerification(load(files[torch.float32], "cpu", threads=1), module)
    assert wrong.explained(wrong.models, case) is None
    assert not replay(wrong.model, found).passed
    assert not wrong.notes


def test_a_jump_of_pytorch_itself_does_not_excuse_a_file_without_the_rounding(files: dict[torch.dtype, Path]) -> None:
    module = Rounded(torch.float16)
    wrong = ModuleVerification(load(files[torch.float32], "cpu", threads=1), module)
    case = wrong.subject.case(np.random.default_rng(0), 256, 32)
    expected, native = wrong.subject.expect(case), wrong.models.native(case.feeds)["output"]
    assert expected is not None
    (call,) = expected.calls
    assert np.abs(native - call.reference["output"]).max() > 1e-5  # so that 32 times that would allow any file
    assert call.torch_error("output") < 1e-6
    assert not replay(wrong.model, expected).passed
    assert wrong.explained(wrong.models, expected) is None
    right = ModuleVerification(load(files[torch.float16], "cpu", threads=1), module)
    assert not replay(right.model, expected).passed
    explained = right.explained(right.models, expected)
    assert explained is not None
    assert replay(right.model, explained).passed


class ZeroCrossings(nn.Module):
    """An LSTM's output, and how often neighbouring samples of its input have opposite signs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(1, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        crossings = (x[:, 1:] * x[:, :-1] < 0).float().mean(1)
        return self.lstm(x)[0], crossings


def test_a_product_that_underflows_before_a_comparison_is_as_in_pytorch(tmp_path: Path) -> None:
    export(ZeroCrossings(), tmp_path / "m.onnx", example_inputs=torch.randn(2, 5, 1))
    assert verify(ZeroCrossings(), tmp_path / "m.onnx", mutants="none")


class Carried(nn.Module):
    """One step, whose rounded state starts the next call."""

    def __init__(self, *, rounds: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.LSTMCell(3, 16)
        self.register_buffer("last", torch.zeros(64, 16))
        self.rounds = rounds

    def forward(self, x: Tensor) -> Tensor:
        h, c = self.cell(x, (self.last, torch.zeros(64, 16)))
        if self.rounds:
            h = h.half().to(x)
        self.last = h
        return self.cell(h[:, :3], (h, c))[0]


@pytest.mark.parametrize("rounds", [True, False])
def test_a_jump_in_an_earlier_call_is_explained(rounds: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export(Carried(rounds=rounds), path, example_inputs=torch.randn(64, 3), dynamic_shapes={}, check=False)
    verification = ModuleVerification(load(path, "cpu", threads=1), Carried())
    cases = [verification.subject.case(np.random.default_rng(seed), 64, 1, states=False) for seed in range(3)]
    (expected, *_) = _carried_cases(verification.subject, "64 rows, 3 calls", cases, {})
    result = replay(verification.model, expected)
    assert not result.passed
    assert not result.error
    explained = verification.explained(verification.models, expected)
    if rounds:
        assert explained is not None
        assert replay(verification.model, explained).passed
    else:
        assert explained is None


def test_what_jumps_is_not_in_a_golden_file(files: dict[torch.dtype, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    verification = ModuleVerification(load(files[torch.bfloat16], "cpu", threads=1), Rounded(torch.bfloat16))
    rng = np.random.default_rng(0)
    cases = [verification.subject.expect(verification.subject.case(rng, 64, 16)) for _ in range(40)]
    monkeypatch.setattr(verification, "_expectations", cases)
    results = list(verification.results())
    assert all(result.passed for result in results)
    report = make_report(verification, results, mutants="none")
    jumping = sum(bool(one.calls[0].jumps) for one in verification.expected)
    assert 0 < jumping < 20
    assert len(Golden.of(report, verification).cases) == 40 - jumping


class AtTies(nn.Module):
    """An LSTM's output, and what is added to it where numbers exactly meet a threshold."""

    def __init__(self, add: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.add = nn.LSTM(3, 4, batch_first=True), add

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        steps = torch.arange(x.shape[1])[:, None]
        return self.lstm(x)[0] + self.add(x, n[:, None, None], steps.float())


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (lambda _x, n, _t: torch.round(n / 2), lambda _x, n, _t: torch.floor(n / 2 + 0.5)),
        (lambda x, n, t: t > torch.ones_like(x[..., :1]).sum(1, True) - n, lambda x, n, t: t >= x.shape[1] - n),
        (lambda x, _n, _t: x[..., :1].floor() <= 1, lambda x, _n, _t: x[..., :1].floor() < 1),
    ],
    ids=["round", "counted", "floor"],
)
def test_no_rounding_decides_between_numbers_that_are_exact(
    right: Callable[..., Tensor], wrong: Callable[..., Tensor], tmp_path: Path
) -> None:
    path, example = tmp_path / "m.onnx", (torch.randn(2, 5, 3), torch.tensor([4, 3]))
    axes = {"x": {0: "batch", 1: "time"}, "n": {0: "batch"}}
    export(AtTies(wrong), path, example_inputs=example, dynamic_shapes=axes, check=False)
    verification = ModuleVerification(load(path, "cpu", threads=1), AtTies(right))
    drawn = verification.subject.case(np.random.default_rng(0), 16, 4)
    n = np.arange(16, dtype=np.int64) % 6
    expected = verification.subject.expect(drawn.changed("at ties", {"n": n}))
    assert expected is not None
    assert not replay(verification.model, expected).passed
    assert verification.explained(verification.models, expected) is None

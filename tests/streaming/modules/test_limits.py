"""Modules that are right from some number of steps on: chunks may be shorter, sequences may not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import lstm_onnx
from lstm_onnx import InputError
from lstm_onnx.streaming.proof import StreamProof

pytestmark = pytest.mark.sweep(6)


class Branch(nn.Module):
    """Zeros come before a sequence, and short ones are doubled: what a chunk gives does not show how long that is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru = nn.Conv1d(3, 4, 3), nn.GRU(4, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] < 5:
            x = x * 2
        return self.gru(self.conv(functional.pad(x.mT, (2, 0))).mT)[0]


class Mirror(Branch):
    """Its first steps come once those that are mirrored are there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mode = "reflect" if x.shape[1] > 2 else "constant"
        return self.gru(self.conv(functional.pad(x.mT, (2, 0), mode=mode)).mT)[0]


def exported(module: nn.Module, path: Path, time: object = "time") -> lstm_onnx.ExportResult:
    x = torch.randn(2, 9, 3)
    shapes = {"x": {0: "batch", 1: time}}
    return lstm_onnx.export(module, path, example_inputs=x, dynamic_shapes=shapes, states="explicit")


@pytest.mark.parametrize(("kind", "least"), [(Branch, 5), (Mirror, 3)])
def test_a_shorter_sequence_is_refused_and_shorter_chunks_are_not(
    kind: type[Branch], least: int, tmp_path: Path
) -> None:
    """However a sequence ends: as one call, with `flush`, or in `map`."""
    torch.manual_seed(0)
    module, path = kind().eval(), tmp_path / "m.onnx"
    exported(module, path)
    x = torch.randn(1, 8, 3)
    with lstm_onnx.load(path, "cpu", threads=1) as model:
        assert model.metadata.streaming is not None
        assert model.metadata.streaming.least == least
        stream = model.stream()
        parts = [stream(x[:, at : at + 1].numpy()) for at in range(8)]
        np.testing.assert_allclose(np.concatenate(parts, 1), module(x).detach().numpy(), atol=1e-6)
        short = x[:, : least - 1].numpy()
        for _ in range(3):  # a call that repeats is bound
            with pytest.raises(InputError, match=f"ends a sequence of {least - 1} steps, but the model takes {least}"):
                model.run({"x": short})
        with pytest.raises(InputError, match=f"a sequence of {least - 1} steps"):
            list(model.map([{"x": short[0]}]))
        stream.reset()
        stream(short)
        with pytest.raises(InputError, match=f"the sequence has {least - 1} steps"):
            stream.flush()


def test_verify_draws_sequences_that_a_file_takes(tmp_path: Path) -> None:
    """PyTorch's module does something else with shorter ones."""
    torch.manual_seed(0)
    module = Branch().eval()
    exported(module, tmp_path / "m.onnx")
    report = lstm_onnx.verify(module, tmp_path / "m.onnx", mutants="none")
    assert report, str(report)


def test_a_time_axis_with_a_largest_size_has_no_stream(tmp_path: Path) -> None:
    """A stream has no end, and past that size the module may do something else."""
    torch.manual_seed(0)
    result = exported(Branch().eval(), tmp_path / "m.onnx", torch.export.Dim("time", max=40))
    reason = "takes sequences of at most 40 steps, and a stream may have more"
    assert any(reason in note for note in result.notes), result.notes
    with lstm_onnx.load(tmp_path / "m.onnx", "cpu") as model, pytest.raises(InputError, match=reason):
        model.stream()


@pytest.mark.parametrize("kind", [Branch, Mirror])
def test_other_commands_take_as_many_steps_as_the_file(kind: type[Branch], tmp_path: Path) -> None:
    """A warm-up ends no sequence, and `check` tries whole ones."""
    path = tmp_path / "m.onnx"
    exported(kind().eval(), path)
    with lstm_onnx.load(path, "cpu", threads=1) as model:
        assert model.metadata.streaming is not None
        assert model.metadata.nearest_size("time", 1) == model.metadata.streaming.least > 1
        model.warm_up()
    assert lstm_onnx.check(path)


def test_what_was_not_compared_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    not_run = StreamProof(not_run="no sequence fits it")
    monkeypatch.setattr("lstm_onnx.exporter.trials.streaming.prove_stream", lambda *_: not_run)
    result = exported(Branch().eval(), tmp_path / "m.onnx")
    assert "chunks were not compared with whole sequences: no sequence fits it" in result.notes

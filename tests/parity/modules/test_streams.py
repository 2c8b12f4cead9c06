"""verify compares each chunking of a module's streams with the whole sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx.streaming.rewrite import graph
from tests.architectures.architecture import seeded
from tests.module_files import with_metadata

pytestmark = [pytest.mark.sweep(18), pytest.mark.usefixtures("without_sweeps")]

AXES = {"x": {0: "batch", 1: "time"}}


class Centred(nn.Module):
    """The mean of all steps before the LSTM, which no state carries."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x - x.mean(1, keepdim=True))[0]


class Plain(Centred):
    """The same without it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


class Smoothed(nn.Module):
    """A convolution before the LSTM, whose inputs are kept in a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv1d(4, 4, 3), nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(nn.functional.pad(x.transpose(1, 2), (2, 0)))
        return self.lstm(y.transpose(1, 2))[0]


class Silent(nn.Module):
    """A cell without a bias, whose inputs are zeros: started from zeros, it stays there."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 4, bias=False)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.cell(torch.relu(-x.abs()), state)
        return found


def exported(make: type[nn.Module], path: Path) -> nn.Module:
    module = seeded(make)()
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 9, 4), dynamic_shapes=AXES, states="explicit")
    return module


def test_every_chunking_is_compared_with_the_whole(tmp_path: Path) -> None:
    module = exported(Plain, tmp_path / "m.onnx")
    report = lstm_onnx.verify(module, tmp_path / "m.onnx", mutants="none")
    assert report
    labels = [case.label for case in report.cases if case.kind == "chunks"]
    assert "batch 3, 6 steps, states, every chunking" in labels
    assert "batch 1, 6 steps, no states, every chunking" in labels
    assert [case.label for case in report.cases if case.kind == "pool"] == ["batch 3, 6 steps, no states, in a pool"]


@pytest.mark.parametrize("names", [("rows", "time"), ("batch", "frames"), ("a", "b")])
def test_the_batch_and_time_of_a_stream_may_have_any_names(names: tuple[str, str], tmp_path: Path) -> None:
    module, axes = seeded(Plain)(), {"x": dict(enumerate(names))}
    example = torch.randn(2, 9, 4)
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=example, dynamic_shapes=axes, states="explicit")
    report = lstm_onnx.verify(module, tmp_path / "m.onnx", mutants="none")
    assert report, str(report)
    assert [case.label for case in report.cases if case.kind == "pool"] == ["batch 3, 6 steps, no states, in a pool"]


def test_a_file_that_says_it_streams_and_does_not_is_not_in_parity(tmp_path: Path) -> None:
    module = exported(Centred, tmp_path / "m.onnx")
    report = lstm_onnx.verify(module, tmp_path / "m.onnx", mutants="none")
    assert report
    assert any(note.startswith("streams were not compared: cannot be streamed: ") for note in report.notes)
    path = with_metadata(tmp_path / "lie.onnx", tmp_path / "m.onnx", not_streamable="", time_axes=("time",))
    report = lstm_onnx.verify(module, path, mutants="none")
    assert not report
    failed = {case.kind for case in report.cases if not case.passed}
    assert failed == {"chunks", "pool"}


@pytest.mark.parametrize("name", ["packed_tagger", "tied_language_model", "pos_tagger_batch_first"])
def test_lengths_and_axes_of_batch_and_time(name: str) -> None:
    """Lengths go with each chunk; where an output has batch and time as one axis, one sequence is cut."""
    from tests.architectures import ALL
    from tests.module_files import module_file

    architecture = next(item for item in ALL if item.name == name)
    report = lstm_onnx.verify(architecture.build(), module_file(name, "explicit"), mutants="none")
    assert report, str(report)
    assert sum(case.kind == "chunks" for case in report.cases) >= 2


def test_caches_are_compared_as_states_are(tmp_path: Path) -> None:
    module = exported(Smoothed, tmp_path / "m.onnx")
    x = torch.randn(2, 9, 4).numpy()
    report = lstm_onnx.verify(
        module, tmp_path / "m.onnx", mutants="quick", data=[{"x": x}], golden=tmp_path / "golden.npz"
    )
    assert report
    assert sum(case.kind == "chunks" for case in report.cases) == 18
    assert len(lstm_onnx.verify_golden(tmp_path / "m.onnx", tmp_path / "golden.npz").cases) == len(report.cases)
    found = {mutant.name: mutant.outcome for mutant in report.mutants}
    assert found["a cache of earlier steps stale"] == found["a cache of earlier steps lost"] == "rejected"


def test_a_file_whose_cache_is_wrong_is_not_in_parity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the pass had a fault, and the file was not compared when it was exported."""
    own = graph.Graph.feed
    monkeypatch.setattr(graph.Graph, "feed", lambda self, state, _value: own(self, state, state.name))
    module = seeded(Smoothed)()
    path = tmp_path / "m.onnx"
    example = torch.randn(2, 9, 4)
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=AXES, states="explicit", check=False)
    report = lstm_onnx.verify(module, path, mutants="none")
    assert not report
    assert {case.kind for case in report.cases if not case.passed} == {"chunks", "pool"}


def test_rows_that_depend_on_each_other_are_not_compared_in_a_pool(tmp_path: Path) -> None:
    class Shared(Plain):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y / y.norm(dim=0, keepdim=True)

    module, path = Shared().eval(), tmp_path / "m.onnx"
    example = torch.randn(2, 7, 4)
    lstm_onnx.export(module, path, example_inputs=(example,), dynamic_shapes=AXES, states="explicit")
    report = lstm_onnx.verify(module, path, mutants="none")
    assert report, str(report)
    assert any("chunks of" in case.label or "every chunking" in case.label for case in report.cases)
    assert any("not compared in a pool" in note for note in report.notes)


def test_single_steps_also_start_from_states_that_are_not_zero(tmp_path: Path) -> None:
    """Otherwise nothing tells the streams of a silent cell from those in which h and c are exchanged."""
    module, path = seeded(Silent)(), tmp_path / "m.onnx"
    example = {"x": torch.randn(2, 3), "state": (torch.randn(2, 4), torch.randn(2, 4))}
    axes = {"x": {0: "batch"}, "state": ({0: "batch"}, {0: "batch"})}
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=axes)
    report = lstm_onnx.verify(module, path)
    assert report, str(report)
    (mispaired,) = [mutant for mutant in report.mutants if mutant.name == "streams' states mispaired"]
    assert mispaired.case == "batch 2, chunks of 1+1+1, states"


class PackedWithState(nn.Module):
    """Takes and returns its state; its outputs end with the longest sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 6)

    def forward(self, x: Tensor, lengths: Tensor, state: Tensor) -> dict[str, Tensor]:
        packed, state = self.gru(pack_padded_sequence(x, lengths), state)
        return {"steps": pad_packed_sequence(packed)[0], "state": state}


def test_outputs_as_long_as_the_longest_sequence_are_joined(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = PackedWithState().eval(), tmp_path / "m.onnx"
    inputs = (torch.randn(5, 2, 4), torch.tensor([5, 3]), torch.randn(1, 2, 6))
    shapes = {"x": {0: "time", 1: "batch"}, "lengths": {0: "batch"}, "state": {1: "batch"}}
    lstm_onnx.export(module, path, example_inputs=inputs, dynamic_shapes=shapes)
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="none")
    assert report
    assert "chunks" in {case.kind for case in report.judged}


class Continued(nn.Module):
    """A GRU whose state is an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.gru(x, h)
        return found


def test_a_file_of_one_batch_with_states_of_any_is_not_in_parity(tmp_path: Path) -> None:
    module, path = seeded(Continued)(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path, example_inputs=(torch.randn(5, 2, 3), torch.randn(1, 2, 4)))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    onnx.save(model, path)
    assert not lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="none")


def with_cache_apart(model: onnx.ModelProto) -> str:
    """The name of the cache that a file gives, which is a value called "kept" now; a node is to be added between."""
    cache = next(str(item.name) for item in model.graph.output if "cache" in item.name)
    for node in model.graph.node:
        node.output[:] = ["kept" if name == cache else name for name in node.output]
    return cache


@pytest.mark.parametrize(
    ("axis", "where", "size", "found"),
    [
        (1, "Greater", 20, "batch 2, 130 steps, no states, a few chunkings, 65+1+1+1+1+1+1+59"),
        (1, "Equal", 11, "batch 1, 79 steps, no states, chunks of 1 to 12, 1+2+3+4+5+6+7+8+9+10+11+12+1"),
        (0, "Greater", 16, "batch 17, 5 steps, no states, single chunks, 1+1+2+1"),
    ],
    ids=["long chunks", "one size of chunks", "large batches"],
)
def test_a_cache_that_is_wrong_at_some_sizes_is_not_in_parity(
    axis: int, where: str, size: int, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lstm_onnx.parity.modules.streams._OTHER_CHUNKS", tuple(range(1, 13)))
    path = tmp_path / "m.onnx"
    module = exported(Smoothed, path)
    model = onnx.load(path)
    cache = with_cache_apart(model)
    added = [
        ("Shape", ["x"], ["size"], {"start": axis, "end": axis + 1}),
        (where, ["size", "most"], ["wrong"], {}),
        ("Cast", ["wrong"], ["change"], {"to": onnx.TensorProto.FLOAT}),
        ("Add", ["kept", "change"], [cache], {}),
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.array([size]), "most"))
    model.graph.node.extend(helper.make_node(op, i, o, **options) for op, i, o, options in added)
    onnx.save(model, path)
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="none")
    assert not report
    assert next(case.label for case in report.cases if not case.passed) == found


def test_a_cache_that_is_wrong_for_large_numbers_is_not_in_parity(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = exported(Smoothed, path)
    model = onnx.load(path)
    cache = with_cache_apart(model)
    for name, limit in (("least", -100), ("most", 100)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(limit), name))
    model.graph.node.append(helper.make_node("Clip", ["kept", "least", "most"], [cache]))
    onnx.save(model, path)
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="none")
    assert not report
    assert all("huge input, single chunks" in case.label for case in report.cases if not case.passed)

"""Parity of whole modules: right files pass, and files that are wrong in one thing do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx import ConfigError, ExportError
from lstm_onnx.parity.criterion import compare
from lstm_onnx.parity.modules.verification import ModuleVerification

pytestmark = pytest.mark.sweep(27)

Made = tuple[nn.Module, Path]


class Tagger(nn.Module):
    """Tokens with lengths; its bidirectional LSTM's states stay inside."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 6)
        self.lstm = nn.LSTM(6, 5, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 4)

    def forward(self, tokens: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=tokens.size(1))
        logits = self.head(hidden)
        return {"logits": logits, "tag": logits.argmax(-1)}


class Kept(nn.Module):
    """Its state is in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5)
        self.hidden = (torch.zeros(1, 2, 5), torch.zeros(1, 2, 5))

    def forward(self, x: Tensor) -> Tensor:
        y, self.hidden = self.lstm(x, self.hidden)
        return y


def _tagger(folder: Path) -> Made:
    torch.manual_seed(0)
    module, path = Tagger(), folder / "tagger.onnx"
    tokens = torch.arange(30).reshape(3, 10)
    shapes = {"tokens": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    lstm_onnx.export(module, path, example_inputs=(tokens, torch.tensor([10, 4, 7])), dynamic_shapes=shapes)
    return module, path


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return _tagger(tmp_path_factory.mktemp("tagger"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.manual_seed(0)
    module, path = Kept(), tmp_path_factory.mktemp("kept") / "kept.onnx"
    lstm_onnx.export(module, path, example_inputs=torch.randn(3, 2, 4), dynamic_shapes={"x": {0: "time", 1: "batch"}})
    return module, path


def _verify(module: nn.Module, path: Path) -> lstm_onnx.ParityReport:
    return lstm_onnx.verify(module, path, provider="cpu", threads=1)


def test_a_right_file_passes_over_the_whole_sweep(tagger: Made) -> None:
    report = _verify(*tagger)
    assert report, str(report)
    labels = [case.label for case in report.cases]
    assert "batch 1, time 1" in labels
    assert any(label.endswith("none of full length") for label in labels)
    assert {tensor.output for case in report.cases for tensor in case.tensors} == {"logits", "tag"}
    (note,) = report.notes
    assert note.startswith("tag was 3 in every case")


def test_states_are_given_and_left_out(kept: Made) -> None:
    report = _verify(*kept)
    assert report, str(report)
    labels = [case.label for case in report.cases]
    assert any(label.endswith(", states") for label in labels)
    assert any(label.endswith(", no states") for label in labels)
    assert {tensor.output for case in report.cases for tensor in case.tensors} == {"output", "hidden.hn", "hidden.cn"}


def test_what_is_drawn_follows_from_the_seed(tagger: Made) -> None:
    module, path = tagger
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    one, same, other = (ModuleVerification(model, module, seed=seed).cases for seed in (0, 0, 1))
    assert all(np.array_equal(a.feeds["tokens"], b.feeds["tokens"]) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a.feeds["tokens"], b.feeds["tokens"]) for a, b in zip(one, other, strict=True))
    usual = [case for case in one if case.kind == "whole" and "full length" not in case.label]
    longest = {int(case.feeds["lengths"].max()) for case in usual if "half the length" not in case.label}
    assert longest == {1, 2, 7, 12}


def _initializer(model: ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = next(item for item in model.graph.initializer if item.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))


def _gates(model: ModelProto) -> None:
    def swapped(matrix: np.ndarray) -> np.ndarray:
        i, o, f, c = np.split(matrix, 4, axis=1)
        return np.concatenate([i, f, o, c], axis=1)

    _initializer(model, "lstm/l0/R", swapped)


def _bias(model: ModelProto) -> None:
    _initializer(model, "lstm/l1/B", np.zeros_like)


def _head(model: ModelProto) -> None:
    _initializer(model, "head.bias", lambda bias: bias + np.float32(1e-3))


def _embedding(model: ModelProto) -> None:
    _initializer(model, "embedding.weight", lambda table: np.roll(table, 1, axis=0))


def _lengths(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "LSTM":
            node.input[4] = ""


def _direction(model: ModelProto) -> None:
    def exchanged(matrix: np.ndarray) -> np.ndarray:
        return matrix[::-1].copy()

    for name in ("W", "R", "B"):
        _initializer(model, f"lstm/l0/{name}", exchanged)


@pytest.mark.parametrize("mutate", [_gates, _bias, _head, _embedding, _lengths, _direction])
def test_a_wrong_file_fails(tagger: Made, mutate: Callable[[ModelProto], None], tmp_path: Path) -> None:
    module, path = tagger
    model = onnx.load(path)
    mutate(model)
    onnx.save(model, tmp_path / "wrong.onnx")
    report = _verify(module, tmp_path / "wrong.onnx")
    assert not report
    assert any(tensor.output == "logits" and not tensor.passed for case in report.cases for tensor in case.tensors)


@pytest.mark.usefixtures("without_sweeps")
def test_a_state_that_is_ignored_fails(kept: Made, tmp_path: Path) -> None:
    module, path = kept
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "LSTM":
            node.input[6] = ""
    onnx.save(model, tmp_path / "wrong.onnx")
    assert not _verify(module, tmp_path / "wrong.onnx")


def test_other_weights_are_said(tagger: Made) -> None:
    _, path = tagger
    torch.manual_seed(1)
    report = _verify(Tagger(), path)
    assert not report
    assert any("other weights" in note for note in report.notes)


def test_the_wrong_module_is_an_error(tagger: Made) -> None:
    with pytest.raises(ConfigError, match="is the file this module's"):
        lstm_onnx.verify(Kept(), tagger[1], example_inputs=torch.randn(3, 2, 4), provider="cpu")


def test_a_module_that_fails_on_the_inputs_of_a_file_asks_whose_file_it_is(tagger: Made) -> None:
    says = r"tagger\.onnx describes, tokens, lengths; is it this module's file\? if so, pass example_inputs\)"
    with pytest.raises(ExportError, match=says):
        lstm_onnx.verify(nn.LSTM(4, 5), tagger[1], provider="cpu")


def test_a_report_without_cases_says_why_the_module_did_not_run(tmp_path: Path) -> None:
    path, shapes = tmp_path / "states.onnx", {"input": {0: "time", 1: "batch"}}
    module, example = nn.Sequential(nn.LSTM(4, 5)), (torch.randn(3, 2, 4),)
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=shapes, states="explicit")
    report = lstm_onnx.verify(nn.Sequential(nn.Identity(), module[0]), path, provider="cpu", mutants="none")
    assert not report
    why = "the file has a state of 0, which does not exist in the module"
    assert any("cases; in the last of them, " in note and f": {why}" in note for note in report.notes)


def test_a_file_that_says_nothing_of_its_inputs_needs_an_example(tagger: Made, tmp_path: Path) -> None:
    module, path = tagger
    model = onnx.load(path)
    del model.metadata_props[:]
    model.producer_name = ""
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(ConfigError, match="pass example_inputs"):
        _verify(module, tmp_path / "bare.onnx")
    example = (torch.arange(14).reshape(2, 7), torch.tensor([7, 7]))
    assert lstm_onnx.verify(module, tmp_path / "bare.onnx", example_inputs=example, provider="cpu", threads=1)


def test_the_module_is_as_it_was(kept: Made) -> None:
    module, path = kept
    hidden, mode = module.hidden, module.training
    _verify(module, path)
    assert module.hidden is hidden
    assert module.training == mode
    assert all(parameter.dtype == torch.float32 for parameter in module.parameters())
    assert torch.get_default_dtype() == torch.float32


def test_integers_may_tip_over_in_few_places_only() -> None:
    reference = np.arange(200)
    one_off, many_off = reference.copy(), reference.copy()
    one_off[3] += 1
    many_off[::5] += 1
    assert compare("y", one_off, reference, reference, dtype="float32", scale=1).passed
    failed = compare("y", many_off, reference, reference, dtype="float32", scale=1)
    assert not failed.passed
    assert failed.problem == "differs in 40 of 200 integers"
    assert not compare("y", reference[:1] + 1, reference[:1], reference[:1], dtype="float32", scale=1).passed
    # Where PyTorch in float32 differs from itself in float64 there is nothing to be right about.
    assert compare("y", many_off, many_off, reference, dtype="float32", scale=1).passed


class Reader(nn.Module):
    """Tokens, of which the last state is what counts."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[1][0][-1])


@pytest.mark.parametrize("token", [0, 1])
def test_equal_tokens_of_an_example_are_drawn_as_two(token: int, tmp_path: Path) -> None:
    """Or the direction in which they are read would not show."""
    torch.manual_seed(0)
    module, path = Reader(20), tmp_path / "m.onnx"
    tokens = torch.full((2, 4), token)
    shapes = {"tokens": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=tokens, dynamic_shapes=shapes)
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1)
    assert report, str(report)
    assert "run backwards" in {mutant.name for mutant in report.mutants if mutant.outcome == "rejected"}


def test_a_module_that_knows_one_token_is_left_with_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Reader(1), tmp_path / "m.onnx"
    shapes = {"tokens": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=torch.zeros(2, 4, dtype=torch.int64), dynamic_shapes=shapes)
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1)
    assert report.in_parity
    assert report.notes == ()
    assert {mutant.name for mutant in report.survivors} == {"run backwards"}


class Flag(nn.Module):
    """A number without axes is one of the few that the module knows; others make its results NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5)

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        return self.lstm(x)[0] * torch.where(rate == 1, 1.0, float("nan"))


def test_a_number_without_axes_is_tried_beside_the_examples(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Flag(), tmp_path / "m.onnx"
    example = {"x": torch.randn(3, 2, 4), "rate": torch.tensor(1)}
    shapes = {"x": {0: "time", 1: "batch"}, "rate": None}
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=shapes)
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    done = ModuleVerification(model, module)
    assert {1} < {int(case.feeds["rate"]) for case in done.cases}
    assert all(result.passed for result in done.results())


def test_streams_of_states_that_are_arguments_start_where_the_runtimes_do(tmp_path: Path) -> None:
    """A forward that takes and returns its states is compared in chunks and in a pool, from zeros."""
    from tests.module_files import module_file

    path = module_file("tied_language_model")
    from tests.architectures import ALL

    architecture = next(item for item in ALL if item.name == "tied_language_model")
    report = lstm_onnx.verify(
        architecture.build(), path, example_inputs=architecture.inputs(2, 4), provider="cpu", threads=1
    )
    assert report, str(report)
    assert {case.kind for case in report.cases} >= {"whole", "chunks"}


def test_a_recurrent_module_that_is_never_called_is_no_part_of_it(tmp_path: Path) -> None:
    class Half(nn.Module):
        """One half of a pair, as of an encoder and a decoder in one class."""

        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.LSTM(4, 6), nn.LSTM(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)[0]

    path = tmp_path / "m.onnx"
    shapes = {"x": {0: "time", 1: "batch"}}
    lstm_onnx.export(Half().eval(), path, example_inputs=torch.randn(5, 2, 4), dynamic_shapes=shapes)
    torch.manual_seed(0)
    module = Half().eval()
    assert not lstm_onnx.verify(module, path, mutants="none")
    lstm_onnx.export(module, path, example_inputs=torch.randn(5, 2, 4), dynamic_shapes=shapes)
    assert lstm_onnx.verify(module, path)


def test_the_longest_of_the_least_lengths_fills_the_time(tagger: Made) -> None:
    """Files are only right there, where a module joins what it unpacked with its padded input."""
    module, path = tagger
    done = ModuleVerification(lstm_onnx.load(path, provider="cpu", threads=1), module)
    (case,) = [case for case in done.cases if ", least of " in case.label]
    assert case.feeds["lengths"].tolist() == [case.feeds["tokens"].shape[1], 1, 1]


class Counted(nn.Module):
    """A buffer without axes that each call changes; it starts at 2."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 2)
        self.register_buffer("calls", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.lstm(x)[0] * self.calls


def test_a_state_without_axes_is_compared(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Counted(), tmp_path / "counted.onnx"
    shapes = {"x": {0: "time", 1: "batch"}}
    lstm_onnx.export(module, path, example_inputs=(torch.randn(4, 2, 3),), dynamic_shapes=shapes)
    assert lstm_onnx.verify(module, path, mutants="none")
    x = torch.randn(4, 2, 3)
    expected = Counted()  # the file starts at 2 at each call
    expected.load_state_dict(module.state_dict())
    with torch.no_grad():
        np.testing.assert_allclose(
            lstm_onnx.load(path, provider="cpu").run({"x": x.numpy()})["output"], expected(x), atol=1e-6
        )


def test_a_state_that_an_earlier_call_left_is_of_its_batch(tmp_path: Path) -> None:
    """Cases of another batch without states are none that the module itself could run."""
    module, path = Kept(), tmp_path / "kept.onnx"
    with torch.no_grad():
        module(torch.randn(3, 2, 4))
    shapes = {"x": {0: "time", 1: "batch"}}
    lstm_onnx.export(module, path, example_inputs=torch.randn(3, 2, 4), dynamic_shapes=shapes, check=False)
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="none")
    assert report
    assert any("the module itself fails in" in note for note in report.notes)
    assert any("in the last of them, time 4, batch 3" in note and "starts as" in note for note in report.notes)

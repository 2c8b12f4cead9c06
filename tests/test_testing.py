"""Parity as an assertion, without any test runner."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import testing
from lstm_onnx.errors import ConfigError, ExportError, FileError, LSTMOnnxError, ModelError
from lstm_onnx.testing import ParityError, assert_parity

from .parity_files import net, parity_files
from .test_imports import assert_without, imported_by

pytestmark = pytest.mark.sweep(5)

OPTIONS = {"provider": "cpu", "threads": 1, "mutants": "none"}


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


@pytest.fixture
def folder() -> Path:
    return parity_files()


@pytest.fixture(params=["module", "toml"])
def source(request: pytest.FixtureRequest, folder: Path) -> nn.LSTM | Path:
    return net() if request.param == "module" else folder / "net.toml"


@pytest.mark.parametrize("opened", [None, Path, lstm_onnx.load], ids=["fresh", "path", "model"])
def test_a_right_model_gives_its_report(folder: Path, source: nn.LSTM | Path, opened: Callable | None):
    report = assert_parity(source, opened and opened(folder / "net.onnx"), **OPTIONS)
    assert report
    assert report.file == (str(folder / "net.onnx") if opened else "a fresh export")
    assert report.source == ("LSTM" if isinstance(source, nn.LSTM) else str(source))


def test_a_callable_and_a_module_with_its_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "lstm_onnx_made.py").write_text("import torch\ndef make():\n    return torch.nn.LSTM(3, 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert assert_parity("lstm_onnx_made:make", **OPTIONS).source == "lstm_onnx_made:make"
    assert assert_parity(Tagger(), example_inputs=torch.randn(5, 2, 4), **OPTIONS).source == "Tagger"


def test_mutants_and_data_are_passed_on(folder: Path, source: nn.LSTM | Path):
    feeds = {"input": torch.ones(2, 1, 4).numpy()}
    report = assert_parity(source, folder / "net.onnx", provider="cpu", threads=1, seed=5, data=[feeds])
    assert report.mutants
    assert [case.kind for case in report.cases].count("data") == 1


def test_a_wrong_file_fails_with_the_report(folder: Path, source: nn.LSTM | Path):
    with pytest.raises(ParityError) as raised:
        assert_parity(source, folder / "wrong.onnx", **OPTIONS)
    assert isinstance(raised.value, AssertionError)
    assert not raised.value.report
    assert str(raised.value) == str(raised.value.report)
    assert "NOT in parity" in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # noqa: S301 - our own, for pools


def test_a_file_without_the_lengths_that_its_source_asks_for_fails(folder: Path, tmp_path: Path):
    (tmp_path / "net.toml").write_text((folder / "net.toml").read_text() + "[export]\nlengths = true\n")
    with pytest.raises(ParityError, match="asks for the input lengths"):
        assert_parity(tmp_path / "net.toml", folder / "net.onnx", **OPTIONS)


def test_golden_files(folder: Path):
    report = assert_parity(folder / "net.onnx", golden=folder / "net.npz", provider="cpu", threads=1)
    assert {case.kind for case in report.cases} >= {"whole", "chunks"}
    with lstm_onnx.load(folder / "net.onnx", provider="cpu", threads=1) as model:
        assert assert_parity(model, golden=folder / "net.npz")
    assert not report.mutants
    tried = assert_parity(folder / "net.onnx", golden=folder / "net.npz", provider="cpu", threads=1, mutants="quick")
    assert tried.mutants
    with pytest.raises(ParityError, match="NOT in parity"):
        assert_parity(folder / "wrong.onnx", golden=folder / "net.npz", provider="cpu", threads=1)


def test_golden_files_need_no_torch(folder: Path):
    script = """
import sys
from lstm_onnx.testing import assert_parity
assert assert_parity(sys.argv[1], golden=sys.argv[2], provider="cpu", threads=1)
"""
    assert_without(imported_by(script, str(folder / "net.onnx"), str(folder / "net.npz")), "torch", "onnx")


def test_the_public_names():
    assert testing.__all__ == ["ParityError", "assert_parity"]
    assert not issubclass(ParityError, LSTMOnnxError)  # the tool worked, and the answer is no


def test_the_module_imports_nothing_heavy():
    assert_without(imported_by("import lstm_onnx.testing"), "numpy", "onnx", "onnxruntime", "torch", "pytest", "click")


BAD = [
    ("nowhere.toml", {}, FileError, "nowhere.toml: No such file or directory"),
    (
        "net.onnx",
        {},
        ConfigError,
        "is an .onnx file, which cannot be exported; give the int8 or float16 file",
    ),
    ("net.toml", {"file": "nowhere.onnx"}, FileError, "nowhere.onnx: No such file or directory"),
    ("net.toml", {"file": "net.toml"}, ModelError, "net.toml"),
    ("net.toml", {"mutants": "some"}, ConfigError, "one of none, quick, all"),
    ("net.toml", {"example_inputs": 1}, ConfigError, "leave example_inputs out"),
    ("net.onnx", {"golden": "nowhere.npz"}, FileError, "nowhere.npz: No such file or directory"),
    ("net.onnx", {"golden": "net.npz", "file": "net.onnx"}, ConfigError, "give it with the .onnx file alone"),
    ("net.onnx", {"golden": "net.npz", "seed": 3}, ConfigError, "holds its own inputs"),
    ("net.onnx", {"golden": "net.npz", "data": [{}]}, ConfigError, "give it with the .onnx file alone"),
    (Tagger(), {}, ExportError, "pass example_inputs"),
]


@pytest.mark.parametrize(("given", "options", "kind", "said"), BAD, ids=[said for _, _, _, said in BAD])
def test_what_cannot_be_compared_is_one_line_and_no_maze(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: str | nn.Module, options: dict, kind: type, said: str
):
    monkeypatch.chdir(folder)
    with pytest.raises(LSTMOnnxError) as raised:
        assert_parity(given, **{**OPTIONS, **options})
    assert type(raised.value) is kind
    assert said in str(raised.value)
    shown = "".join(traceback.format_exception(raised.value))
    assert shown.count('File "') == 2, shown  # this test, and assert_parity

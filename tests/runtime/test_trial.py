"""`load(trial=True)`: a file that ends or hangs who opens it is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstm_onnx
from lstm_onnx.errors import FileError, ModelError, ProviderError
from lstm_onnx.isolation.limits import Limits
from lstm_onnx.parity.golden import verify_golden
from tests.hostile_files import ENDING, FLOAT, one_node, written

from .models import exported

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX exit statuses")


def ours(folder: Path) -> Path:
    exported(folder / "m.onnx")
    return folder / "m.onnx"


KILLS = "Max with an input of no name"


@pytest.mark.parametrize(
    ("name", "stage"), [(KILLS, "the first run"), ("GatherND of negative batch_dims", "session creation")]
)
def test_a_file_that_ends_the_process_is_an_error(name: str, stage: str, tmp_path: Path):
    path = written(tmp_path, ENDING[name]())
    said = rf"m\.onnx: a child process that opened it ended the process \(SIG\w+\) in {stage}"
    for trial in (True, None):  # None tries what lstm-onnx did not write
        with pytest.raises(ModelError, match=said):
            lstm_onnx.load(path, "cpu", trial=trial)


def test_a_trial_is_not_the_default_and_such_a_file_does_end_the_process(tmp_path: Path):
    path = written(tmp_path, ENDING[KILLS]())
    code = "import sys, lstm_onnx; lstm_onnx.load(sys.argv[1], 'cpu').warm_up()"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, timeout=60, check=False)
    assert done.returncode < 0


def test_a_good_file_is_loaded_as_without(tmp_path: Path):
    path = ours(tmp_path)
    x = np.ones((3, 2, 4), np.float32)
    threads: Any = np.int64(1)  # as of a configuration that numpy has read
    tried, plain = lstm_onnx.load(path, "cpu", threads, trial=True), lstm_onnx.load(path, "cpu")
    assert np.array_equal(tried(x)[0], plain(x)[0])
    other = written(tmp_path, one_node("Relu", ["x"], given={"x": (FLOAT, ["n"])}))
    assert lstm_onnx.load(other, "cpu", trial=None).run({"x": np.array([-1, 2], np.float32)})["y"].tolist() == [
        0.0,
        2.0,
    ]


def test_none_does_not_try_what_lstm_onnx_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = ours(tmp_path)
    monkeypatch.setattr("lstm_onnx.runtime.trial.require_trial", lambda *_: pytest.fail("tried"))
    lstm_onnx.load(path, "cpu", trial=None)
    path.write_bytes(path.read_bytes().replace(b"l0/LSTM", b"l0/MTSL"))
    with pytest.raises(pytest.fail.Exception, match="tried"):
        lstm_onnx.load(path, "cpu", trial=None)


def test_a_model_that_cannot_run_at_the_smallest_sizes_is_loaded(tmp_path: Path):
    """That is a matter of the sizes, and of who asks for them."""
    path = written(
        tmp_path, one_node("Reshape", ["x", "s"], given={"x": (FLOAT, ["n"])}, stored={"s": np.array([2, 3])})
    )
    model = lstm_onnx.load(path, "cpu", trial=True)
    assert model.run({"x": np.zeros(6, np.float32)})["y"].shape == (2, 3)


def test_errors_of_opening_are_those_of_load(tmp_path: Path):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ModelError, match="ONNX Runtime cannot open it"):
        lstm_onnx.load(tmp_path / "text.onnx", trial=True)
    with pytest.raises(FileError, match="No such file"):
        lstm_onnx.load(tmp_path / "none.onnx", trial=True)
    with pytest.raises(ProviderError, match="is unknown"):
        lstm_onnx.load(tmp_path / "text.onnx", b"cpu", trial=True)


def test_a_session_that_never_opens_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = ours(tmp_path)
    monkeypatch.setattr("lstm_onnx.runtime.trial.Limits.of", lambda _: Limits(stage=0.001, total=0.001))
    with pytest.raises(ModelError, match=r"a child process that opened it took longer than 0\.001 s in session"):
        lstm_onnx.load(path, "cpu", trial=True)


def test_verifying_a_file_from_elsewhere_tries_it(tmp_path: Path):
    from torch import nn

    golden = tmp_path / "g.npz"
    module = nn.LSTM(4, 3)
    lstm_onnx.export(module, tmp_path / "own.onnx")
    assert lstm_onnx.verify(module, tmp_path / "own.onnx", mutants="none", golden=golden)
    path = written(tmp_path, ENDING["GatherND of negative batch_dims"]())
    for verify in (lambda: verify_golden(path, golden, provider="cpu"), lambda: lstm_onnx.verify(module, path)):
        with pytest.raises(ModelError, match="a child process that opened it ended the process"):
            verify()

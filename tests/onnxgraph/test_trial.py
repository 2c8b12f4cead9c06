"""A file of others is tried in a child process before onnx and ONNX Runtime read it in the caller's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lstm_onnx import FileError, ModelError, make_generating, make_streaming, quantize, repair
from lstm_onnx.isolation.limits import Limits
from tests.hostile_files import ENDING, FLOAT, hanging, one_node, written
from tests.runtime.models import exported

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX exit statuses")
READERS: dict[str, Callable[..., object]] = {
    "make_generating": lambda *paths, **options: make_generating(*paths, input="x", output="y", **options),
    "make_streaming": lambda *paths, **options: make_streaming(*paths, time={"x": 0}, **options),
    "quantize": quantize,
    "repair": repair,
}


@pytest.mark.parametrize("name", ["make_streaming", "repair"])
def test_a_file_that_ends_the_process_is_an_error(name: str, tmp_path: Path) -> None:
    source = written(tmp_path, ENDING["OneHot of an empty depth"]())
    with pytest.raises(ModelError, match=r"m\.onnx: a child process that opened it ended the process \(SIG"):
        READERS[name](source, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("name", READERS)
def test_inputs_that_nobody_has_room_for_are_not_drawn(name: str, tmp_path: Path) -> None:
    model = one_node("Identity", ["x"], given={"x": (FLOAT, [2**40])})
    with pytest.raises(ModelError, match=r"m\.onnx: its inputs hold 1099511627776 numbers or more"):
        READERS[name](written(tmp_path, model), tmp_path / "out.onnx", trial=False)
    assert not (tmp_path / "out.onnx").exists()


def test_a_file_that_hangs_shape_inference_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.runtime.trial.Limits.of", lambda _: Limits(stage=2.0))
    with pytest.raises(ModelError, match=r"a child process that opened it took longer than 2 s in shape inference"):
        repair(written(tmp_path, hanging()), tmp_path / "out.onnx")


@pytest.mark.parametrize("name", READERS)
def test_what_is_tried(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.runtime.trial.require_trial", lambda *_: pytest.fail("tried"))
    monkeypatch.setattr("lstm_onnx.onnxgraph.trial.require_trial", lambda *_: pytest.fail("tried"))
    exported(tmp_path / "ours.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    ours, theirs, out = (tmp_path / name for name in ("ours.onnx", "text.onnx", "out.onnx"))
    for source, trial in ((theirs, None), (theirs, True), (ours, True)):
        with pytest.raises(pytest.fail.Exception, match="tried"):
            READERS[name](source, out, trial=trial)
    with pytest.raises(ModelError):
        READERS[name](theirs, out, trial=False)
    with pytest.raises(FileError, match="No such file"):
        READERS[name](tmp_path / "none.onnx", out)
    with contextlib.nullcontext() if name == "quantize" else pytest.raises(ModelError):
        READERS[name](ours, out)  # and is not tried

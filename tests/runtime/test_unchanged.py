"""A file that another program writes while something is made of it, or said of it, is refused."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import lstm_onnx
from lstm_onnx.atomic_io import atomic_write
from lstm_onnx.checksum import is_intact
from lstm_onnx.deploy import deploy_triton
from lstm_onnx.deploy.web import deploy_web
from lstm_onnx.errors import ModelError
from lstm_onnx.inspect.code import program
from lstm_onnx.runtime import open_model
from lstm_onnx.runtime.file_digest import file_digest, files_beside
from lstm_onnx.runtime.unchanged import of_one_file, unchanged

from .models import exported, lookup

USES: dict[str, tuple[str, str, Callable[[Path, Path], Any]]] = {
    "quantized": ("lstm_onnx.quantization.int8_file", "load", lstm_onnx.quantize),
    "converted": (
        "lstm_onnx.streaming.convert",
        "load_inlined",
        lambda file, out: lstm_onnx.make_streaming(file, out, time={"input": 0}),
    ),
    "repaired": ("lstm_onnx.repairs.file", "load", lstm_onnx.repair),
    "deployed": ("lstm_onnx.deploy.triton", "load", deploy_triton),
    "deployed for browsers": ("lstm_onnx.deploy.web", "load", deploy_web),
    "run": ("lstm_onnx.inspect.code", "load", lambda file, _: program(file, "python")),
    "inspected": ("lstm_onnx.inspect.file", "load_inlined", lambda file, _: lstm_onnx.inspect(file)),
    "checked": ("lstm_onnx.check.isolated", "_results_until", lambda file, _: lstm_onnx.check(file, seconds=1e-3)),
}
"""By what is done with a file: a function that is called on the way, and the call."""


def _replace(path: Path, content: bytes) -> None:
    """As an export does."""
    other = path.with_name("other")
    other.write_bytes(content)
    os.replace(other, path)


def _with_external_data(path: Path, least: int = 0) -> Path:
    """The file that holds its weights of so many bytes or more."""
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=least)
    return path.with_name("m.data")


@pytest.mark.parametrize("written", [_replace, Path.write_bytes], ids=["replaced", "in place"])
@pytest.mark.parametrize("use", USES)
def test_a_file_that_is_written_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str, written: Callable[[Path, bytes], Any]
) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "out"
    exported(path, input_size=16, hidden_size=16)
    content = path.read_bytes()
    name, inner, call = USES[use]
    module = importlib.import_module(name)
    function = getattr(module, inner)

    def writing(*args: Any, **options: Any) -> Any:
        found = function(*args, **options)
        written(path, content)
        return found

    monkeypatch.setattr(module, inner, writing)
    verb = use.split()[0]
    with pytest.raises(ModelError, match=rf"m\.onnx: was changed while it was {verb}; try again"):
        call(path, out)
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


def test_so_are_weights_in_another_file(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx")
    data = _with_external_data(tmp_path / "m.onnx")
    assert files_beside(tmp_path / "m.onnx") == [str(data)]

    @of_one_file("read")
    def rewrite(path: Path) -> None:
        with atomic_write(path.with_name("made")) as stream:
            stream.write(b"of the old weights")
            data.write_bytes(bytes(data.stat().st_size))

    with pytest.raises(ModelError, match="was changed while it was read; try again"):
        rewrite(path=tmp_path / "m.onnx")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["m.data", "m.onnx"]


def test_other_errors_stay_and_nothing_is_held_back_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    exported(path)
    with pytest.raises(ValueError, match="its own"), unchanged(path, "read"):
        raise ValueError("its own")
    path.write_bytes(path.read_bytes())
    with atomic_write(tmp_path / "made") as stream:
        stream.write(b"x")
    assert (tmp_path / "made").exists()


def test_a_file_that_is_replaced_after_its_trial_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    exported(path)
    monkeypatch.setattr("lstm_onnx.runtime.trial.require_trial", lambda *_: _replace(path, b"anything"))
    monkeypatch.setattr(open_model, "open_session", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(ModelError, match="was changed while it was loaded; try again"):
        lstm_onnx.load(path, "cpu", trial=True)


def test_an_error_of_a_file_that_is_replaced_meanwhile_is_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export removes the data of the model that it replaces."""
    path = tmp_path / "m.onnx"
    exported(path)

    def opened(*_: Any, **__: Any) -> Any:
        _replace(path, b"the new model")
        raise ModelError("its data does not exist", path=path)

    monkeypatch.setattr(open_model, "open_session", opened)
    with pytest.raises(ModelError, match="was changed while it was loaded; try again"):
        lstm_onnx.load(path, "cpu")


def test_a_file_that_is_cut_short_while_it_is_read_ends_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a copy into the same file: it would, mapped into memory."""
    path = tmp_path / "m.onnx"
    exported(path)
    whole = path.read_bytes()
    (tmp_path / "large.onnx").write_bytes(whole + bytes(2**25))
    for size in (2**25, 2**12, 0):
        path = Path(shutil.copy(tmp_path / "large.onnx", tmp_path / "cut.onnx"))
        monkeypatch.setattr(os, "fstat", lambda number, size=size: (os.truncate(number, size), os.stat(number))[1])  # noqa: PTH116
        assert not is_intact(path)
        monkeypatch.undo()


def test_names_of_weights_are_found_wherever_they_are(tmp_path: Path) -> None:
    """Also across the pieces in which a file is read."""
    (tmp_path / "w.bin").write_bytes(b"w")
    entry = b"\x0a\x08location\x12\x05w.bin"
    for at in (*range(2**20 - len(entry) - 1, 2**20 + 2), 0, 2**21):
        (tmp_path / "m.onnx").write_bytes(bytes(at) + entry + b"behind" * 1000)
        assert files_beside(tmp_path / "m.onnx") == [str(tmp_path / "w.bin")], at
    before = file_digest(tmp_path / "m.onnx")
    (tmp_path / "w.bin").write_bytes(np.ones(3).tobytes())
    assert file_digest(tmp_path / "m.onnx") != before


def test_weights_that_are_written_in_place_later_change_no_open_model(tmp_path: Path) -> None:
    """ONNX Runtime maps them into memory by itself."""
    path = tmp_path / "m.onnx"
    lookup(path).close()
    data = _with_external_data(path, 64)
    with lstm_onnx.load(path, "cpu") as model:
        feeds = {"x": np.array([[7]]), "state": np.zeros((1, 2), np.float32)}
        data.write_bytes(bytes(data.stat().st_size))
        assert model.run(feeds)["y"].tolist() == [[14, 15]]


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege")
def test_a_link_that_leads_out_of_the_folder_is_still_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    lookup(tmp_path / "in/m.onnx").close()
    data = _with_external_data(tmp_path / "in/m.onnx", 64)
    data.rename(tmp_path / "w")
    data.symlink_to(tmp_path / "w")
    with pytest.raises(ModelError, match=r"in/m\.onnx"):
        lstm_onnx.load(tmp_path / "in/m.onnx", "cpu")

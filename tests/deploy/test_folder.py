from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lstm_onnx.deploy.folder import files_together
from lstm_onnx.errors import FileError


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_files_appear_together_at_the_end(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"copied")
    folder = tmp_path / "a" / "b"
    with files_together(folder, {"inner/copy": source, "page": b"text"}):
        assert not {"inner/copy", "page"} & _names(folder)
    assert (folder / "inner" / "copy").read_bytes() == b"copied"
    assert (folder / "page").read_bytes() == b"text"
    assert _names(folder) == {"inner", "inner/copy", "page"}


def test_a_file_that_cannot_be_read_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"before")
    with (
        pytest.raises(FileError, match=r"missing: cannot be read"),
        files_together(tmp_path, {"inner/copy": tmp_path / "missing", "model": b"new", "page": b"new"}),
    ):
        pass
    assert _names(tmp_path) == {"page"}
    assert (tmp_path / "page").read_bytes() == b"before"


@pytest.mark.skipif(os.name != "posix", reason="Windows has no locks for folders")
def test_files_of_two_writers_never_mix(tmp_path: Path) -> None:
    def write(content: bytes) -> None:
        with files_together(tmp_path, {"page": content}, also=["model"]):
            (tmp_path / "model").write_bytes(content)

    second = threading.Thread(target=write, args=(b"second",))
    with files_together(tmp_path, {"page": b"first"}, also=["model"]):
        second.start()
        second.join(0.2)
        (tmp_path / "model").write_bytes(b"first")
    second.join()
    assert {(tmp_path / name).read_bytes() for name in ("page", "model")} == {b"second"}


def test_a_block_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="full"), files_together(tmp_path / "a" / "b", {"page": b"new"}, also=["c/d"]):
        raise FileError("full")
    assert _names(tmp_path) == set()


def test_a_folder_that_cannot_be_made_leaves_none_above_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    names = {"page": b"", "a/b/c": b""}
    (tmp_path / "web" / "a").mkdir(parents=True)
    (tmp_path / "web" / "a" / "b").touch()
    before = _names(tmp_path)
    with pytest.raises(FileError, match="is not a folder"), files_together(tmp_path / "web", names):
        pass
    with pytest.raises(FileError, match="is not a folder"), files_together(tmp_path / "file" / "web", names):
        pass
    assert _names(tmp_path) == before

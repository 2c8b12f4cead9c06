from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from lstm_onnx import FileError
from lstm_onnx.files import atomic_write, readable_file


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_write(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert _names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("error", [ValueError("stop"), KeyboardInterrupt()])
def test_a_failure_leaves_everything_as_it_was(existing: bool, error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    if existing:
        path.write_bytes(b"old")
    with pytest.raises(type(error)), atomic_write(path) as stream:  # noqa: PT012 - the block is what is tested
        stream.write(b"half")
        raise error
    assert _names(tmp_path) == (["a.bin"] if existing else [])
    assert not existing or path.read_bytes() == b"old"


def test_a_full_disk_is_a_file_error(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with (
        pytest.raises(FileError, match=r"a\.bin: cannot be written: No space left.*nothing was changed"),
        atomic_write(path),
    ):
        raise OSError(28, "No space left on device")
    assert _names(tmp_path) == []


def test_the_mode_of_a_replaced_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with atomic_write(path) as stream:
        stream.write(b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_bytes() == b"new"


def test_a_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "sub" / "real.bin", tmp_path / "link.bin"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link.symlink_to(target)
    with atomic_write(link) as stream:
        stream.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_pipe_is_written_to_directly(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    with atomic_write(pipe) as stream:
        stream.write(b"through")
    reader.join(10)
    assert got == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "is a directory"), (tmp_path / "no" / "a.bin", "does not exist; make it first")):
        with pytest.raises(FileError, match=words), atomic_write(path):
            pytest.fail("opened")
    assert _names(tmp_path) == []


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"  # the last to end
    assert _names(tmp_path) == ["a.bin"]


def test_a_readable_file_is_a_file_with_something_in_it(tmp_path: Path) -> None:
    good, empty = tmp_path / "good", tmp_path / "empty"
    good.write_bytes(b"x")
    empty.touch()
    assert readable_file(str(good), "a file") == good
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path, "is a directory"), (empty, "is empty")):
        with pytest.raises(FileError, match=f"{path}: .*{words}.*; expected a thing"):
            readable_file(path, "a thing")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read and write everything")
def test_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(FileError, match="permission denied"):
        readable_file(path, "a file")

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from lstm_onnx import FileError
from lstm_onnx import atomic_io as files
from lstm_onnx.atomic_io import (
    atomic_write,
    make_folder,
    readable_file,
    require_apart,
    require_writable,
    temporary_folder,
)


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
    reader.join(60)
    assert got == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_that_nobody_reads_is_no_place_to_wait_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "READER_SECONDS", 0.1)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileError, match="it is a pipe that no process has opened for reading"), atomic_write(pipe):
        pytest.fail("opened")


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, words in (
        (tmp_path, "is a directory"),
        (tmp_path / "no" / "a.bin", "does not exist; make it first"),
        (tmp_path / "file" / "a.bin", "file is not a folder; name a file in one"),
    ):
        with pytest.raises(FileError, match=words), atomic_write(path):
            pytest.fail("opened")
    assert _names(tmp_path) == ["file"]


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


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    pointer = tmp_path / "model.onnx"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", encoding="utf-8")
    with pytest.raises(FileError, match=r"model.onnx: is a pointer of Git LFS .*; run git lfs pull$"):
        readable_file(pointer, "an .onnx file")


def test_the_error_of_a_missing_file_has_its_path(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        readable_file(tmp_path / "none", "a file")
    assert caught.value.path == str(tmp_path / "none")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read and write everything")
def test_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(FileError, match="permission denied"):
        readable_file(path, "a file")


def test_long_names_can_be_written(tmp_path: Path) -> None:
    for name in ("n" * 255, "ü" * 127):
        with atomic_write(tmp_path / name) as stream:
            stream.write(b"x")
        assert _names(tmp_path) == [name]
        (tmp_path / name).unlink()
    with pytest.raises(FileError, match="File name too long; name another file"):
        require_writable(tmp_path / ("n" * 256))


_KILLED = """
import os, sys
from lstm_onnx.atomic_io import atomic_write
with atomic_write(sys.argv[1]) as stream:
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGKILL")
def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path, other = tmp_path / "a.bin", tmp_path / "b.bin"
    for target in (path, path, other):
        subprocess.run([sys.executable, "-c", _KILLED, target], check=False)
    left = _names(tmp_path)
    assert len(left) == 2  # the second one has removed the first one's
    assert all(name.endswith(".tmp") for name in left)
    with atomic_write(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"
    (kept,) = set(_names(tmp_path)) - {"a.bin"}  # that of another target may still be wanted
    with atomic_write(other) as stream:
        stream.write(b"new")
    assert _names(tmp_path) == ["a.bin", "b.bin"]
    assert kept in left


def test_what_a_living_process_is_writing_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with (
        subprocess.Popen(
            [sys.executable, "-c", _KILLED.replace("os.kill(os.getpid(), 9)", "print(flush=True); input()"), path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        with atomic_write(path) as stream:
            stream.write(b"mine")
        assert len(_names(tmp_path)) == 2
        process.communicate("\n", timeout=60)
    assert path.read_bytes() == b"half"  # the last to end
    assert _names(tmp_path) == ["a.bin"]


def test_a_file_taken_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    lock = files._lock

    def late(descriptor: int, *, wait: bool = True) -> bool:
        if not taken:
            (name,) = _names(tmp_path)
            taken.append(name)
            (tmp_path / name).unlink()
        return lock(descriptor, wait=wait)

    monkeypatch.setattr(files, "_lock", late)
    with atomic_write(tmp_path / "a.bin") as stream:
        stream.write(b"x")
    assert taken
    assert _names(tmp_path) == ["a.bin"]


def test_links_that_lead_nowhere_or_back(tmp_path: Path) -> None:
    loop, one, other, dangling = (tmp_path / name for name in ("loop", "one", "other", "dangling"))
    loop.symlink_to(loop)
    one.symlink_to(other)
    other.symlink_to(one)
    dangling.symlink_to(tmp_path / "new")
    for path in (loop, one):
        with pytest.raises(FileError, match="is a link that leads back to itself; name another file"):
            require_writable(path)
        with pytest.raises(FileError, match="leads back to itself"), atomic_write(path):
            pytest.fail("opened")
        assert path.is_symlink()
    with atomic_write(dangling) as stream:
        stream.write(b"x")
    assert (tmp_path / "new").read_bytes() == b"x"
    assert dangling.is_symlink()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "is empty; expected a file to write"),
        ("new/", "names a folder; name a file"),
        ("socket", "is a socket"),
        ("a\0b", "is not a path"),
        ("a\ud800", "is not a path"),
        ("file/a", "file is not a folder; name a file in one"),
    ],
)
def test_what_is_no_place_for_a_file(path: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        with pytest.raises(FileError, match=words):
            require_writable(path)
    assert _names(tmp_path) == ["file", "socket"]


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def access(path: str | os.PathLike[str], mode: int) -> bool:
        asked.append((Path(path), mode))
        return False

    monkeypatch.setattr(os, "access", access)  # which lets root do all
    with pytest.raises(FileError, match=r"the folder .* may not be written to; name a file in another one"):
        require_writable(tmp_path / "a")
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]


def test_outputs_apart_from_inputs_and_from_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x", "y"):
        Path(name).touch()
    Path("soft").symlink_to("x")
    os.link("x", "hard")
    Path("new link").symlink_to("new")
    require_apart(["y", "new", None, "-"], ["x", None, "-"])
    require_apart([os.devnull, os.devnull, "-", "-"], [os.devnull])  # where nothing is written over
    for output in ("x", "soft", "hard", f"{tmp_path}/../{tmp_path.name}/x", "gone/../x"):
        with pytest.raises(FileError, match="read"):
            require_apart([output], ["y", "x"])
    for outputs in (("new", "new"), ("new", "new link"), ("y", "./y")):
        with pytest.raises(FileError, match="written"):
            require_apart(outputs, ["x"])


def test_the_standard_input_is_an_input_as_well(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    script = "import sys; from lstm_onnx.atomic_io import require_apart; require_apart([sys.argv[1]], ['-'])"
    with path.open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-c", script, path], stdin=stdin, capture_output=True, text=True, check=False
        )
    assert "is the same file as the standard input, which is read; name another file" in done.stderr
    subprocess.run([sys.executable, "-c", script, path], stdin=subprocess.DEVNULL, check=True)


def test_a_temporary_folder_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary_folder() as folder:
        assert folder.parent == tmp_path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "sub").mkdir()
        (folder / "sub" / "a").touch()
    assert _names(tmp_path) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(FileError, match="a temporary folder cannot be created: No such file"), temporary_folder():
        pytest.fail("made")


def test_a_folder_is_made_unless_a_file_has_its_name(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "b" / "c"):
        with pytest.raises(FileError, match=r"file: is not a folder; name a folder"):
            make_folder(path)


def test_all_that_is_unfinished_is_discarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with contextlib.suppress(FileError), temporary_folder() as folder, atomic_write(tmp_path / "a") as stream:
        (folder / "b").touch()
        stream.write(b"half")
        assert len(_names(tmp_path)) == 2
        files.discard_unfinished()
        assert _names(tmp_path) == []
    assert _names(tmp_path) == []

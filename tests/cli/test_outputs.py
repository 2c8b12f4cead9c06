"""Where results are written: what is in the way is said before anything is computed, and no input is written over."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from .conftest import Done, made_once

Run = Callable[..., Done]
LONG_NAME = "n" * 240
_MADE: dict[str, bytes] = {}


@pytest.fixture
def place(run_cli: Run, toml: Callable[..., Path], tmp_path: Path) -> Path:
    """m.onnx, x.npz and net.toml, and links to them by other names."""

    def make() -> None:
        toml()
        assert run_cli("export", "net.toml", "-o", "m.onnx").code == 0
        assert run_cli("verify", "net.toml", "m.onnx", "--mutants", "none", "--golden", "g.npz").code == 0

    made_once(_MADE, make)
    np.savez("x.npz", input=np.ones((3, 1, 4), np.float32))
    for link, target in {
        "x-soft.npz": "x.npz",
        "m-soft.npz": "m.onnx",
        "m-soft.xml": "m.onnx",
        "net-soft.onnx": "net.safetensors",
        "net-soft.html": "net.toml",
        "net-soft.svg": "net.safetensors",
        "a-soft.html": "a.xml",
        "loop.npz": "loop.npz",
        "loop.xml": "loop.xml",
        "loop.onnx": "loop.onnx",
        "loop.svg": "loop.svg",
    }.items():
        Path(link).symlink_to(target)
    os.link("x.npz", "x-hard.npz")
    os.link("m.onnx", "m-hard.html")
    for folder in ("folder.npz", "folder.onnx", "folder.xml", "folder.svg"):
        Path(folder).mkdir()
    return tmp_path


READ = "which is read"
RUN, EXPORT = ("run", "m.onnx", "x.npz", "-o"), ("export", "net.toml", "-o")
VERIFY, GOLDEN = ("verify", "net.toml", "m.onnx"), ("verify", "m.onnx", "--golden", "g.npz")
REFUSED = [
    ((*RUN, "x.npz"), "is read as well; name another"),
    ((*RUN, "x-soft.npz"), READ),
    ((*RUN, "x-hard.npz"), READ),
    ((*RUN, "folder.npz/../x.npz"), READ),
    ((*RUN, "m-soft.npz"), READ),
    ((*RUN, "loop.npz"), "leads back to itself"),
    ((*RUN, "folder.npz"), "is a directory"),
    ((*RUN, "none/y.npz"), "does not exist; make it first"),
    ((*RUN, "y.npz/"), "names a folder"),
    ((*RUN, ""), "is empty"),
    ((*RUN, f"{'n' * 252}.npz"), "File name too long"),
    ((*EXPORT, "net-soft.onnx"), READ),
    ((*EXPORT, "loop.onnx"), "leads back to itself"),
    ((*EXPORT, "folder.onnx"), "is a directory"),
    ((*EXPORT, "none/"), "names a folder"),
    ((*EXPORT, ""), "is empty"),
    ((*VERIFY, "--golden", "m-soft.npz"), READ),
    ((*VERIFY, "--data", "x.npz", "--golden", "x.npz"), "is read as well"),
    ((*VERIFY, "--data", "x.npz", "--golden", "x-hard.npz"), READ),
    ((*VERIFY, "--golden", "loop.npz"), "leads back to itself"),
    ((*VERIFY, "--golden", "folder.npz"), "is a directory"),
    ((*VERIFY, "--junit", "m-soft.xml"), READ),
    ((*VERIFY, "--junit", "loop.xml"), "leads back to itself"),
    ((*VERIFY, "--html", "m-hard.html"), READ),
    ((*VERIFY, "--html", "net-soft.html"), READ),
    ((*VERIFY, "--junit", "a.xml", "--html", "a-soft.html"), "which is written"),
    ((*GOLDEN, "--junit", "folder.xml"), "is a directory"),
    ((*GOLDEN, "--html", "m-hard.html"), READ),
    (("bench", "net.toml", "--plot", "net-soft.svg"), READ),
    (("bench", "net.toml", "--plot", "loop.svg"), "leads back to itself"),
    (("bench", "net.toml", "--plot", "folder.svg"), "is a directory"),
]


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: b"->" + os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.iterdir()
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=[" ".join(each)[:60] for each, _ in REFUSED])
def test_what_cannot_be_written_is_refused_first(
    place: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    import lstm_onnx.runtime

    def computed(*_: object, **__: object) -> None:
        pytest.fail("a model was opened before the output was looked at")

    before = _contents(place)
    monkeypatch.setattr(lstm_onnx.runtime, "load", computed)
    done = run_cli(*arguments)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done.err
    assert words in done.err
    assert _contents(place) == before


def test_a_long_name_is_written(place: Path, run_cli: Run) -> None:
    assert run_cli(*RUN, f"{LONG_NAME}.npz").code == 0
    assert run_cli(*EXPORT, f"{LONG_NAME}.onnx").code == 0
    assert run_cli(*VERIFY, "--mutants", "none", "--junit", f"{LONG_NAME}.xml").code == 0
    assert {path.suffix for path in place.iterdir() if path.name.startswith(LONG_NAME)} == {".npz", ".onnx", ".xml"}


def test_a_golden_file_may_be_written_anew(place: Path, run_cli: Run) -> None:
    before = Path("g.npz").read_bytes()
    assert run_cli(*VERIFY, "--mutants", "none", "--seed", "1", "--golden", "g.npz").code == 0
    assert Path("g.npz").read_bytes() != before
    assert run_cli(*VERIFY, "--mutants", "none", "--golden", "g.npz").code == 0
    assert Path("g.npz").read_bytes() == before


def _piped(
    arguments: list[str], environment: Mapping[str, str], script: str = ""
) -> subprocess.CompletedProcess[bytes]:
    words = " ".join(f"'{word}'" for word in arguments)
    return subprocess.run(
        ["bash", "-c", f"lstm-onnx {words} {script}"], env=environment, capture_output=True, check=False
    )


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="no /dev/stdout on this system")
def test_a_model_written_to_stdout_is_the_model_alone(
    place: Path, run_cli: Run, script_environment: dict[str, str]
) -> None:
    whole = Path("m.onnx").read_bytes()
    for more in ((), ("--json",)):
        done = _piped([*EXPORT, "/dev/stdout", *more], script_environment, "| cat")
        assert done.stdout == whole
        assert b"parameters" in done.stderr
    assert _piped([*EXPORT, "/dev/stdout"], script_environment, "> out.onnx").returncode == 0
    assert Path("out.onnx").read_bytes() == whole
    left = _piped([*EXPORT, "/dev/stdout"], script_environment, "| true; exit ${PIPESTATUS[0]}")
    assert left.returncode == 0, left.stderr


def test_the_standard_input_is_not_written_over(place: Path, run_cli: Run, script_environment: dict[str, str]) -> None:
    before = Path("x.npz").read_bytes()
    done = _piped(["run", "m.onnx", "-", "-o", "x.npz"], script_environment, "< x.npz")
    assert done.returncode == 2
    assert b"is the same file as the standard input" in done.stderr
    assert Path("x.npz").read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_what_a_full_disk_means(place: Path, run_cli: Run, script_environment: dict[str, str]) -> None:
    """What is lost is an error, of text as of arrays; and a verdict that is negative stays one."""
    text = _piped(["run", "m.onnx", "x.npz"], script_environment, "> /dev/full")
    said = "stdout: cannot be written: No space left on device; the printed result is incomplete"
    assert (text.returncode, text.stderr.decode()) == (2, f"lstm-onnx: {said}\n")
    report = _piped(["inspect", "m.onnx", "--json"], script_environment, "> /dev/full")
    error = json.loads(report.stderr)["error"]
    assert (report.returncode, error["exit_code"], error["message"]) == (2, 2, said)
    for arguments in (("--json",), ("-o", "-")):
        data = _piped(["run", "m.onnx", "x.npz", *arguments], script_environment, "> /dev/full")
        assert data.returncode == 2
        message = "stdout: cannot be written: No space left on device"
        if arguments == ("--json",):
            assert json.loads(data.stderr)["error"]["message"] == message
        else:
            assert data.stderr.decode() == f"lstm-onnx: {message}\n"


@pytest.mark.parametrize("format", ["npz", "npy", "csv", "safetensors", "jsonl", "parquet"])
def test_a_device_that_takes_all(place: Path, run_cli: Run, script_environment: dict[str, str], format: str) -> None:
    Path("many.jsonl").write_text('{"input": [[1, 2, 3, 4]]}')
    data = "many.jsonl" if format == "parquet" else "x.npz"
    Path(f"null.{format}").symlink_to("/dev/null")
    assert run_cli("run", "m.onnx", data, "-o", f"null.{format}").code == 0
    assert Path("/dev/null").is_char_device()


def test_a_stdout_that_is_closed_is_an_error_for_data(
    place: Path, run_cli: Run, script_environment: dict[str, str]
) -> None:
    for arguments in (("run", "m.onnx", "x.npz", "-o", "-"), ("run", "m.onnx", "x.npz", "-o", "-", "--isolate")):
        done = _piped([*arguments], script_environment, ">&-")
        said = b"lstm-onnx: stdout: is closed, so the outputs would be lost; name a file with -o\n"
        assert (done.returncode, done.stderr) == (2, said)
    for arguments in (("inspect", "m.onnx"), ("check", "m.onnx")):
        done = _piped([*arguments], script_environment, ">&-")
        assert (done.returncode, done.stderr) == (0, b"")  # the verdict is the exit code
        done = _piped([*arguments, "--json"], script_environment, ">&-")
        assert done.returncode == 2
        assert json.loads(done.stderr)["error"]["message"] == "stdout: is closed; the printed result is lost"


def test_a_report_that_cannot_be_written_is_an_error_and_the_others_are_there(
    place: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lstm_onnx import atomic_io as files

    replace = os.replace

    def fails(source: str, target: os.PathLike[str]) -> None:
        if Path(target).suffix == ".xml":
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", fails)
    done = run_cli(*VERIFY, "--mutants", "none", "--junit", "a.xml", "--html", "a.html", "--golden", "new.npz")
    assert done.code == 2
    assert "in parity with PyTorch" in done.out
    assert "a.xml: cannot be written: Permission denied; nothing was changed" in done.err.splitlines()[-1]
    assert [name for name in ("a.xml", "a.html", "new.npz") if Path(name).exists()] == ["a.html", "new.npz"]


def test_a_stream_without_end_stops_with_its_reader(
    place: Path, run_cli: Run, script_environment: dict[str, str]
) -> None:
    """And data that has an end goes on to it, so that the exit code is that of all of it."""
    endless = "while :; do echo '{\"input\": [[1, 2, 3, 4]]}'; done"
    for output in ("", "-o -"):
        command = f"{endless} | lstm-onnx run m.onnx - --format jsonl {output} | head -n 2; exit ${{PIPESTATUS[1]}}"
        if not output:
            command = command.replace("--format jsonl ", "")
        done = subprocess.run(
            ["bash", "-c", command], env=script_environment, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 2
    Path("bad.jsonl").write_text('{"input": [[1, 2, 3, 4]]}\n' * 2000 + '{"input": [[1]]}\n')
    done = _piped(["run", "m.onnx", "bad.jsonl", "-o", "-"], script_environment, "| head -n 1; exit ${PIPESTATUS[0]}")
    assert done.returncode == 2
    assert b"line 2001: " in done.stderr


def test_a_folder_that_was_removed_is_named(script_environment: dict[str, str], tmp_path: Path) -> None:
    script = f"mkdir '{tmp_path}/gone'; cd '{tmp_path}/gone'; rmdir ../gone; lstm-onnx export net.py:make -o m.onnx"
    done = subprocess.run(["bash", "-c", script], env=script_environment, capture_output=True, text=True, check=False)
    said = "lstm-onnx: the current folder was removed; change to another one\n"
    assert (done.returncode, done.stderr.splitlines(keepends=True)[-1]) == (2, said)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_a_disk_takes_in_part_is_not_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script_environment: dict[str, str], unbuffered: str
) -> None:
    """Unbuffered, Python drops what the system did not take in one write, without an error."""
    monkeypatch.chdir(tmp_path)
    environment = {**script_environment, "PYTHONUNBUFFERED": unbuffered}
    done = _piped(["help", "verify"], environment, "> text")
    assert done.returncode == 0
    assert Path("text").stat().st_size > 2**13
    done = subprocess.run(
        ["bash", "-c", "ulimit -f 4; lstm-onnx help verify > text"], env=environment, capture_output=True, check=False
    )
    said = b"lstm-onnx: stdout: cannot be written: File too large; the printed result is incomplete\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_does_not_block_gets_all(place: Path, script_environment: dict[str, str], unbuffered: str) -> None:
    """As Node and others make their own."""
    command = ["lstm-onnx", "run", "m.onnx", "--size", "time=20000", "--json"]
    environment = {**script_environment, "PYTHONUNBUFFERED": unbuffered}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, env=environment) as process:
        os.close(writing)
        with open(reading, "rb") as stream:
            content = stream.read()
        assert process.stderr is not None
        assert (process.wait(60), process.stderr.read()) == (0, b"")
    assert np.array(json.loads(content)["output"]).shape == (20000, 1, 3)

"""Exit codes, one line an error, nothing left behind: the promises that hold for every command."""

import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest

from lstm_onnx.cli import cli
from lstm_onnx.runtime.providers import cuda_unavailable

from .conftest import MODELS

WEIGHTS = '[weights]\nfile = "net.safetensors"\n'


@pytest.mark.parametrize("name", [None, *cli.commands])
def test_every_help(run_cli, name):
    done = run_cli(*([name] if name else []), "--help")
    assert done.code == 0
    assert done.out.startswith("Usage: lstm-onnx")
    assert done.err == ""


def test_the_list_of_commands_has_the_first_lines_of_their_helps(run_cli):
    listed = " ".join(run_cli("--help").out.partition("Commands:")[2].split())
    for name, command in cli.commands.items():
        assert f"{name} {command.get_short_help_str(200)}" in listed


def test_help_imports_no_command():
    code = "import sys; from lstm_onnx.cli import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith("lstm_onnx.cli.")}
    assert loaded
    assert loaded.isdisjoint(f"lstm_onnx.cli.{name}" for name in cli.commands)
    run = subprocess.run(
        [sys.executable, "-c", code.replace("--help", "run', '--help")], capture_output=True, text=True
    )
    assert "lstm_onnx.cli.run" in run.stdout.split()


def test_version(run_cli):
    import lstm_onnx

    assert lstm_onnx.__version__ in run_cli("--version").out


@pytest.mark.parametrize("name", ["check", "verify", "inspect", "doctor"])
def test_every_report_has_json(run_cli, toml, name):
    source = toml()
    run_cli("export", source, "-o", "m.onnx")
    arguments = {"verify": [source, "m.onnx"], "doctor": []}.get(name, ["m.onnx"])
    plain, as_json = run_cli(name, *arguments), run_cli(name, *arguments, "--json")
    assert plain.code == as_json.code == 0, plain.out + plain.err
    assert isinstance(json.loads(as_json.out), dict)
    with pytest.raises(json.JSONDecodeError):
        json.loads(plain.out)


def test_export_defaults_and_overrides(run_cli, toml, tmp_path):
    done = run_cli("export", toml(proj_size=2), "--lengths", "--projection", "fold", "--opset", "15", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    chosen = {"lengths": True, "projection": "fold", "opset": 15}
    assert told["options"] == {**chosen, "precision": None, "layers": "all", "kernel": "MatMulInteger", "target": None}
    assert (tmp_path / "net.onnx").stat().st_size == told["num_bytes"]


def test_parity_and_check_that_fail_leave_with_1(run_cli, toml, tmp_path):
    import onnx
    from onnx import numpy_helper

    source = toml()
    run_cli("export", source, "-o", "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "l0/R")
    weight.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(weight), 1, axis=1), "l0/R"))
    onnx.save(model, tmp_path / "wrong.onnx")
    done = run_cli("verify", source, "wrong.onnx")
    assert done.code == 1
    assert "NOT in parity" in done.out
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    onnx.save(model, tmp_path / "fixed.onnx")
    assert run_cli("check", "fixed.onnx").code == 1


def corrupt(tmp_path: Path, run_cli, toml) -> None:
    """Files that are nearly right."""
    toml()
    run_cli("export", "net.toml", "-o", "m.onnx")
    np.savez(tmp_path / "x.npz", input=np.ones((2, 1, 4), np.float32))
    for name in ("m.onnx", "x.npz", "net.safetensors"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(content[: len(content) // 2])
        (tmp_path / f"empty-{name}").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "noise.onnx").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "cut-weights.toml").write_text(
        "[lstm]\ninput_size = 4\nhidden_size = 3\n[weights]\nfile = 'cut-net.safetensors'\n"
    )
    good = (tmp_path / "net.toml").read_text()
    (tmp_path / "unknown-key.toml").write_text(good.replace("hidden_size", "hidden"))
    (tmp_path / "nan.toml").write_text(good.replace("hidden_size = 3", "hidden_size = nan"))
    (tmp_path / "other-sizes.toml").write_text(good.replace("hidden_size = 3", "hidden_size = 5"))
    (tmp_path / "huge.toml").write_text(good.replace("hidden_size = 3", "hidden_size = 2000000000"))
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "not.toml").write_text("= =")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "no-weights.toml").write_text(good.replace("net.safetensors", "none.safetensors"))


BAD = [
    (["run", "empty-m.onnx"], "empty"),
    (["run", "cut-m.onnx"], "cut-m.onnx"),
    (["run", "noise.onnx"], "noise.onnx"),
    (["run", "folder"], "directory"),
    (["run", "none.onnx"], "none.onnx"),
    (["check", "empty-m.onnx"], "empty"),
    (["check", "cut-m.onnx"], "cut-m.onnx"),
    (["check", "noise.onnx"], "noise.onnx"),
    (["check", "folder"], "directory"),
    (["inspect", "empty-m.onnx"], "empty"),
    (["inspect", "cut-m.onnx"], "cut-m.onnx"),
    (["inspect", "noise.onnx"], "noise.onnx"),
    (["inspect", "folder"], "directory"),
    (["verify", "net.toml", "empty-m.onnx"], "empty"),
    (["verify", "net.toml", "cut-m.onnx"], "cut-m.onnx"),
    (["verify", "net.toml", "folder"], "directory"),
    (["run", "m.onnx", "cut-x.npz", "-o", "out.npz"], "cut-x.npz"),
    (["run", "m.onnx", "empty-x.npz", "-o", "out.npz"], "empty"),
    (["run", "m.onnx", "cut-net.safetensors", "-o", "out.npz"], "cut-net.safetensors"),
    (["run", "m.onnx", "folder", "-o", "out.npz"], "folder"),
    (["run", "m.onnx", "x.npz", "-o", "out.xyz"], "out.xyz"),
    (["run", "m.onnx", "x.npz", "-o", "none/out.npz"], "none"),
    (["run", "m.onnx", "x.npz", "-o", "folder"], "folder"),
    (["run", "m.onnx", "x.npz", "--chunk", "0"], "--chunk"),
    (["run", "m.onnx", "x.npz", "--threads", "0"], "--threads"),
    (["run", "m.onnx", "x.npz", "--provider", "cdua"], "'auto', 'cpu', 'cuda'"),
    (["check", "m.onnx", "--provider", "TensorrtExecutionProvider"], "'auto', 'cpu', 'cuda'"),
    (["export", "cut-weights.toml", "-o", "out.onnx"], "cut-net.safetensors"),
    (["export", "unknown-key.toml", "-o", "out.onnx"], "hidden_size"),
    (["export", "nan.toml", "-o", "out.onnx"], "nan.toml: [lstm] hidden_size"),
    (["export", "other-sizes.toml", "-o", "out.onnx"], "weight_ih_l0"),
    (["export", "huge.toml", "-o", "out.onnx"], "GiB"),
    (["export", "empty.toml", "-o", "out.onnx"], "empty"),
    (["export", "not.toml", "-o", "out.onnx"], "TOML"),
    (["export", "binary.toml", "-o", "out.onnx"], "TOML"),
    (["export", "no-weights.toml", "-o", "out.onnx"], "none.safetensors"),
    (["export", "none.toml", "-o", "out.onnx"], "none.toml"),
    (["export", "folder", "-o", "out.onnx"], "package.module:callable"),
    (["export", "no_such_package:make", "-o", "out.onnx"], "no_such_package"),
    (["export", "math:pi", "-o", "out.onnx"], "callable"),
    (["export", "net.toml", "-o", "folder"], "directory"),
    (["export", "net.toml", "-o", "none/out.onnx"], "none"),
    (["export", "net.toml", "-o", "/dev/full"], "space"),
    (["export", "net.toml", "--opset", "99", "-o", "out.onnx"], "14 to 23"),
    (["export", "net.toml", "--nonsense"], "--nonsense"),
    (["nonsense"], "nonsense"),
    (["export"], "SOURCE"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_is_one_line_that_helps_exit_2_and_no_file(run_cli, toml, tmp_path, arguments, said):
    corrupt(tmp_path, run_cli, toml)
    before = sorted(tmp_path.rglob("*"))
    done = run_cli(*arguments)
    assert done.code == 2, done
    assert len(done.err.splitlines()) == 1, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_cuda_that_is_not_there(run_cli, toml):
    if cuda_unavailable() is None:
        pytest.skip("a GPU is here")
    run_cli("export", toml(), "-o", "m.onnx")
    for command in ("run", "check"):
        done = run_cli(command, "m.onnx", "--provider", "cuda")
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert "CUDA cannot be used" in done.err


def test_disk_that_fills_up_leaves_the_old_file_and_no_other(run_cli, toml, tmp_path, monkeypatch):
    run_cli("export", toml(), "-o", "m.onnx")
    before, listing = (tmp_path / "m.onnx").read_bytes(), sorted(tmp_path.iterdir())

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    done = run_cli("export", "net.toml", "-o", "m.onnx", "--opset", "20")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "No space left" in done.err
    assert (tmp_path / "m.onnx").read_bytes() == before
    assert sorted(tmp_path.iterdir()) == listing


def test_file_size_limit_of_the_system(toml, tmp_path, script_environment):
    source = toml(hidden_size=64)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run(
        ["lstm-onnx", "export", source, "-o", "m.onnx"],
        cwd=tmp_path,
        # Python would cut the bytecode of modules that nobody has imported yet at the limit, without a word.
        env={**script_environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "too large" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"net.toml", "net.safetensors"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_stdout_that_is_full_is_an_error_and_the_file_is_there(toml, tmp_path, script_environment):
    toml()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            ["lstm-onnx", "export", "net.toml"],
            cwd=tmp_path,
            env=script_environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    said = "lstm-onnx: stdout: cannot be written: No space left on device; the printed result is incomplete\n"
    assert (done.returncode, done.stderr) == (2, said)
    assert (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_reader_that_leaves_early_is_no_error(unbuffered, toml, tmp_path, script_environment, run_cli):
    run_cli("export", toml(), "-o", "m.onnx")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", "lstm-onnx run m.onnx --size time=20000 --json | head -c 10"],
        cwd=tmp_path,
        env=script_environment | {"PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) == 10


def test_a_bug_of_ours_is_70_and_debug_shows_it(run_cli, monkeypatch):
    @click.command()
    def broken():
        raise ZeroDivisionError("oh")

    monkeypatch.setitem(cli.commands, "broken", broken)
    done = run_cli("broken")
    assert (done.code, len(done.err.splitlines())) == (70, 1)
    assert "Traceback" in run_cli("broken", "--debug").err
    assert "Traceback" in run_cli("--debug", "broken").err


def test_progress_bar_is_for_terminals_alone(toml, tmp_path, forking_environment):
    pty = pytest.importorskip("pty")
    source = toml()
    command = ["lstm-onnx", "verify", source]
    piped = subprocess.run(command, cwd=tmp_path, env=forking_environment, capture_output=True, text=True, check=True)
    assert piped.stderr == ""
    reader, writer = pty.openpty()
    shown = subprocess.run(
        command, cwd=tmp_path, env=forking_environment, stdout=subprocess.PIPE, stderr=writer, text=True, check=True
    )
    os.close(writer)
    seen = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(reader, 4096):
            seen += chunk
    os.close(reader)
    assert b"verifying" in seen
    assert "verifying" not in shown.stdout


def test_source_as_a_callable_in_this_folder(run_cli, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "my_lstm_source.py").write_text(
        "import torch\ndef make():\n    torch.manual_seed(0)\n    return torch.nn.LSTM(3, 2)\n"
    )
    assert run_cli("export", "my_lstm_source:make").code == 0
    assert (tmp_path / "make.onnx").exists()
    assert run_cli("verify", "my_lstm_source:make", "make.onnx", "--mutants", "none").code == 0
    monkeypatch.delitem(sys.modules, "my_lstm_source")


def test_models_folder_exports_from_anywhere(run_cli, tmp_path):
    assert run_cli("export", MODELS / "sunspots.toml").code == 0
    assert (tmp_path / "sunspots.onnx").exists()


@pytest.mark.parametrize("target", ["net.toml", "net.safetensors"])
def test_export_does_not_overwrite_what_it_reads(run_cli, toml, tmp_path, target):
    toml()
    before = (tmp_path / target).read_bytes()
    assert run_cli("export", "net.toml", "-o", target).code == 2
    assert (tmp_path / target).read_bytes() == before


def test_a_file_without_the_lengths_that_its_source_asks_for_fails(run_cli, toml):
    run_cli("export", toml(), "-o", "m.onnx")
    done = run_cli("verify", toml(export="lengths = true"), "m.onnx", "--mutants", "none")
    assert done.code == 1
    assert "asks for the input lengths" in done.out


def test_what_a_callable_prints_is_kept_off_stdout(run_cli, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "noisy_lstm_source.py").write_text(
        "import torch\nprint('one')\ndef make():\n    print('two')\n    return torch.nn.LSTM(3, 2)\n"
    )
    done = run_cli("export", "noisy_lstm_source:make", "--json")
    monkeypatch.delitem(sys.modules, "noisy_lstm_source")
    assert json.loads(done.out)["parameters"] == 56
    assert done.err.split() == ["one", "two"]


def test_terminated_in_the_middle_leaves_nothing_behind(toml, tmp_path, script_environment):
    source = toml()
    subprocess.run(["lstm-onnx", "export", source, "-o", "m.onnx"], cwd=tmp_path, env=script_environment, check=True)
    reader, writer = os.pipe()
    with subprocess.Popen(
        ["lstm-onnx", "run", "m.onnx", "-", "--format", "jsonl", "-o", "out.jsonl"],
        cwd=tmp_path,
        env=script_environment,
        stdin=reader,
    ) as process:
        os.write(writer, b'{"input": [[1, 2, 3, 4]]}\n' * 3)
        for _ in range(600):
            if any(path.suffix == ".tmp" for path in tmp_path.iterdir()):
                break
            time.sleep(0.05)
        else:
            pytest.fail("it never began to write")
        process.terminate()
        assert process.wait(timeout=30) == 143
    os.close(reader)
    os.close(writer)
    assert {path.name for path in tmp_path.iterdir()} == {"net.toml", "net.safetensors", "m.onnx"}


def test_no_command_shows_the_help(run_cli):
    done = run_cli()
    assert done.code == 2
    assert done.err.startswith("Usage: lstm-onnx")
    assert "export" in done.err
    assert len(done.err.splitlines()) > 10


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "\u221e \\ud800\n"), ("latin-1", "\\u221e \\ud800\n")])
def test_a_name_that_the_output_cannot_show_is_escaped(script_environment, encoding, shown):
    """Neither a sign that a terminal lacks nor a lone surrogate out of some file's JSON is a bug of ours."""
    script = """
import click
from lstm_onnx.cli import cli, main

@cli.command()
def shows():
    click.echo("\\u221e \\ud800")

main(["shows"])
"""
    environment = {**script_environment, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding) == shown

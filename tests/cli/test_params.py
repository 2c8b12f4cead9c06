"""Options that may be given once, execution providers, files, quiet and verbose, errors as JSON."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import click
import pytest

from lstm_onnx.cli import cli
from lstm_onnx.cli.params import FILE, Option

PARAMETERS = [
    (name, parameter)
    for name, command in cli.commands.items()
    for parameter in command.params
    if isinstance(parameter, click.Option)
]
SINGLE = [
    pytest.param(name, parameter, id=f"{name} {parameter.opts[-1]}")
    for name, parameter in PARAMETERS
    if not parameter.is_flag and not parameter.multiple
]
PAIRS = [
    pytest.param(name, parameter, id=f"{name} {parameter.opts[-1]}")
    for name, parameter in PARAMETERS
    if parameter.is_flag and parameter.secondary_opts
]


def test_there_are_options_of_each_kind():
    assert len(SINGLE) > 15
    assert {parameter.values[1].name for parameter in PAIRS} == {"lengths", "check", "isolate"}


@pytest.mark.parametrize(("name", "parameter"), SINGLE)
def test_a_repeated_option_is_an_error_with_both_values(run_cli, name, parameter):
    assert isinstance(parameter, Option)
    for option in parameter.opts:
        done = run_cli(name, option, "1", option, "2")
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert f"{parameter.opts[-1]} was given 2 times, with 1 and 2; give it once" in done.err


@pytest.mark.parametrize(("name", "parameter"), PAIRS)
def test_a_flag_and_its_opposite_are_an_error(run_cli, name, parameter):
    yes, no = parameter.opts[0], parameter.secondary_opts[0]
    for arguments in ((yes, no), (no, yes)):
        done = run_cli(name, "x", *arguments)
        assert done.code == 2
        assert f"{yes} and {no} were both given; pass one of them" in done.err
    assert "No such file" in run_cli(name, "x.onnx" if name == "run" else "x.toml", yes, yes).err


def test_the_parser_gives_the_one_value():
    seen = []

    @click.command()
    @click.option("--size", cls=Option, type=int, default=3)
    @click.option("--on/--off", cls=Option, default=None)
    @click.option("--name", cls=Option, multiple=True)
    def command(size, on, name):
        seen.append((size, on, name))

    for arguments in ([], ["--size", "4", "--off"], ["--on", "--on", "--name", "a", "--name", "b"]):
        command.main(arguments, standalone_mode=False)
    assert seen == [(3, None, ()), (4, False, ()), (3, True, ("a", "b"))]


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider", "cpuexecutionprovider"])
def test_onnx_runtimes_names_of_providers(run_cli, toml, name):
    run_cli("export", toml(), "-o", "m.onnx")
    done = run_cli("check", "m.onnx", "--provider", name)
    assert (done.code, done.out.splitlines()[-1]) == (0, "m.onnx: passed on cpu")


@pytest.mark.parametrize("name", cli.commands)
def test_files_are_completed(name):
    for parameter in cli.commands[name].params:
        if parameter.name in ("file", "files", "source", "data", "output", "plot", "html", "junit", "golden"):
            assert parameter.type is FILE
            (item,) = parameter.shell_complete(click.Context(cli.commands[name]), "m")
            assert (item.type, item.value) == ("file", "m")


def test_completion_in_bash(script_environment, tmp_path):
    complete = {"_LSTM_ONNX_COMPLETE": "bash_complete", "COMP_WORDS": "lstm-onnx inspect m", "COMP_CWORD": "2"}
    done = subprocess.run(
        ["lstm-onnx"], cwd=tmp_path, env=script_environment | complete, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["file,m"]


@pytest.mark.parametrize("before", [True, False])
def test_quiet_prints_no_notes_but_errors(run_cli, toml, tmp_path, before):
    run_cli("export", toml(), "-o", "m.onnx")
    arguments = ["run", "m.onnx", "-o", "y.npz"]
    assert run_cli(*arguments).err.startswith("wrote y.npz")
    quiet = run_cli("-q", *arguments) if before else run_cli(*arguments, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    assert (tmp_path / "y.npz").exists()
    assert "none.onnx" in run_cli("-q", "run", "none.onnx").err


@pytest.mark.parametrize("before", [True, False])
def test_verbose_prints_versions_and_tracebacks(run_cli, toml, before):
    run_cli("export", toml(), "-o", "m.onnx")
    verbose = run_cli("-v", "inspect", "m.onnx") if before else run_cli("inspect", "m.onnx", "--verbose")
    assert verbose.code == 0
    assert verbose.out == run_cli("inspect", "m.onnx").out
    first, last = verbose.err.splitlines()
    assert first.startswith("lstm-onnx ")
    assert "onnx " in first
    assert last.startswith("took ")
    failed = run_cli("inspect", "none.onnx", "-v")
    assert failed.code == 2
    assert "Traceback" in failed.err


def test_debug_shows_all_frames_of_an_export(run_cli, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "from torch import nn\nclass Net(nn.LSTM):\n    def __init__(self):\n        super().__init__(3, 4)\n"
        "    def forward(self, x):\n        return super().forward(x)[0].view(7, -1, 3, 5)\n"
    )
    Path("net.toml").write_text('[module]\nfactory = "net.py:Net"\n[inputs.x]\nshape = ["time", "batch", 3]\n')
    done = run_cli("export", "net.toml", "-o", "m.onnx", "--debug")
    assert done.code == 2
    assert "functional_module.py" in done.err  # a call from Python shows none of ours


def test_quiet_and_verbose_exclude_each_other(run_cli):
    for arguments in (("-q", "-v", "doctor"), ("-q", "doctor", "-v"), ("doctor", "-qv")):
        done = run_cli(*arguments)
        assert done.code == 2
        assert "--quiet and --verbose were both given" in done.err


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (("inspect", "none.onnx"), "FileError", "none.onnx"),
        (("export", "none.toml"), "FileError", "none.toml"),
        (("export",), "MissingParameter", "SOURCE"),
        (("run", "none.onnx", "--chunk", "0"), "BadParameter", "--chunk"),
        (("check", "a.onnx", "b.onnx"), "FileError", "a.onnx"),
    ],
)
def test_an_error_is_a_json_object_with_json(run_cli, arguments, kind, text):
    done = run_cli(*arguments, "--json")
    assert done.code == 2
    first = json.loads(done.err.splitlines()[0])
    assert first["schema"] == 1
    assert set(first["error"]) == {"type", "message", "exit_code", "path", "hint"}
    assert first["error"]["exit_code"] == 2
    assert first["error"]["type"] == kind
    assert text in first["error"]["message"]
    assert len(done.err.splitlines()) == (2 if arguments[0] == "check" else 1)


def test_a_bug_is_a_json_object_with_json(run_cli, monkeypatch):
    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    def broken(as_json):
        raise ZeroDivisionError("oh")

    monkeypatch.setitem(cli.commands, "broken", broken)
    done = run_cli("broken", "--json")
    assert done.code == 70
    assert json.loads(done.err)["error"]["type"] == "ZeroDivisionError"


@pytest.mark.parametrize("command", ["export", "inspect", "doctor", "check"])
def test_every_result_has_a_schema(run_cli, toml, command):
    source = toml()
    run_cli("export", source, "-o", "m.onnx")
    arguments = {"export": [source], "doctor": []}.get(command, ["m.onnx"])
    assert json.loads(run_cli(command, *arguments, "--json").out)["schema"] == 1


def test_several_files_are_one_object(run_cli, toml):
    run_cli("export", toml(), "-o", "m.onnx")
    told = json.loads(run_cli("check", "m.onnx", "m.onnx", "--json").out)
    assert told["schema"] == 1
    assert [report["file"] for report in told["files"]] == ["m.onnx", "m.onnx"]


def test_an_onnx_file_is_not_written_to_stdout(run_cli, toml, tmp_path):
    done = run_cli("export", toml(), "-o", "-")
    assert (done.code, done.out) == (2, "")
    assert "an ONNX file is not written to stdout; name a file with -o" in done.err
    assert not (tmp_path / "-").exists()


def test_the_help_lists_the_exit_codes(run_cli):
    text = run_cli("--help").out
    for code in ("0", "1", "2", "70", "129, 130, 143"):
        assert f"\n    {code} " in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "m.onnx", "--time-limit"),
        ("verify", "net.toml", "--max-drift"),
        ("serve", "m.onnx", "--deadline"),
        ("bench", "net.toml", "--seconds"),
        ("deploy", "triton", "m.onnx", "-o", "out", "--idle"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_nan_is_in_no_range(run_cli, arguments):
    done = run_cli(*arguments, "nan")
    assert (done.code, f"Invalid value for '{arguments[-1]}': 'nan' is not a number" in done.err) == (2, True)

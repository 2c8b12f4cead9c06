"""The plugin, in pytest runs of its own.  Golden files keep most of them from importing torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from .parity_files import parity_files
from .test_imports import assert_without, imported_by

pytest_plugins = ["pytester"]

Run = Callable[..., pytest.RunResult]
CHECKS = """
import sys
import pytest
from lstm_onnx.testing import assert_parity

def test_right(lstm_onnx_parity):
    assert lstm_onnx_parity("net.onnx", golden="net.npz")
    assert assert_parity("net.onnx", golden="net.npz")
    assert "torch" not in sys.modules

@pytest.mark.lstm_onnx_parity("*.onnx", golden="net.npz", threads=1)
def test_marked(lstm_onnx_parity):
    assert lstm_onnx_parity()
"""
"""Two tests that pass and one, of wrong.onnx, that fails."""


@pytest.fixture
def started(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], Run]:
    """Has pytest run on a test file, or several by name, beside those of `parity_files`."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # workers share the cores
    shutil.copytree(parity_files(), pytester.path, dirs_exist_ok=True)

    def started(start: Run) -> Run:
        def run(*arguments: str, **files: str) -> pytest.RunResult:
            for name, text in files.items():
                pytester.makepyfile(**{name: text})
            return start("--strict-markers", "-Werror", *arguments)

        return run

    return started


@pytest.fixture
def run(pytester: pytest.Pytester, started: Callable[[Run], Run]) -> Run:
    """In a process of its own."""
    return started(pytester.runpytest_subprocess)


@pytest.fixture
def run_here(pytester: pytest.Pytester, started: Callable[[Run], Run]) -> Run:
    """In this process: of tests that compare nothing, and so import nothing."""
    return started(pytester.runpytest_inprocess)


def test_it_costs_nothing_where_it_is_not_used(tmp_path: Path):
    (tmp_path / "test_empty.py").write_text("def test_empty():\n    pass\n")
    script = """
import os, sys
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # others may import what they like
os.environ.pop("PYTEST_ADDOPTS", None)
os.chdir(sys.argv[1])
import pytest
assert pytest.main(["-q", "-p", "lstm_onnx.pytest_plugin", *sys.argv[2:]]) == 0
"""
    modules = imported_by(script, str(tmp_path))
    assert_without(modules, "numpy", "onnx", "onnxruntime", "torch", "click", "rich")
    own = {name for name in modules if name.partition(".")[0] == "lstm_onnx"}
    needed = ("errors", "pytest_plugin", "terminal_text", "testing", "version")
    assert own == {"lstm_onnx", *(f"lstm_onnx.{name}" for name in needed)}
    with pytest.raises(AssertionError, match="imported: numpy"):  # so it can fail
        assert_without(imported_by(script, str(tmp_path), "-p", "numpy"), "numpy")


def test_pytest_finds_it():
    assert entry_points(group="pytest11")["lstm_onnx"].value == "lstm_onnx.pytest_plugin"


def test_right_files_pass_and_wrong_ones_fail_with_the_table(run: Run):
    result = run(test_it=CHECKS)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*test_marked?wrong.onnx?*",
            ">       assert lstm_onnx_parity()",
            "E       lstm_onnx.testing.ParityError: wrong.onnx: NOT in parity with PyTorch*",
            "E       output *ratio*",
            "E       hn *FAILS*",
            "test_it.py:*: ParityError",
            "FAILED test_it.py::test_marked?wrong.onnx? - *",
        ]
    )
    result.stdout.no_fnmatch_line("*lstm_onnx/*.py*")


def test_other_plugins_and_several_workers_see_the_same_tests(run: Run):
    result = run("-n", "2", test_it=CHECKS)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["E       hn *FAILS*"])


def test_without_the_plugin_its_names_are_unknown(run: Run):
    result = run("-p", "no:lstm_onnx", test_it=CHECKS)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*'lstm_onnx_parity' not found in `markers`*"])


def test_the_command_line_speaks_where_the_test_does_not(run_here: Run):
    text = """
import pytest

@pytest.mark.lstm_onnx_parity("net.toml", provider="auto")
@pytest.mark.lstm_onnx_parity("./*.toml", "n*.toml", "package.module:make", file="build/{stem}.onnx", mutants="quick")
def test_marked(lstm_onnx_parity, request):
    if lstm_onnx_parity.file is None:  # the second marker, of a source that both have
        assert lstm_onnx_parity.options == {"provider": "auto", "mutants": "all"}
        pytest.xfail("nothing is compared")
    assert lstm_onnx_parity.options == {"provider": "cpu", "mutants": "quick"}
    stem = "net" if lstm_onnx_parity.source.endswith(".toml") else "make"
    assert lstm_onnx_parity.file == str(request.config.rootpath / "build" / f"{stem}.onnx")
    pytest.skip("nothing is compared")

def test_plain(lstm_onnx_parity):
    assert lstm_onnx_parity.options == {"provider": "cpu", "mutants": "all"}
"""
    result = run_here("--lstm-onnx-provider", "cpu", "--lstm-onnx-mutants", "all", "-v", test_it=text)
    result.assert_outcomes(passed=1, skipped=2, xfailed=1)
    result.stdout.fnmatch_lines_random(
        ["*test_marked?net.toml0?*", "*test_marked?net.toml1?*", "*test_marked?package.module:make?*"]
    )


@pytest.mark.parametrize("option", ["--lstm-onnx-mutants", "--lstm-onnx-provider"])
def test_an_unknown_value_of_an_option(run_here: Run, option: str):
    result = run_here(option, "some")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*argument {option}: invalid choice: 'some' (choose from *"])


MARKERS = {
    '"*.toml", mutant="all"': "has no option mutant; options are file, golden, *mutants*",
    '"nowhere/*.toml"': "names nowhere/[*].toml, and there is no such file in *",
    "": 'names no source; write one, such as "models/[*].toml"',
    "object()": "takes patterns of files and package.module:callable, and not a object; call * with it",
    '"*.onnx", file="net.onnx"': "has file='net.onnx' for 2 sources; put {stem} in it, *",
}


def test_a_wrong_marker_is_one_test_that_fails_in_one_line(run_here: Run):
    text = "import pytest\n@pytest.mark.lstm_onnx_parity({})\ndef test_marked(lstm_onnx_parity): pass\n"
    files = {f"test_{index}": text.format(arguments) for index, arguments in enumerate(MARKERS)}
    files["test_other"] = "def test_other(): pass\n"
    result = run_here("-p", "no:randomly", **files)
    result.assert_outcomes(failed=len(MARKERS), passed=1)
    for index, message in enumerate(MARKERS.values()):
        result.stdout.fnmatch_lines([f"the marker lstm_onnx_parity {message}"])
        result.stdout.fnmatch_lines([f"FAILED test_{index}.py::test_marked?*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("E  *")


def test_a_wrong_marker_fails_in_another_fixture_too(run_here: Run):
    text = """
import pytest

@pytest.fixture
def report(lstm_onnx_parity):
    return lstm_onnx_parity()

@pytest.mark.lstm_onnx_parity("*.toml", mutant="all")
def test_marked(report): pass
"""
    result = run_here(test_it=text)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["the marker lstm_onnx_parity has no option mutant; *"])


def test_another_source_is_compared_with_the_file_of_the_marker(run_here: Run):
    text = """
import pytest
from lstm_onnx import pytest_plugin

@pytest.mark.lstm_onnx_parity("net.toml", file="{stem}.onnx")
def test_marked(lstm_onnx_parity, monkeypatch):
    monkeypatch.setattr(pytest_plugin, "assert_parity", lambda source, file: (source, str(file)))
    assert lstm_onnx_parity("other.toml") == ("other.toml", "net.onnx")
"""
    run_here(test_it=text).assert_outcomes(passed=1)


def test_of_several_patterns_only_the_misspelt_one_fails(run: Run):
    text = """
import pytest

@pytest.mark.lstm_onnx_parity("nett.toml", "net.onnx", golden="net.npz", threads=1)
def test_marked(lstm_onnx_parity):
    assert lstm_onnx_parity()
"""
    result = run(test_it=text)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["the marker lstm_onnx_parity names nett.toml, and there is no such file in *"])
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_marked?nett.toml? - *"])


def test_a_marked_test_without_the_fixture_fails_and_no_other(run_here: Run):
    marked = '@pytest.mark.lstm_onnx_parity("*.toml")\ndef test_marked(): pass\n'
    result = run_here(test_unused=f"import pytest\n{marked}def test_other(): pass\n")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["it is marked lstm_onnx_parity, and does not take the fixture*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("E  *")


def test_a_marked_method_of_a_test_case_fails(run_here: Run):
    text = """
import unittest

import pytest

@pytest.mark.lstm_onnx_parity("*.toml")
class TestMarked(unittest.TestCase):
    def test_marked(self): pass

class TestPlain(unittest.TestCase):
    def test_plain(self): pass
"""
    result = run_here(test_case=text)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["it is marked lstm_onnx_parity, and does not take the fixture*TestCase*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_check_that_never_was_is_no_pass(run_here: Run):
    text = """
import pytest

@pytest.mark.lstm_onnx_parity("*.toml")
def test_idle(lstm_onnx_parity):
    assert lstm_onnx_parity  # which would be the fixture and not the report

def test_lost(lstm_onnx_parity):
    lstm_onnx_parity()
"""
    result = run_here("-p", "no:randomly", test_it=text)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*never called the fixture: lstm_onnx_parity()", "E *needs a source here*"])


def test_with_torch_and_without_it(run: Run):
    checks = """
import pytest

def test_right(lstm_onnx_parity):
    import torch
    torch.manual_seed(0)
    assert lstm_onnx_parity(torch.nn.LSTM(4, 3), "net.onnx").mutants

@pytest.mark.lstm_onnx_parity("net.toml", threads=1)
def test_wrong(lstm_onnx_parity):
    lstm_onnx_parity(file="wrong.onnx")
"""
    result = run("-p", "no:randomly", test_it=checks)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       lstm_onnx_parity(file=*",
            "E       lstm_onnx.testing.ParityError: wrong.onnx: NOT in parity with PyTorch, net.toml",
            "E       output *FAILS*",
            "E       likely cause: *",
            "E       first differs in *gate*",
            "test_it.py:*: ParityError",
        ]
    )
    result = run(
        conftest='import sys\nsys.modules["torch"] = None\n',
        test_it=checks.replace("    import torch", "    from types import SimpleNamespace as torch"),
    )
    result.stdout.fnmatch_lines(["E       lstm_onnx.errors.MissingDependencyError: *pip install*"])
    result.stdout.no_fnmatch_line("*lstm_onnx/*.py*")


def test_the_page_of_a_failed_check(run: Run, pytester: pytest.Pytester):
    result = run("--lstm-onnx-html", "pages/parity", test_it=CHECKS)
    result.assert_outcomes(passed=2, failed=1)
    (page,) = (pytester.path / "pages/parity").iterdir()
    assert page.name.startswith("test_it.py-test_marked-wrong.onnx")
    assert "NOT in parity" in page.read_text(encoding="utf-8")
    assert "pytest &#39;test_it.py::test_marked[wrong.onnx]&#39;" in page.read_text(encoding="utf-8")
    result.stdout.fnmatch_lines([f"report: {page}"])
    result = run("--lstm-onnx-html", "net.onnx", test_it=CHECKS)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["no report was written: *net.onnx*"])


@pytest.mark.skipif(not hasattr(pytest, "Subtests"), reason="pytest has subtests from version 9 on")
def test_each_failed_subtest_has_a_page(run: Run, pytester: pytest.Pytester):
    text = """
def test_all(subtests, lstm_onnx_parity):
    for _ in range(2):
        with subtests.test():
            lstm_onnx_parity("wrong.onnx", golden="net.npz")
"""
    run("--lstm-onnx-html", "pages", test_it=text)
    assert len(list((pytester.path / "pages").iterdir())) == 2

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from lstm_onnx.parity.report import ParityReport
from lstm_onnx.parity.reports.table import plain, show

from ...test_imports import assert_without, imported_by
from . import samples

STYLE = re.compile(r"\x1b\[([\d;]*)m")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a terminal of some width and kind is sent."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)

    def shown(*reports: ParityReport, columns: int = 100, **environment: str) -> str:
        for name, value in {"TERM": "xterm-256color", "COLUMNS": str(columns), **environment}.items():
            monkeypatch.setenv(name, value)
        terminal = Terminal()
        show(reports, terminal)
        return terminal.getvalue()

    return shown


def unstyled(text: str) -> str:
    return STYLE.sub("", text)


def words(text: str) -> list[str]:
    return re.findall(r"[^\s─]+", unstyled(text))


def test_plain_text_of_a_failure():
    assert plain(samples.failing).splitlines() == [
        "wrong.onnx: NOT in parity with PyTorch, models/net.toml",
        "1 of 3 cases failed on cpu; an error may be up to 32 times PyTorch's own, and 32 roundings in any case",
        "output  largest error  allowed error  PyTorch's own  ratio (max 32)         where",
        "output            0.5          4e-06       1.25e-07           4e+06  FAILS  [3, 0, 2] of batch 5, time 4, states",  # noqa: E501
        "hn              0.125          4e-06       1.25e-07           1e+06  FAILS  [0, 0, 2] of batch 5, time 4, states",  # noqa: E501
        "cn              7e-08          4e-06       1.25e-07            0.56         [0, 0, 2] of batch 3, time 4, states",  # noqa: E501
        "likely cause: gate order of layer 1",
        "    evidence: with it PyTorch gives the file's numbers",
        "    fix: ONNX wants i,o,f,c",
        f"first differs in {samples.failing.location}",
        "note: PyTorch's own error is too large in some cases",
    ]


def test_plain_text_of_a_pass():
    assert plain(samples.passing).splitlines() == [
        "net.onnx: in parity with PyTorch, models/net.toml",
        "2 cases on cpu; an error may be up to 32 times PyTorch's own, and 32 roundings in any case",
        "output  largest error  allowed error  PyTorch's own  ratio (max 32)  where",
        "output        1.1e-07          4e-06       1.25e-07            0.88  [0, 0, 2] of batch 1, time 1, states",
        "hn              5e-08          4e-06       1.25e-07             0.4  [0, 0, 2] of batch 3, time 4, states",
        "cn              7e-08          4e-06       1.25e-07            0.56  [0, 0, 2] of batch 3, time 4, states",
        "self-test: 3 mutants: 2 rejected, 1 proven equivalent",
        "note: PyTorch's own error is too large in some cases",
    ]


def test_plain_text_without_a_table():
    assert plain(samples.stopped).splitlines() == [
        "wrong.onnx: NOT in parity with PyTorch, models/net.toml",
        "2 of 2 cases failed on cpu; an error may be up to 32 times PyTorch's own, and 32 roundings in any case",
        f"failed to run at batch 2, time 1, states and 1 more: {samples.STOPPED.error}",
        "note: PyTorch's own error is too large in some cases",
    ]


@pytest.mark.parametrize("report", samples.REPORTS.values(), ids=samples.REPORTS.keys())
def test_plain_text_is_str_and_has_no_control_characters(report):
    assert str(report) == plain(report)
    assert all(line.isprintable() for line in plain(report).split("\n"))
    assert not any(line.lstrip().startswith("::") for line in plain(report).split("\n"))


def test_what_is_no_terminal_gets_plain_text(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    show([samples.passing, samples.failing], stream)
    assert stream.getvalue() == f"{plain(samples.passing)}\n\n{plain(samples.failing)}\n"


def test_a_terminal_without_rich_gets_plain_text(monkeypatch, on_terminal):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert on_terminal(samples.failing) == f"{plain(samples.failing)}\n"


@pytest.mark.parametrize("columns", [30, 40, 60, 83, 84, 120])
@pytest.mark.parametrize("report", samples.REPORTS.values(), ids=samples.REPORTS.keys())
def test_a_terminal_shows_the_same_words_within_its_width(report, columns, on_terminal):
    text = on_terminal(report, columns=columns)
    lines = unstyled(text).split("\n")
    if report is not samples.hostile:  # whose wide characters take two columns
        assert max(map(len, lines)) <= columns
    assert all(line.isprintable() for line in lines)
    if columns == 120 and report is not samples.hostile:
        # Nothing is folded there, and so only the marks differ.
        left = words(plain(report))
        found = words(text)
        assert sorted(word for word in found if word != "ok") == sorted(left)


def test_the_verdict_comes_first_and_in_colour(on_terminal):
    good, bad = on_terminal(samples.passing), on_terminal(samples.failing)
    assert good.startswith("\x1b[1;32mnet.onnx: in parity")
    assert bad.startswith("\x1b[1;31mwrong.onnx: NOT in parity")
    assert "\x1b[32mok" in good
    assert "\x1b[1;31mFAILS" in bad
    assert on_terminal(samples.unproven).startswith("\x1b[1;31m")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_where_none_are_wanted(environment, on_terminal):
    text = on_terminal(samples.failing, samples.unproven, **environment)
    codes = {code for style in STYLE.findall(text) for code in style.split(";")}
    assert codes <= {"0", "1", "2"}  # bold and dim are not colours
    assert "FAILS" in text
    assert "NOT in parity" in text
    colours = {code for style in STYLE.findall(on_terminal(samples.failing, NO_COLOR="")) for code in style.split(";")}
    assert "31" in colours


def test_names_are_no_markup(on_terminal):
    odd = replace(samples.passing, file="[red]:smile:[/] net.onnx")
    assert "[red]:smile:[/] net.onnx: in parity" in on_terminal(odd)


def test_rich_is_imported_where_there_is_a_terminal_alone():
    script = """
import io, lstm_onnx.parity.reports.table as table
from lstm_onnx.parity.report import ParityReport
table.show([ParityReport("f", "s", "cpu", ())], io.StringIO())
"""
    modules = imported_by(script)
    assert "lstm_onnx.parity.reports.table" in modules
    assert_without(modules, "rich", "torch", "onnx", "onnxruntime", "click")

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_onnx.bench.report import BenchmarkReport, LeftOut
from lstm_onnx.check import CheckReport, Finding
from lstm_onnx.doctor import Capability, Diagnosis
from lstm_onnx.errors import FileError, InputError, LSTMOnnxError, MissingDependencyError
from lstm_onnx.inspect import inspect
from lstm_onnx.terminal_text import MOST, MOST_MESSAGE, json_text, one_line, printable, safe_copy, table_lines

from .hostile_names import NAMES, unsafe

TEXT = st.text(st.characters() | st.sampled_from("\x1b\r\n\t:#[]\u202e\ud800 "), max_size=60)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain, ünïcode 中🙂", "plain, ünïcode 中🙂"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\r\nb\t c ", "a b c"),
        ("\n::error::x", r"\x3a:error::x"),
        ("##[error]x", r"#\x23[error]x"),
        ("##vso[task.complete]x", r"#\x23vso[task.complete]x"),
        ("## a heading", "## a heading"),
        ("right\u202eleft\u2028\ud800\uffff", r"right\u202eleft \ud800\uffff"),
        (b"bytes", "b'bytes'"),
        (None, "None"),
    ],
)
def test_one_line(text: object, line: str) -> None:
    assert one_line(text) == line
    assert one_line(line) == line


def test_the_middle_of_what_is_long_is_left_out() -> None:
    assert one_line("x" * MOST) == "x" * MOST
    cut = one_line("begin" + "x" * 100_000 + "end")
    assert len(cut) == MOST
    assert cut.startswith("beginx")
    assert " ... " in cut
    assert cut.endswith("xend")


def test_names_in_a_message_are_cut_before_the_message_is() -> None:
    told = str(FileError(f"a.onnx: {'n' * 100_000}: has the shape {'m' * 5000}; export it again"))
    assert len(told) < MOST_MESSAGE
    assert re.fullmatch(r"a\.onnx: n+ \.\.\. n+: has the shape m+ \.\.\. m+; export it again", told)


@given(TEXT)
def test_one_line_is_safe_and_stays_as_it_is(text: str) -> None:
    line = one_line(text, 50)
    assert unsafe(line) == []
    assert len(line) <= 50
    assert "\n" not in line


@given(st.lists(TEXT, max_size=5))
def test_printable_keeps_lines_and_their_words(lines: list[str]) -> None:
    text = printable("\n".join(lines))
    assert unsafe(text) == []
    assert text.count("\n") == "\n".join(lines).count("\n")
    assert printable(text) == text


def test_printable_knows_where_a_line_starts() -> None:
    assert printable("a\n  ::error::x") == "a\n  \\x3a:error::x"
    assert printable("::error::x", starts_line=False) == "::error::x"
    assert printable("x\n::error::x", starts_line=False) == "x\n\\x3a:error::x"
    assert printable("a\tb\n") == "a\tb\n"


@given(st.dictionaries(TEXT, st.lists(TEXT | st.integers() | st.none()), max_size=4))
def test_json_is_whole_and_safe(value: dict[str, Any]) -> None:
    text = json_text(value)
    assert json.loads(text) == value
    assert unsafe(text) == []
    assert text.isascii()


def test_json_has_no_word_for_infinities() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"a": float("inf")})
    assert json_text([float("nan")], indent=None, finite=False) == "[NaN]"


@dataclasses.dataclass(frozen=True)
class _Inner:
    name: str

    def __post_init__(self) -> None:
        if "\\" in self.name:
            raise ValueError("a name that this class does not take")


def test_every_text_of_a_report_is_made_safe_however_deep() -> None:
    value = (_Inner("a\x1b"), {"k\r": ["\ud800", 3, None]}, b"raw\xff", ("x", ("y\x07",)))
    made = safe_copy(value)
    assert made[0].name == "a\\x1b"
    assert made[1:] == ({"k": ["\\ud800", 3, None]}, "raw\\udcff", ("x", ("y\\x07",)))
    assert value[0].name == "a\x1b"


def test_two_names_that_look_the_same_are_two() -> None:
    assert safe_copy({"a\r": 1, "a": 2, "a\n": 3}) == {"a": 1, "a'": 2, "a''": 3}


@pytest.mark.parametrize("kind", [LSTMOnnxError, FileError, InputError, MissingDependencyError])
def test_the_message_of_an_error_is_one_safe_line(kind: type[LSTMOnnxError]) -> None:
    error = kind("net\n::error::x\x1b[2J: is\nnot so")
    assert str(error) == r"net ::error::x\x1b[2J: is not so"
    assert error.args == ("net\n::error::x\x1b[2J: is\nnot so",)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_reports_for_people_are_safe(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    from .hostile_names import write_model

    finding = Finding("lost-state", False, name, f"{name} is lost", f"give {name}")
    path = tmp_path_factory.mktemp("m") / "m.onnx"
    write_model(path, name)
    reports = [
        CheckReport(name, name, (finding,), (name,), (name,)),
        inspect(path),
        dataclasses.replace(inspect(path), notes=(name,), producer=name),
        Diagnosis(name, name, 1, {name: name}, (Capability(name, False, name),), (Capability(name, True, name),)),
        BenchmarkReport(name, _machine(name), (), (LeftOut(name, name),), (name,)),
    ]
    for report in reports:
        text = str(report)
        assert unsafe(text) == []
        assert len(text) < 20_000
        assert json.loads(json_text(report.to_dict())) == json.loads(json.dumps(report.to_dict()))  # whole


def _machine(name: str) -> Any:
    from lstm_onnx.bench.report import Machine

    return Machine(name, name, 1, (0,), name, {name: name})


def test_columns_line_up_and_lines_have_no_blanks_at_the_end():
    rows = [("name", "size", "note"), ("a", "1", ""), ("longer", "1,000", "x")]
    assert table_lines(rows, right=(1,)) == [
        "name     size  note",
        "a           1",
        "longer  1,000  x",
    ]


def test_columns_are_aligned_left_by_default():
    assert table_lines([("a", "b"), ("aa", "bb")]) == ["a   b", "aa  bb"]


def test_rows_have_equally_many_cells():
    with pytest.raises(ValueError, match="zip"):
        table_lines([("a", "b"), ("a",)])

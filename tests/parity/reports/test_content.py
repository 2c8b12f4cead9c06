from __future__ import annotations

from dataclasses import replace

import pytest

from lstm_onnx.parity.reports import content
from lstm_onnx.parity.results import Location, Range

from . import samples


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode 中🙂", "plain, ünïcode 中🙂"),
        ("two\nlines\tand  blanks ", "two lines and  blanks"),
        ("\x1b[31mred\x00", r"\x1b[31mred\x00"),
        ("right\u202eleft", r"right\u202eleft"),
        ("\ud800\uffff", r"\ud800\uffff"),
        ("\u2028::error::x", r"\x3a:error::x"),
        ("::error::x", r"\x3a:error::x"),
        ("a ##[error]x", r"a #\x23[error]x"),
        (7, "7"),
    ],
)
def test_clean(text, shown):
    assert content.clean(text) == shown
    assert content.clean(content.clean(text)) == shown


def test_what_is_very_long_is_cut():
    assert content.clean("x" * 400) == "x" * 400
    cut = content.clean("x" * 100_000)
    assert len(cut) == 400
    assert cut == f"{'x' * 197} ... {'x' * 198}"


def test_the_verdict_has_three_answers():
    assert content.verdict(samples.passing) == "in parity with PyTorch"
    assert content.verdict(samples.failing) == "NOT in parity with PyTorch"
    assert content.verdict(samples.undecided) == "NOT in parity with PyTorch"
    assert content.verdict(samples.unproven) == "in parity with PyTorch (NOT PROVEN)"


def test_the_summary_counts_what_was_judged():
    measure = "on cpu; an error may be up to 32 times PyTorch's own, and 32 roundings in any case"
    assert content.summary(samples.passing) == f"2 cases {measure}"
    assert content.summary(samples.failing) == f"1 of 3 cases failed {measure}"
    assert content.summary(replace(samples.passing, cases=(samples.SHORT,))) == f"1 case {measure}"
    assert content.summary(samples.undecided) == f"0 cases {measure}"


def test_large_errors_with_amplified_weights_are_explained():
    quiet = replace(samples.SHORT, tensors=(samples.tensor("output", 1e-7),))
    large = replace(quiet.tensors[0], error=0.195, torch_error=0.027, ratio=7.2, allowed=0.87)
    loud = replace(quiet, label="weights amplified, batch 3", tensors=(large,))
    (told,) = (one for one in content.remarks(replace(samples.passing, cases=(quiet, loud))) if "ampl" in one.label)
    assert told.label == "weights amplified:"
    assert told.text.endswith("with the weights as they are the largest error is 1e-07")
    assert content.amplified(replace(samples.passing, cases=(quiet,))) is None
    wrong = replace(loud, tensors=(replace(large, error=9.0, ratio=333.0),))
    assert content.amplified(replace(samples.passing, cases=(quiet, wrong))) is None


def test_rows_are_the_worst_of_each_output():
    wrong, _, right = content.rows(samples.failing)
    assert wrong.cells == ("output", "0.5", "4e-06", "1.25e-07", "4e+06", "[3, 0, 2] of batch 5, time 4, states")
    assert not wrong.passed
    assert right.cells == ("cn", "7e-08", "4e-06", "1.25e-07", "0.56", "[0, 0, 2] of batch 3, time 4, states")
    assert right.passed


def test_rows_say_what_the_problem_is():
    broken, misshapen = content.rows(samples.unbounded)
    assert broken.cells[1:5] == ("nan", "4e-06", "1.25e-07", "inf")
    assert broken.where == "[1, 0, 2] of batch 1, time 6, states: is not finite where PyTorch is"
    assert misshapen.cells[1:5] == ("inf", "-", "-", "inf")
    assert misshapen.where == "batch 1, time 6, states: has shape (1, 2), PyTorch's is (1, 1, 2)"


def test_remarks_say_where_why_and_what_to_do():
    cause, location, note = content.remarks(samples.failing)
    where = "layer 1, reverse, gate f, from step 2 on, output (row 0, feature 2) in batch 5, time 4, states"
    assert (location.label, location.text, location.bad) == ("first differs", f"in {where}", True)
    bare = replace(samples.failing, location=Location("batch 1, time 2", "output", 0, 1, 2))
    assert content.remarks(bare)[1].text == "from step 0 on, output (row 1, feature 2) in batch 1, time 2"
    assert (cause.label, cause.text) == ("likely cause:", "gate order of layer 1")
    assert cause.details == (("evidence:", "with it PyTorch gives the file's numbers"), ("fix:", "ONNX wants i,o,f,c"))
    assert note.text == "PyTorch's own error is too large in some cases"


def test_remarks_on_the_self_test():
    told, survivor, advice, _ = content.remarks(samples.unproven)
    assert told.text == "4 mutants: 2 rejected, 1 proven equivalent, 1 survived"
    assert (survivor.label, survivor.bad) == ("survived:", True)
    assert survivor.text == "time baked in (ratio 14.2 at batch 3, time 4, states)"
    assert (advice.label, "--data" in advice.text) == ("NOT PROVEN:", True)
    one = replace(samples.passing, mutants=samples.passing.mutants[:1])
    assert content.tried(one) == "1 mutant: 1 rejected"


def test_causes_come_before_errors():
    report = replace(samples.stopped, causes=samples.failing.causes, location=samples.failing.location)
    labels = [remark.label for remark in content.remarks(report)]
    assert labels == ["likely cause:", "first differs", "failed to run", "note:"]


def test_an_error_is_said_once():
    stopped, _ = content.remarks(samples.stopped)
    assert stopped.label == "failed to run"
    assert stopped.text == f"at batch 2, time 1, states and 1 more: {samples.STOPPED.error}"
    assert content.errors(samples.passing) == []


def test_nothing_judged_is_said():
    assert "no case could be judged" in [remark.text for remark in content.remarks(samples.undecided)]


def test_curves_are_of_the_longest_case_and_of_one_that_fails_where_there_is_one():
    ((case, tensor, growth),) = content.charted(samples.passing)
    assert (case, tensor.growth) == (samples.RIGHT, growth)  # the other one has a larger ratio, and a single step
    ((case, _, _),) = content.charted(samples.failing)
    assert case == samples.WRONG
    assert content.charted(samples.stopped) == []
    assert [tensor.output for _, tensor, _ in content.charted(samples.unbounded)] == ["output"]


def test_what_was_tried_is_told():
    told = content.remarks(samples.ranged)[0]
    assert (told.label, told.text) == ("tried:", "batch 1 to 3, 9; tokens 0 to 99; x -310 to 296")
    scattered = replace(samples.ranged, ranges=(Range("tokens", "integers", 0, 998, tuple(range(0, 1000, 2))),))
    assert content.ranges(scattered) == "tokens 500 between 0 and 998"


def test_the_allowed_error_fits_the_ratio_of_its_row():
    for row in content.rows(samples.failing):
        assert float(row.error) / float(row.ratio) * 32 == pytest.approx(float(row.allowed), rel=0.01)
        assert row.passed is (float(row.error) <= float(row.allowed))

"""No right module is rejected, and no wrong copy passes: a part of the sweep always, all of it when it is asked for."""

from __future__ import annotations

from collections import Counter

import pytest

from .drawn_modules import AFTER, BESIDE, KINDS, READS, drawn_module, reports

pytestmark = pytest.mark.sweep(6)


def _check(numbers: range, mutants: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for drawn, report in reports(numbers, mutants):
        assert report.in_parity, f"{drawn}\n{report}"
        assert not report.survivors, f"{drawn}: {report.survivors}"
        counts.update(mutant.outcome for mutant in report.mutants)
    return counts


# 551: a layer whose lengths show in no output, in half precision, which nodes between two operators round elsewhere.
# 1091: a float16 relu RNN that overflows once its weights are amplified, before a norm.
@pytest.mark.parametrize("number", [*range(2), 551, 1091])
def test_drawn_modules_are_in_parity_and_their_mutants_are_not(number: int) -> None:
    counts = _check(range(number, number + 1), "quick")
    assert counts["rejected"] > 3
    assert counts["survived"] == 0


def test_what_is_drawn_covers_what_there_is() -> None:
    drawn = [drawn_module(number) for number in range(400)]
    assert drawn[7] == drawn_module(7)
    assert {each.kind for each in drawn} == set(KINDS)
    assert {each.reads for each in drawn} == set(READS)
    assert {each.after for each in drawn} == set(AFTER)
    assert {each.beside for each in drawn} == set(BESIDE)
    assert {each.dtype for each in drawn} == {"float16", "float32", "float64"}
    assert {each.layers for each in drawn} == {1, 2, 3}
    assert {each.initial for each in drawn} == {"absent", "zeros", "learned", "given"}
    for name in ("bidirectional", "bias", "batch_first", "tokens", "padding", "lengths"):
        assert {getattr(each, name) for each in drawn} == {True, False}
    assert sum(bool(each.projection) for each in drawn) > 20


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 2000, 20))
def test_two_thousand_modules_and_their_mutants(first: int) -> None:
    _check(range(first, first + 20), "all")

"""No right file is rejected, and no wrong one passes: a part of the sweep always, all of it when it is asked for."""

from __future__ import annotations

from collections import Counter

import pytest

from .drawn_models import drawn_model, reports

pytestmark = pytest.mark.sweep(6)


def _check(numbers: range, mutants: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for drawn, report in reports(numbers, mutants):
        assert report.in_parity, f"{drawn}\n{report}"
        assert not report.survivors, f"{drawn}: {report.survivors}"
        counts.update(mutant.outcome for mutant in report.mutants)
        counts["cases"] += len(report.cases)
    return counts


def test_drawn_models_are_in_parity_and_their_mutants_are_not() -> None:
    counts = _check(range(3), "all")
    assert counts["rejected"] > 150
    assert counts["survived"] == 0


def test_what_is_drawn_covers_what_there_is() -> None:
    drawn = [drawn_model(number) for number in range(400)]
    assert drawn[7] == drawn_model(7)
    assert min(each.scale for each in drawn) < 0.0012
    assert max(each.scale for each in drawn) > 3.5
    assert max(time for each in drawn for _, time in each.shapes) > 380
    assert {each.spec.dtype for each in drawn} == {"float16", "float32", "float64"}
    assert {each.spec.num_layers for each in drawn} == {1, 2, 3, 4}
    for name in ("bidirectional", "batch_first", "bias"):
        assert len({getattr(each.spec, name) for each in drawn}) == 2
    folds = [each for each in drawn if each.spec.proj_size and each.options.projection == "fold"]
    scans = [each for each in drawn if each.spec.proj_size and each.options.projection == "scan"]
    assert min(len(folds), len(scans)) > 40
    assert len({each.options.lengths for each in drawn}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 2000, 100))
def test_two_thousand_models_and_all_of_their_mutants(first: int) -> None:
    _check(range(first, first + 100), "all")

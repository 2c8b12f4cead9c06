"""What conftest.py does to the tests: of each sweep, a part runs always."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

CONFTEST = """
    import pytest
    from tests.conftest import pytest_collection_modifyitems
"""
TESTS = """
    import pytest

    pytestmark = pytest.mark.sweep(4)

    @pytest.mark.sweep(3)
    @pytest.mark.parametrize("number", range(60))
    def test_it(number):
        pass

    @pytest.mark.sweep(3)
    def test_alone():
        pass

    @pytest.mark.parametrize("number", range(10))
    def test_of_the_file(number):
        pass
"""


def _ran(pytester: pytest.Pytester, *arguments: str) -> tuple[int, set[str]]:
    run = pytester.runpytest_inprocess("-p", "no:randomly", "-o", "markers=slow\nsweep", "-v", *arguments)
    ran = {line.split()[0].partition("::")[2] for line in run.outlines if " PASSED" in line}
    assert run.parseoutcomes()["passed"] == len(ran)
    return run.parseoutcomes().get("deselected", 0), ran


def test_of_each_family_one_of_so_many_parts_runs_always(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    deselected, ran = _ran(pytester, "-m", "not slow")
    assert deselected == 71 - 24
    assert sum(name.startswith("test_it[") for name in ran) == 20
    assert "test_alone" in ran
    assert sum(name.startswith("test_of_the_file[") for name in ran) == 3  # the rest of 10 / 4 counts as one
    assert _ran(pytester, "-m", "not slow")[1] == ran
    assert _ran(pytester, "-m", "slow")[1].isdisjoint(ran)
    assert len(_ran(pytester, "-m", "")[1]) == 71


def test_what_is_named_runs(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    path = pytester.makepyfile(TESTS)
    for number in range(10):
        name = f"{path.name}::test_of_the_file[{number}]"
        assert _ran(pytester, "-m", "not slow", name) == (0, {f"test_of_the_file[{number}]"})

"""What conftest.py does to the tests: of a sweep, one part runs always."""

from __future__ import annotations

import pytest

from .conftest import in_first_part

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_first_part_is_about_one_of_so_many(parts: int) -> None:
    names = [f"test_it[{number}]" for number in range(600)]
    first = [name for name in names if in_first_part(name, parts)]
    assert len(first) == pytest.approx(600 / parts, rel=0.15)
    assert first == [name for name in reversed(names) if in_first_part(name, parts)][::-1]


def test_the_others_are_slow(pytester: pytest.Pytester) -> None:
    conftest = """
        import pytest
        from tests.conftest import pytest_collection_modifyitems
    """
    pytester.makeconftest(conftest)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.sweep(3)
        @pytest.mark.parametrize("number", range(60))
        def test_it(number):
            pass
        """
    )
    run = pytester.runpytest_inprocess("-p", "no:randomly", "-o", "markers=slow", "-m", "not slow", "-q")
    ran = run.parseoutcomes()
    assert ran["passed"] + ran["deselected"] == 60
    assert 10 < ran["passed"] < 30

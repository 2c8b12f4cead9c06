"""Axes whose size follows from others."""

from __future__ import annotations

import pytest

from lstm_onnx.symbolic_dims import is_expression, least_size, names_in, size_of, with_names, without_quotients

SIZES = {"batch": 3, "time": 7}


@pytest.mark.parametrize(
    ("dim", "size"),
    [
        ("batch", 3),
        ("4*batch", 12),
        ("batch*time", 21),
        ("(((time - 1)//2)) + 1", 4),
        ("time + 3", 10),
        ("-batch + 2*time", 11),
        ("time % 4", 3),
        ("words", None),
        ("2*words", None),
        ("time//(batch - 3)", None),
        ("batch**9", None),
        ("f(batch)", None),
        ("1.5*batch", None),
        ("not an axis?", None),
        ("", None),
        ("+".join(["batch"] * 99), None),
    ],
)
def test_a_size_follows_from_the_others_or_is_not_known(dim: str, size: int | None) -> None:
    assert size_of(dim, SIZES) == size


def test_a_name_that_looks_like_an_expression_is_a_name_where_it_has_a_size() -> None:
    assert size_of("batch-size", {"batch-size": 5, "batch": 3, "size": 1}) == 5


def test_the_names_of_an_axis() -> None:
    assert names_in("4*batch + time//2") == {"batch", "time"}
    assert names_in("batch") == {"batch"}
    assert names_in("2*DynamicDimension.0 + DynamicDimension.1") == {"DynamicDimension.0", "DynamicDimension.1"}


@pytest.mark.parametrize(
    ("dim", "expected"),
    [
        ("4*time - 16", True),
        ("2*time", True),
        ("(time - 1)//2 + 1", True),
        ("batch*time", True),
        ("time", False),
        ("4", False),
        (4, False),
        ("time - ", False),
        ("time**2", False),
        ("f(time)", False),
        ("time.real", False),
        ("__import__('os').getpid()", False),
        ("1//(time - 1)", True),
        ("time + " * 60 + "1", False),
    ],
)
def test_what_is_an_expression(dim: object, expected: bool) -> None:
    assert is_expression(dim) is expected


@pytest.mark.parametrize(("dim", "least"), [("4*time - 16", 5), ("2*time", 1), ("time - 3", 4), ("(time - 5)//2", 7)])
def test_the_least_size_at_which_there_is_an_entry(dim: str, least: int) -> None:
    assert least_size(dim, "time") == least
    assert (size_of(dim, {"time": least - 1}) or 0) < 1


def test_other_names() -> None:
    assert with_names("4*s0 - 16", {"s0": "time"}) == "4*time - 16"
    assert with_names("2*s1 + s0", {"s1": "4*time - 16", "s0": "n"}) == "2*(4*time - 16) + n"
    assert with_names("s1", {"s1": "4*time - 16"}) == "4*time - 16"


@pytest.mark.parametrize(
    ("dim", "expected"),
    [
        ("(time*batch)//time", "batch"),
        ("((batch*time*4)//time) + 1", "batch*4 + 1"),
        ("time//time", "1"),
        ("(time*batch*batch)//batch//batch", "time"),
        ("(time*batch)//(time - 1)", "(time*batch)//(time - 1)"),
        ("(time + batch)//time", "(time + batch)//time"),
        ("time*batch//4", "time*batch//4"),
        ("((8*batch)//8)", "batch"),
        ("(8*batch*time)//4", "2*batch*time"),
        ("(8*batch + 16)//8", "batch + 2"),
        ("(time*batch - time)//time", "batch - 1"),
        ("(8*batch + 4)//8", "(8*batch + 4)//8"),
        ("(6*batch)//4", "(6*batch)//4"),
        ("(8*time - 4*batch)//4*2", "(2*time - batch)*2"),
        ("(8*batch)//0", "(8*batch)//0"),
        ("time*(batch//time)", "time*(batch//time)"),
        ("batch", "batch"),
        ("not an//axis?", "not an//axis?"),
    ],
)
def test_quotients_that_leave_no_rest_are_gone(dim: str, expected: str) -> None:
    found = without_quotients(dim)
    assert found == expected
    assert size_of(found, {"batch": 3, "time": 7}) == size_of(dim, {"batch": 3, "time": 7})

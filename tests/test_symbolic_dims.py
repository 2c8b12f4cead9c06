"""Axes whose size follows from others."""

from __future__ import annotations

import pytest

from lstm_onnx.symbolic_dims import names_in, size_of

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

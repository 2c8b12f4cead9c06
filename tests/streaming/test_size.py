"""Sizes as polynomials of the dynamic axes' names."""

from __future__ import annotations

from lstm_onnx.streaming.size import ONE, Size, product

BATCH, TIME = Size.of("batch"), Size.of("time")


def test_sums_and_products_of_the_same_are_equal() -> None:
    assert BATCH * TIME == TIME * BATCH
    assert Size.of(2) * TIME == TIME + TIME
    assert Size.of(0) == TIME - TIME
    assert product([BATCH, Size.of(3), TIME]) == Size.of(3) * TIME * BATCH
    assert product([]) == ONE


def test_a_size_knows_its_number_and_its_axes() -> None:
    assert Size.of(7).number == 7
    assert Size.of(0).number == 0
    assert TIME.number is None
    assert TIME.symbol == "time"
    assert (TIME - ONE).symbol is None
    assert (Size.of(2) * TIME).symbol is None
    assert (BATCH * TIME - ONE).names == {"batch", "time"}


def test_division_leaves_no_rest_or_is_none() -> None:
    assert (BATCH * TIME).divided(BATCH) == TIME
    assert (Size.of(6) * TIME).divided(Size.of(3)) == Size.of(2) * TIME
    assert (Size.of(6) * TIME).divided(Size.of(4)) is None
    assert TIME.divided(BATCH) is None
    assert (TIME - ONE).divided(TIME - ONE) == ONE
    assert TIME.divided(TIME - ONE) is None
    assert (BATCH * TIME + BATCH).divided(TIME + ONE) == BATCH
    assert ((BATCH - TIME) * (BATCH + TIME + ONE)).divided(BATCH - TIME) == BATCH + TIME + ONE
    assert (BATCH * TIME + BATCH + ONE).divided(TIME + ONE) is None
    assert (TIME * TIME - ONE).divided(Size.of(2) * TIME - Size.of(2)) is None
    assert TIME.divided(Size.of(0)) is None


def test_what_is_no_polynomial_keeps_the_axes_that_it_depends_on() -> None:
    half = Size.computed("floor", TIME, Size.of(2))
    assert half.names == {"time"}
    assert half.symbol is None
    assert (half * BATCH).names == {"batch", "time"}
    assert str(half) == "floor(time, 2)"
    assert half != Size.computed("floor", TIME, Size.of(3))


def test_sizes_are_shown_as_people_write_them() -> None:
    assert str(Size.of(2) * TIME - ONE) == "2*time + -1"
    assert str(Size.of(0)) == "0"


def test_a_product_is_read_from_text() -> None:
    assert Size.of_product("9*batch") == Size.of(9) * BATCH
    assert Size.of_product("time * batch") == BATCH * TIME
    assert Size.of_product("batch//2") is None
    assert Size.of_product("batch + 1") is None

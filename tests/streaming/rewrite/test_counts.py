"""How many steps there are: decided for all lengths by a finite range of them."""

from __future__ import annotations

import random

import pytest

from lstm_onnx.streaming.rewrite.counts import (
    Count,
    Gate,
    Input,
    Least,
    Stage,
    TooLongError,
    equal,
    largest_lead,
    largest_rest,
    total_multiple,
)
from lstm_onnx.streaming.rewrite.lengths import Lengths, count_by
from lstm_onnx.streaming.size import Size

LONG = range(700)


def drawn(rng: random.Random, depth: int) -> Count:
    count: Count = Input()
    for _ in range(depth):
        kind = rng.random()
        if kind < 0.15:
            count = Gate(count, rng.randint(1, 4), rng.randint(0, 3))
        else:
            count = Stage(count, rng.choice([1, 1, 2]), rng.randint(-5, 5), rng.randint(0, 4), rng.choice([1, 1, 2, 3]))
    return count


@pytest.mark.parametrize("seed", range(40))
def test_what_is_decided_by_a_range_holds_for_long_sequences(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - a test, not a secret
    one, other = drawn(rng, 3), drawn(rng, 3)
    assert equal(one, one)
    same = all(one.value(m, ended=e) == other.value(m, ended=e) for m in LONG for e in (False, True))
    assert equal(one, other) == same
    assert largest_rest(one) == max(one.total(m) - one.available(m) for m in LONG[one.settled :])
    steps = [one.available(m) for m in LONG]
    assert steps == sorted(steps)
    for m in range(one.settled, 300):
        assert one.available(m + one.period) - one.available(m) == one.rate * one.period
    if one.rate == other.rate:
        least = Least((one, other))
        assert largest_lead(one, least) == max(one.available(m) - least.available(m) for m in LONG)


def test_lengths_may_be_equal_for_multiples_alone() -> None:
    halved = Stage(Stage(Input(), by=2), times=2)
    assert total_multiple([Input(), halved]) == 2
    assert total_multiple([Input(), Stage(Input(), plus=-1)]) is None
    assert total_multiple([Input(), Stage(Input(), by=2)]) is None
    assert total_multiple([Stage(Input(), plus=-1), Stage(Input(), plus=-2, at_end=1)]) == 1


def test_a_stage_that_repeats_after_very_many_steps_is_refused() -> None:
    with pytest.raises(TooLongError, match="repeat only after"):
        equal(Stage(Stage(Input(), by=1009), by=1013), Stage(Input(), by=1009 * 1013))


def test_a_size_is_counted_where_it_is_a_floor_of_the_steps() -> None:
    lengths, steps = Lengths("time"), Size.of("time")
    halves = lengths.floor(steps, 2)
    for size, wanted in (
        (halves * Size.of(2), lambda m: m // 2 * 2),
        (lengths.floor(steps - Size.of(3), 2) + Size.of(1), lambda m: (m - 1) // 2),
        (lengths.floor(steps - Size.of(3), 2) * Size.of(2) + Size.of(3), lambda m: (m + 1) // 2 * 2 - 1),
        (steps - Size.of(5), None),  # below 0 for the first steps
        (lengths.floor(halves + Size.of(1), 3) * Size.of(6) + Size.of(2), lambda m: (m // 2 + 1) // 3 * 6 + 2),
        (lengths.floor(halves * Size.of(3) + Size.of(1), 2), lambda m: (m // 2 * 3 + 1) // 2),
        (steps - halves, None),
        (steps * Size.of("batch"), None),
        (Size.of(7), None),
    ):
        count = count_by(lengths, size)
        assert (count is None) == (wanted is None), str(size)
        if count is not None and wanted is not None:
            assert [count.total(m) for m in range(1, 50)] == [wanted(m) for m in range(1, 50)]
            assert count.ends_early


def test_a_size_times_a_batch_is_no_less_only_where_it_is_not_negative() -> None:
    lengths, batch, steps = Lengths("time"), Size.of("batch"), Size.of("time") - Size.of(3)
    assert lengths.steps_for(batch * steps, 0) == 3
    assert lengths.steps_for(batch * steps, 1) == 4
    assert lengths.steps_for(batch * steps, -5) is None  # at 1 step and a batch of 4 it is -8

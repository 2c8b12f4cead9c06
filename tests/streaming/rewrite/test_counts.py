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

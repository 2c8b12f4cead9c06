"""Where states lie: whatever steps in whatever groups, each slot has its own, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_onnx.runtime.pool.state_memory import SlotStates

SLOTS = 7
AXES = {"h": 1, "c": 0}
FRESH = {"h": np.zeros((2, 1, 3), np.float32), "c": np.full((1, 2), 5.0)}


def made() -> SlotStates:
    return SlotStates(FRESH, AXES, SLOTS)


def step(states: SlotStates, rows: list[int], cut_at: int | None = None) -> int:
    """Add its row's number, and one, to every state of `rows`; where they lay."""
    row_ranges = ((0, len(rows)),) if cut_at is None else ((0, cut_at), (cut_at, len(rows)))
    offset = states.offset(rows)
    active = states.activate(rows, offset, row_ranges)
    assert active.offset == offset
    before = states.whole(active)
    added = np.array(rows) + 1.0
    after = {
        name: (array + added.reshape([-1 if axis == AXES[name] else 1 for axis in range(array.ndim)])).astype(
            array.dtype
        )
        for name, array in before.items()
    }
    states.set_next(active, after)
    states.advance(active)
    return offset


def counted(states: SlotStates, row: int) -> float:
    """How often `row` has stepped since it was fresh, if all of its numbers agree."""
    found = {
        float(value) for name, array in states.read(row).items() for value in ((array - FRESH[name]) / (row + 1)).flat
    }
    (times,) = found
    return times


some_rows = st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=SLOTS, unique=True)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("step"), some_rows, st.booleans()),
        st.tuples(st.just("write"), st.integers(0, SLOTS - 1)),
        st.tuples(st.just("read"), st.integers(0, SLOTS - 1)),
        st.tuples(st.just("let go"), some_rows),
    ),
    max_size=30,
)


@given(operations)
def test_any_order_of_steps_and_looks(done):
    states, times = made(), [0] * SLOTS
    for what, *rest in done:
        if what == "step":
            rows, row_range = rest
            step(states, rows, len(rows) // 2 if row_range and len(rows) > 1 else None)
            for row in rows:
                times[row] += 1
        elif what == "write":
            states.write(rest[0], FRESH)
            times[rest[0]] = 0
        elif what == "read":
            assert counted(states, rest[0]) == times[rest[0]]
        else:
            states.release(rest[0])
    assert [counted(states, row) for row in range(SLOTS)] == times


def gathers(states: SlotStates, groups: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many copies are made when `groups` step."""
    made_copies = 0
    take = np.take

    def counting(*arguments, **options):
        nonlocal made_copies
        made_copies += 1
        return take(*arguments, **options)

    monkeypatch.setattr(np, "take", counting)
    for rows in groups:
        step(states, rows)
    return made_copies // len(FRESH)


@pytest.mark.parametrize(
    ("groups", "copies"),
    [
        ([[0, 1, 2, 3, 4, 5, 6]] * 5, 1),
        ([[3]] * 5, 1),
        ([[0, 2, 4], [1, 3]] * 5, 2),  # two groups by turns lie side by side
        ([[0, 2, 4], [1, 3], [5, 6]] * 2, 6),  # three do not
        ([[0, 1], [1, 2]] * 3, 6),  # nor do two that share a slot
        ([[0, 1], [1, 0]] * 3, 6),
    ],
)
def test_what_steps_again_is_not_copied(monkeypatch, groups, copies):
    assert gathers(made(), groups, monkeypatch) == copies


def test_batches_lie_at_the_ends_so_that_few_places_are_bound():
    states = made()
    assert step(states, [4, 5]) == 0
    assert step(states, [0, 1, 2]) == SLOTS - 3
    assert step(states, [4, 5]) == 0
    assert step(states, [3, 6]) == SLOTS - 2  # in the place of the one that stepped longest ago
    assert step(states, [0, 1, 2, 3, 4, 5, 6]) == 0
    assert step(states, [2]) == 0

"""A sweep over a module with a loop in Python goes by the operators that PyTorch runs."""

from __future__ import annotations

from lstm_onnx.parity.modules.sizes import axis_sizes, sizes_together
from lstm_onnx.parity.sizes import Axes


def test_fewer_steps_of_a_loop_of_many_operators_are_tried() -> None:
    base = {"batch": 1, "time": 3}

    def steps(operators: float) -> list[int]:
        found = axis_sizes("time", base, Axes(), 300, 18.0, batch=False, count=lambda at: operators * at["time"])
        return [sizes["time"] for sizes in found]

    usual, looped = steps(0), steps(80)
    assert set(looped) < set(usual)
    assert {1, 2, 3, 12, 300} <= set(looped)
    assert sum(looped) < 2000 < sum(usual)


def test_several_rows_of_a_loop_are_fewer() -> None:
    def at(batch: int, time: int) -> dict[str, int]:
        return {"batch": batch, "time": time}

    assert len(sizes_together(at(2, 3), at, 300, 18.0)) == 4
    assert len(sizes_together(at(2, 3), at, 300, 18.0, lambda sizes: 800.0 * sizes["time"])) == 2

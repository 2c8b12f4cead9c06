"""What the comparison with the source takes for rounding."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lstm_onnx.repairs.proof import _Outputs, random_inputs
from lstm_onnx.runtime.tensor_info import ValueInfo


def outputs(error: float, *, scale: float = 1.0) -> str:
    """The difference between files with one number as their output, of which one is close to zero by chance."""
    compared = _Outputs()
    for number in (0.5, 7e-4):
        whole = np.float32([[number * scale]])
        assert compared.add({"y": whole + np.float32(error)}, {"y": whole}, {"y": whole}) == ""
    return compared.difference()


def test_a_number_close_to_zero_is_rounded_as_the_others_are():
    assert outputs(3e-8) == ""
    assert outputs(1e-4) == "y: it is off by 0.0001; the largest number is 0.5"
    assert "off by" in outputs(3e-8, scale=1e-6)  # where all are small


@pytest.mark.parametrize("shape", [(1, 2), (2, 1)])
def test_another_shape_is_a_difference_at_once(shape: tuple[int, int]):
    found, whole = np.zeros(shape), np.zeros((2, 2))
    assert _Outputs().add({"y": found}, {"y": whole}, {"y": whole}) == f"y has shape {shape} instead of (2, 2)"


@pytest.mark.parametrize(
    ("first", "second", "shapes"),
    [
        (("a", "b", 4), ("c", "d", 3), [(3, 9, 4), (3, 9, 3)]),  # as tf2onnx names them
        ((None, None, 4), (None, 6), [(3, 9, 4), (3, 6)]),
        (("time", "batch", 4), ("batch",), [(3, 9, 4), (9,)]),
        (("batch", "time", 4), ("batch", "other"), [(3, 9, 4), (3, 9)]),
        (("time", 4), ("2*time", 4), [(3, 4), (6, 4)]),
    ],
)
def test_the_batch_has_one_size_in_all_inputs(first: tuple, second: tuple, shapes: list):
    infos = {name: ValueInfo(name, np.dtype("float32"), shape) for name, shape in (("x", first), ("z", second))}
    feeds = random_inputs(SimpleNamespace(inputs=infos, states={}), (3, 9), 0)
    assert [array.shape for array in feeds.values()] == shapes

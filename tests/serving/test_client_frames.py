"""What a client checks of a frame: the server sees the bytes of all inputs together."""

from __future__ import annotations

import numpy as np
import pytest

from lstm_onnx.errors import InputError
from lstm_onnx.runtime import ValueInfo
from lstm_onnx.serving.client_frames import ClientFrames
from lstm_onnx.serving.frames import FrameLayout

LAYOUT = FrameLayout(
    tuple(
        ValueInfo(name, np.dtype(np.float32), shape)
        for name, shape in (("x", (1, "time", 3)), ("y", (1, "time", 5)), ("z", (1, "2*time")), ("w", (2,)))
    ),
    (ValueInfo("out", np.dtype(np.float32), (1, "time", 1)),),
    "time",
)


def _arrays(x: int, y: int, z: int) -> dict[str, np.ndarray]:
    shapes = {"x": (1, x, 3), "y": (1, y, 5), "z": (1, z), "w": (2,)}
    return {name: np.random.default_rng(0).standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_frame_is_read_as_it_was_meant() -> None:
    described = LAYOUT.to_dict()
    assert described["elements"] == {"x": [3, 3], "y": [5, 5], "z": [2, 2], "w": [2, 0]}
    frames = ClientFrames.of(described)
    for steps in (1, 2, 7):
        arrays = _arrays(steps, steps, 2 * steps)
        found = LAYOUT.arrays(frames.frame(arrays))
        assert all(np.array_equal(found[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("sizes", [(9, 1, 8), (4, 4, 7), (5, 4, 5)])
def test_steps_that_differ_are_refused_though_the_bytes_may_be_right(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="the inputs have different numbers of steps: x has"):
        ClientFrames.of(LAYOUT.to_dict()).frame(_arrays(*sizes))


def test_a_server_that_says_too_little_is_told_from_one_that_fails() -> None:
    with pytest.raises(ConnectionError, match="its lstm-onnx is too old"):
        ClientFrames.of({"inputs": [], "outputs": []})

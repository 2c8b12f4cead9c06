"""Cases that are made from a drawn one."""

from __future__ import annotations

import numpy as np
import pytest

from lstm_onnx.input_spec import InputSpec
from lstm_onnx.parity.cases import Case, integer_cases, value_cases


@pytest.mark.parametrize(
    ("dtype", "shape", "least", "most"),
    [
        ("int64", (), -100, 100),
        ("int32", (500,), -100, 100),
        ("uint8", (4000,), 0, 255),
        ("int16", (9,), -(2**15), 2**15),
    ],
)
def test_integers_keep_their_shape_and_dtype(dtype: str, shape: tuple[int, ...], least: int, most: int) -> None:
    case = Case("drawn", {"n": np.ones(shape, dtype), "x": np.ones(2, np.float32)})
    steps, any_sign = integer_cases(case, ["n"], 7, np.random.default_rng(0))
    for made in (steps, any_sign):
        assert (made.feeds["n"].shape, made.feeds["n"].dtype.name) == (shape, dtype)
        assert made.feeds["x"] is case.feeds["x"]
    assert steps.label == "drawn, n of 0 to 7"
    assert 0 <= steps.feeds["n"].min() <= steps.feeds["n"].max() <= 7
    assert least <= any_sign.feeds["n"].min() <= any_sign.feeds["n"].max() <= most
    if len(shape) and shape[0] > 100:
        assert (any_sign.feeds["n"].min(), any_sign.feeds["n"].max()) == (least, most)


def test_integers_beyond_one_end_of_their_range() -> None:
    """Padding of -100 that is clamped to 0 before a look-up."""
    case = Case("drawn", {"n": np.arange(3, 9)})
    made = integer_cases(case, ["n"], 7, np.random.default_rng(0), lambda feeds: bool(feeds["n"].max() <= 8))
    assert [one.label for one in made] == ["drawn, n of 0 to 7", "drawn, n of -100 to 8"]


def test_halves_and_steps_of_zeros() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    spec = InputSpec("x", ("batch", "time", 3))
    made = value_cases(Case("drawn", {"x": x}), [spec], [], 1.0, "float32", None, {"x": 0}, {"x": 1})
    found = {case.label.removeprefix("drawn, "): case.feeds["x"] for case in made}
    exact = found["input whole numbers and halves"]
    assert (exact * 2 == np.round(exact * 2)).all()
    assert np.unique(exact % 1).tolist() == [0.0, 0.5]
    assert np.abs(exact - x).max() <= 0.25
    tiny = np.abs(found["tiny input"]).max(axis=(1, 2))
    assert tiny[0] > 1e-8 > 1e-12 > tiny[1] > 0  # beside the smallest norm that `normalize` divides by
    for label, at in (("zeros at the end", 3), ("zeros after the first step", 1)):
        assert (found[label] == 0).all(axis=(0, 2)).tolist() == [step == at for step in range(4)]

"""Which cases of a sweep a file can be judged by."""

from __future__ import annotations

import numpy as np
import pytest

from lstm_onnx.parity.expected import Call, Expected
from lstm_onnx.parity.modules.sizes import is_conclusive

_INF, _NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("native", "reference", "conclusive"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, -_INF], [1.0, -_INF], True),  # as of a logit that is masked
        ([1.0, _INF], [1.0, 1e300], False),
        ([1.0, _INF], [1.0, -_INF], False),
        ([1.0, _NAN], [1.0, _NAN], True),
        ([1.0, _NAN], [1.0, 2.0], False),
        ([1.0], [1.0, 2.0], False),
        ([1.1, -_INF], [1.0, -_INF], False),  # a chaotic model
    ],
)
def test_what_is_not_finite_must_be_the_same(native: list[float], reference: list[float], conclusive: bool) -> None:
    call = Call({}, {"y": np.array(native)}, {"y": np.array(reference)})
    assert is_conclusive(Expected("", (call,), "float32", 1.0)) is conclusive
    values = Expected("", (call,), "float32", 1.0, "values")
    assert is_conclusive(values) is (conclusive and not np.isnan(native).any())

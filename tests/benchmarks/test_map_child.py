from __future__ import annotations

import numpy as np

from .map_child import Ahead, peak_bytes


def test_the_peak_is_of_this_process_and_never_falls():
    before = peak_bytes()
    assert 10_000_000 < before < 10**11
    ones = np.ones(2**27 // 8)  # 128 MiB that are touched
    assert peak_bytes() >= before
    del ones


def test_what_is_ahead():
    ahead = Ahead([3, 5, 2], features=4, outputs=6, dtype="float32", seed=0)
    sequences = iter(ahead)
    assert next(sequences).shape == (3, 4)
    assert next(sequences).shape == (5, 4)
    ahead.gave_back()
    assert next(sequences).shape == (2, 4)
    assert (ahead.most, ahead.most_bytes) == (2, (3 + 5) * 10 * 4)

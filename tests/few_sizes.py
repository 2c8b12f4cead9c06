"""Verification at few sizes of each axis, for tests that are about something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def few_sizes(request: pytest.FixtureRequest) -> Iterator[None]:
    """In runs without slow tests, verify at some 20 sizes of each axis, and not at 120.

    Not where the file of the tests says EVERY_SIZE = True, as its subject is what is wrong at some sizes alone.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.config.option.markexpr == "not slow" and not getattr(request.module, "EVERY_SIZE", False):
            patch.setattr("lstm_onnx.parity.modules.sizes.MOST_WORK", 1e9)
            patch.setattr("lstm_onnx.parity.lstm.sizes._MOST_STEPS", 1500)
            patch.setattr("lstm_onnx.parity.lstm.sizes._LARGEST_BATCH", 129)
        yield

"""What an nn.LSTM gives where its input has a number that is not finite."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..special_values import Probe, special_cases
from .verification import LSTMVerification, expectations


def lstm_probes(verification: LSTMVerification) -> Iterator[Probe]:
    """Of its input."""
    for special in special_cases(verification, ["input"]):
        expected = next(expectations(verification.models, verification.spec, special.case))
        states = (expected.calls[0].native[name] for name in ("hn", "cn"))
        finite = all(bool(np.isfinite(state).all()) for state in states)
        yield Probe(special, expected, verification.model.hides_nan and not finite)

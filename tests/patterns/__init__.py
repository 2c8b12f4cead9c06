"""Modules written after those of public code, each tried as its user would: from an example alone."""

from tests.patterns import (
    audio,
    control,
    encoders,
    machines,
    matching,
    records,
    sentences,
    series,
    speech,
    text,
    vision,
    voices,
)
from tests.patterns.pattern import Pattern

__all__ = ["ALL", "Pattern"]

ALL: tuple[Pattern, ...] = (
    *speech.PATTERNS,
    *audio.PATTERNS,
    *voices.PATTERNS,
    *text.PATTERNS,
    *sentences.PATTERNS,
    *matching.PATTERNS,
    *vision.PATTERNS,
    *series.PATTERNS,
    *machines.PATTERNS,
    *records.PATTERNS,
    *encoders.PATTERNS,
    *control.PATTERNS,
)

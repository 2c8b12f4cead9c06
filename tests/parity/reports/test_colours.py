from __future__ import annotations

import math
import re

import pytest

from lstm_onnx.parity.reports.colours import LEVELS, linear_srgb, oklab, scale


def test_lightness_grows_evenly():
    steps = [math.dist(oklab(level), oklab(level + 1)) for level in range(LEVELS - 1)]
    assert max(steps) == pytest.approx(min(steps))
    lightness = [oklab(level)[0] for level in range(LEVELS)]
    assert lightness == sorted(lightness)


def test_every_colour_is_one_that_a_screen_has():
    """So that nothing is clipped, which would make the steps uneven."""
    assert all(0 <= part <= 1 for level in range(LEVELS) for part in linear_srgb(oklab(level)))


def test_known_colours():
    """White, black and red, as the author of Oklab gives them."""
    assert linear_srgb((1, 0, 0)) == pytest.approx((1, 1, 1), abs=1e-3)
    assert linear_srgb((0, 0, 0)) == (0, 0, 0)
    assert linear_srgb((0.62796, 0.22486, 0.12585)) == pytest.approx((1, 0, 0), abs=1e-3)


def test_the_scale():
    colours = scale()
    assert len(colours) == len(set(colours)) == LEVELS
    assert all(re.fullmatch(r"#[0-9a-f]{6}", colour) for colour in colours)

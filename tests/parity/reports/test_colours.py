"""The colours of heat maps in page.css are the scale that the test computes in Oklab."""

from __future__ import annotations

import math
import re
from importlib.resources import files

import pytest

from lstm_onnx.parity.reports.charts import LEVELS

_LIGHTNESS = 0.30, 0.94
_HUE = 295.0, 103.0
"""Degrees; the way goes over blue and green."""
_CHROMA = 0.092
"""What sRGB has at every lightness and hue on the way."""


def oklab(level: int) -> tuple[float, float, float]:
    """Lightness and the two axes of colour of a level, of `LEVELS`."""
    at = level / (LEVELS - 1)
    hue = math.radians(_HUE[0] + at * (_HUE[1] - _HUE[0]))
    lightness = _LIGHTNESS[0] + at * (_LIGHTNESS[1] - _LIGHTNESS[0])
    return lightness, _CHROMA * math.cos(hue), _CHROMA * math.sin(hue)


def linear_srgb(lab: tuple[float, float, float]) -> tuple[float, float, float]:
    """From Oklab; within 0 and 1 where sRGB has the colour."""
    lightness, a, b = lab
    l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3  # noqa: E741 - the cones' names are l, m and s
    m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
    )


def scale() -> list[str]:
    """The levels from low to high, as ``#rrggbb``."""
    return ["#" + "".join(f"{_encoded(part):02x}" for part in linear_srgb(oklab(level))) for level in range(LEVELS)]


def _encoded(linear: float) -> int:
    """A channel as sRGB keeps it, of 255."""
    within = min(max(linear, 0.0), 1.0)
    curved = 12.92 * within if within <= 0.0031308 else 1.055 * within ** (1 / 2.4) - 0.055
    return round(255 * curved)


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
    css = files("lstm_onnx.parity.reports").joinpath("page.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"\.(h\d+)\{fill:(#[0-9a-f]{6})\}", css))
    assert len(set(colours.values())) == LEVELS
    assert colours == {f"h{level}": colour for level, colour in enumerate(scale())}

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from lstm_onnx.parity.criterion import Growth
from lstm_onnx.parity.reports.charts import LEVELS, curve, has_unbounded, heat_map, powers

from .samples import BOUND, OWN, growth

RISING = growth((0.0, 1e-7, 1e-6, 1e-5, 1e-3, 0.1))
BROKEN = growth((1e-7, math.nan, math.inf, 1e-7))
SINGLE = growth((1e-7,))
LONG = growth(tuple(1e-7 * (1 + step % 7) for step in range(4000)))
DRAWN = {"rising": RISING, "broken": BROKEN, "single": SINGLE, "long": LONG}


def drawn(made: str) -> ET.Element:
    return ET.fromstring(made)  # noqa: S314 - our own


def of_class(root: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in root.iter() if name in element.get("class", "").split()]


def points(root: ET.Element, name: str) -> list[list[tuple[float, float]]]:
    lines = [element for element in of_class(root, name) if element.tag == "polyline"]
    return [[tuple(map(float, pair.split(","))) for pair in line.get("points").split()] for line in lines]


@pytest.mark.parametrize("made", DRAWN.values(), ids=DRAWN.keys())
@pytest.mark.parametrize("draw", [curve, heat_map])
def test_every_number_lies_within_the_drawing(draw, made):
    root = drawn(draw(made, "a"))
    left, top, width, height = map(float, root.get("viewBox").split())
    assert (left, top) == (0, 0)
    for element in root.iter():
        for name, most in (("x", width), ("y", height), ("cx", width), ("cy", height)):
            if name in element.attrib:
                assert 0 <= float(element.get(name)) <= most
        for pair in element.get("points", "").split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


@pytest.mark.parametrize("draw", [curve, heat_map])
def test_it_is_named_and_told_in_words(draw):
    root = drawn(draw(RISING, "own"))
    assert root.get("role") == "img"
    title, desc = root.get("aria-labelledby").split()
    assert title.startswith("own-")
    assert root.find("title").get("id") == title
    assert root.find("desc").get("id") == desc
    assert "4e-06" in root.findtext("desc")


def test_words_of_a_curve():
    told = drawn(curve(RISING, "a")).findtext("desc")
    assert told == (
        "Over 6 steps the largest error is 0.1, at step 5; PyTorch's own is at most 1.25e-07; "
        "the bound is 4e-06, and step 3 is the first above it."
    )
    assert "no step is above it" in drawn(curve(SINGLE, "a")).findtext("desc")
    assert "the largest error is nan, at step 1" in drawn(curve(BROKEN, "a")).findtext("desc")


def test_larger_errors_lie_higher():
    root = drawn(curve(RISING, "a"))
    (file,), (own,), (bound,) = (points(root, name) for name in ("file", "own", "bound"))
    assert all(before[0] < after[0] and before[1] > after[1] for before, after in pairwise(file))
    heights = {y for _, y in bound}
    assert len(heights) == 1
    above = [y < min(heights) for _, y in file]
    assert above == [error > BOUND for error in RISING.error]
    assert len({y for _, y in own}) == 1
    # The distance of the bound from PyTorch's own error is K, on the scale of the ticks.
    ticks = {element.text: float(element.get("y")) for element in of_class(root, "tick")}
    decade = (ticks["10⁻⁹"] - ticks["10⁻¹"]) / 8
    assert own[0][1] - min(heights) == pytest.approx(decade * math.log10(BOUND / OWN), abs=0.2)


def test_the_first_step_above_the_bound_is_marked():
    root = drawn(curve(RISING, "a"))
    ((top, _),) = points(root, "first")
    assert top[0] == points(root, "file")[0][3][0]
    assert "step 3" in [element.text for element in of_class(root, "label")]
    assert not of_class(drawn(curve(SINGLE, "a")), "first")


def test_what_is_not_finite_is_marked():
    root = drawn(curve(BROKEN, "a"))
    assert [len(line) for line in points(root, "file")] == [1, 1]
    assert len(points(root, "broken")) == 1
    assert has_unbounded(BROKEN)
    assert not has_unbounded(RISING)
    assert not points(drawn(curve(RISING, "a")), "broken")
    (cells,) = of_class(drawn(heat_map(BROKEN, "a")), "broken")
    assert cells.get("d") == "M1 0h2v1h-2zM1 1h2v1h-2zM1 2h2v1h-2z"


def test_a_single_step_is_a_dot():
    root = drawn(curve(SINGLE, "a"))
    assert len(of_class(root, "dot")) == 2
    assert not of_class(drawn(curve(LONG, "a")), "dot")


def test_a_long_curve_keeps_its_peaks_and_stays_small():
    errors = [1e-7] * 4000
    errors[1234] = 0.5
    made = curve(growth(tuple(errors)), "a")
    assert len(made) < 20_000
    (file,) = points(drawn(made), "file")
    assert len(file) <= 360
    peak = min(file, key=lambda point: point[1])
    assert peak[0] == pytest.approx(36 + 314 * 1234 / 3999, abs=0.1)


def test_cells_of_a_heat_map_tile_it():
    made = heat_map(RISING, "a")
    root = drawn(made)
    (cells,) = (element for element in root.iter("svg") if element is not root)
    assert cells.get("viewBox") == "0 0 6 3"
    colour: dict[tuple[int, int], int] = {}
    for path in cells:
        level = int(path.get("class")[1:])
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path.get("d")):
            for column in range(int(x), int(x) + int(width)):
                assert (column, int(y)) not in colour
                colour[column, int(y)] = level
    assert set(colour) == {(column, row) for column in range(6) for row in range(3)}
    assert colour[0, 0] == 0
    assert colour[5, 0] == LEVELS - 1
    for row in range(3):
        along = [colour[column, row] for column in range(6)]
        assert along == sorted(along)
    assert colour[4, 0] > colour[4, 2]


def test_a_heat_map_of_the_most_cells_is_small():
    """64 by 64 cells, no two neighbours alike."""
    steps = tuple(range(64))
    heat = tuple(tuple(BOUND * 10.0 ** ((7 * i + 11 * j) % 31 / 10 - 2.9) for j in steps) for i in steps)
    made = heat_map(Growth((1e-7,) * 64, (OWN,) * 64, BOUND, steps, steps, heat), "a")
    assert len(made) < 80_000


def test_the_scale_goes_to_the_bound_or_beyond():
    assert powers(SINGLE) == (-10, -5)
    assert powers(RISING) == (-10, -1)
    assert powers(BROKEN) == (-10, -5)
    texts = [element.text for element in drawn(heat_map(SINGLE, "a")).iter("text")]
    assert "bound" in texts
    assert "to 4e-09" in texts
    assert "0.1" in [element.text for element in drawn(heat_map(RISING, "a")).iter("text")]


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e-40, 1e38, 1.7976931348623157e308])
def test_errors_of_any_size_are_drawn(scale):
    made = replace(RISING, error=(0.0, scale))
    texts = [element.text for element in drawn(curve(made, "a")).iter("text")]
    assert len(texts) < 20
    assert heat_map(replace(made, heat=tuple((error,) for error in made.error), features=(0,)), "a")


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 11, 12, 60, 61, 100, 101, 400, 999, 5001])
def test_there_are_a_few_round_ticks(steps):
    root = drawn(curve(growth((1e-7,) * steps), "a"))
    ticks = [int(element.text) for element in of_class(root, "tick") if element.text.isdecimal()]
    assert ticks[0] == 0
    assert 1 <= len(ticks) <= 6
    assert ticks[-1] < steps
    assert steps < 3 or len(ticks) > 1
    assert len({after - before for before, after in pairwise(ticks)}) <= 1

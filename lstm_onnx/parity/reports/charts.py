"""Draws charts of the error: curves over time on a logarithmic scale, and heat maps over time and feature.

The charts are SVG with colours and strokes from the page's stylesheet, so that they follow light and dark mode; one
unit is about one pixel on a phone's screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from markupsafe import Markup

from ..criterion import nan_as_inf
from .content import number

if TYPE_CHECKING:
    from ..criterion import Growth

LEVELS = 32
"""Colours of a heat map, the classes h0 to h31 of page.css.

They run in Oklab (Björn Ottosson, "A perceptual color space for image processing", 2020) from a dark violet over teal
to a light yellow at evenly growing lightness, so that they can be read without colour vision and in grey.
"""
_WIDTH, _HEIGHT = 360.0, 200.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 36.0, 10.0, 16.0, 32.0
"""Margins."""
_ACROSS, _DOWN = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_BELOW_BOUND = 4
"""How many powers of ten below the bound are shown."""
_LEAST_OF_BOUND = 1e-3
"""Errors up to this share of the bound have the darkest colour."""
_MOST_POINTS = 360
_FEW_POINTS = 24
"""The largest number of steps that are marked one by one."""
_BAR = 34.0
"""The height of a heat map's scale."""
_TINY = 1e-300


def powers(growth: Growth) -> tuple[int, int]:
    """The powers of ten at the ends of the error axis: well below the bound, and above the largest error."""
    values = [growth.bound, *growth.error, *growth.torch_error]
    largest = max((value for value in values if math.isfinite(value)), default=0.0)
    bound = math.floor(_log(growth.bound))
    return bound - _BELOW_BOUND, max(math.ceil(_log(largest)), bound + 1)


def curve(growth: Growth, ident: str) -> Markup:
    """The largest error at each step, PyTorch's own, and the bound; `ident` is unique in the page."""
    steps = len(growth.error)
    low, high = powers(growth)
    bound = _y(growth.bound, low, high)
    drawn = [
        _tag("rect", class_="zone", x=_n(_LEFT), y=_n(_TOP), width=_n(_ACROSS), height=_n(bound - _TOP)),
        *_power_axis(low, high),
        *_step_axis(steps),
        _line("bound", [(_LEFT, bound), (_LEFT + _ACROSS, bound)]),
    ]
    for name, values in (("own", growth.torch_error), ("file", growth.error)):
        points = [(_x(step, steps), _y(value, low, high)) for step, value in _thinned(values)]
        drawn += [_line(name, run) for run in _finite_runs(points)]
        if steps <= _FEW_POINTS:
            dots = [(x, y) for x, y in points if math.isfinite(y)]
            drawn += [_tag("circle", class_=f"{name} dot", cx=_n(x), cy=_n(y), r="2.5") for x, y in dots]
        drawn += [
            _line("broken", [(run[0][0] - 1.5, _TOP), (run[-1][0] + 1.5, _TOP)]) for run in _finite_runs(points, False)
        ]
    if growth.first is not None:
        at = _x(growth.first, steps)
        drawn.append(_line("first", [(at, _TOP), (at, _TOP + _DOWN)]))
        anchor = "start" if at < _LEFT + 20 else "end" if at > _WIDTH - _RIGHT - 20 else "middle"  # within the chart
        drawn.append(_text(f"step {growth.first}", at, _TOP - 5, "label", anchor))
    return _svg(ident, "Error over time", _described(growth), drawn, _HEIGHT)


def heat_map(growth: Growth, ident: str) -> Markup:
    """The largest error by time and feature, with its scale below; `ident` is unique in the page."""
    largest = max((value for row in growth.heat for value in row if math.isfinite(value)), default=0.0)
    ends = growth.bound * _LEAST_OF_BOUND, max(largest, growth.bound)
    columns, rows = len(growth.steps), len(growth.features)
    drawn = [
        _tag(
            "svg",
            *_cells(growth, _log(ends[0]), _log(ends[1])),
            x=_n(_LEFT),
            y=_n(_TOP),
            width=_n(_ACROSS),
            height=_n(_DOWN),
            viewBox=f"0 0 {columns} {rows}",
            preserveAspectRatio="none",
        ),
        _text("feature", _LEFT, _TOP - 5, "label", "start"),
        _text("time step", _LEFT + _ACROSS, _TOP + _DOWN + 26, "label", "end"),
    ]
    for index in _ends(columns):
        at = _LEFT + _ACROSS * (index + 0.5) / columns
        drawn.append(_text(str(growth.steps[index]), at, _TOP + _DOWN + 13, "tick", "middle"))
    for index in _ends(rows):
        at = _TOP + _DOWN * (index + 0.5) / rows
        drawn.append(_text(str(growth.features[index]), _LEFT - 5, at + 4, "tick", "end"))
    drawn += _scale_bar(growth.bound, ends)
    worst = max((value for row in growth.heat for value in row), key=nan_as_inf, default=0.0)
    description = f"The largest error in a cell is {number(worst)}; {_bound_text(growth)}."
    return _svg(ident, "Error by time and feature", description, drawn, _HEIGHT + _BAR)


def has_unbounded(growth: Growth) -> bool:
    """Whether an error is infinite or NaN, which the charts mark."""
    return not all(map(math.isfinite, growth.error))


def _described(growth: Growth) -> str:
    """A description of a curve, for screen readers."""
    worst = max(range(len(growth.error)), key=lambda step: nan_as_inf(growth.error[step]), default=0)
    first = "no step is above it" if growth.first is None else f"step {growth.first} is the first above it"
    return (
        f"Over {len(growth.error)} steps the largest error is {number(growth.error[worst])}, at step {worst}; "
        f"PyTorch's own is at most {number(max(growth.torch_error, default=0.0))}; {_bound_text(growth)}, and {first}."
    )


def _bound_text(growth: Growth) -> str:
    return f"the bound is {number(growth.bound)}"


def _cells(growth: Growth, low: float, high: float) -> Iterator[Markup]:
    """One path for each colour: equal neighbours in time are one rectangle."""
    paths: dict[str, list[str]] = {}
    for row in range(len(growth.features)):
        column = 0
        for name, run in groupby(_level(line[row], low, high) for line in growth.heat):
            width = len(list(run))
            paths.setdefault(name, []).append(f"M{column} {row}h{width}v1h-{width}z")
            column += width
    for name in sorted(paths):
        yield _tag("path", class_=name, d="".join(paths[name]))


def _level(value: float, low: float, high: float) -> str:
    """The class of a cell's colour."""
    if not math.isfinite(value):
        return "broken"
    at = (_log(value) - low) / (high - low)
    return f"h{min(max(int(at * LEVELS), 0), LEVELS - 1)}"


def _scale_bar(bound: float, ends: tuple[float, float]) -> Iterator[Markup]:
    """The colours between two errors, with a mark at the bound."""
    top, tall = _HEIGHT + 6, 8.0
    wide = _ACROSS / LEVELS
    for level in range(LEVELS):
        yield _tag("rect", class_=f"h{level}", x=_n(_LEFT + wide * level), y=_n(top), width=_n(wide), height=_n(tall))
    low, high = map(_log, ends)
    at = _LEFT + _ACROSS * (_log(bound) - low) / (high - low)
    yield _line("mark", [(at, top - 3), (at, top + tall + 3)])
    under = top + tall + 13
    yield _text("bound", at, under, "label", "middle" if at < _WIDTH - _RIGHT - 20 else "end")
    if at > _LEFT + 95:
        yield _text(f"to {number(ends[0])}", _LEFT, under, "tick", "start")
    if at < _WIDTH - _RIGHT - 80:
        yield _text(number(ends[1]), _LEFT + _ACROSS, under, "tick", "end")


def _x(step: int, steps: int) -> float:
    return _LEFT + _ACROSS * (step / (steps - 1) if steps > 1 else 0.5)


def _y(value: float, low: int, high: int) -> float:
    """NaN for values that are not finite; a value below the axis, such as 0, is drawn on it."""
    if not math.isfinite(value):
        return math.nan
    return _TOP + _DOWN * min((high - _log(value)) / (high - low), 1.0)


def _power_axis(low: int, high: int) -> Iterator[Markup]:
    every = -(-(high - low) // 6)
    for power in range(high, low - 1, -every):
        at = _TOP + _DOWN * (high - power) / (high - low)
        yield _line("grid", [(_LEFT, at), (_LEFT + _ACROSS, at)])
        yield _text(f"10{str(power).translate(_SUPERSCRIPT)}", _LEFT - 5, at + 4, "tick", "end")


def _step_axis(steps: int) -> Iterator[Markup]:
    for step in _ticks(steps):
        yield _text(str(step), _x(step, steps), _TOP + _DOWN + 13, "tick", "middle")
    yield _text("time step", _LEFT + _ACROSS, _TOP + _DOWN + 26, "label", "end")


def _ticks(steps: int) -> list[int]:
    """At most six round numbers."""
    scale = 10 ** max(len(str(max(steps - 1, 1))) - 1, 0)
    widths = (width for base in (scale // 10, scale) for width in (base, 2 * base, 5 * base) if width)
    every = next((width for width in widths if (steps - 1) // width < 6), scale * 10)
    return list(range(0, steps, every))


def _ends(count: int) -> list[int]:
    """The first, the last and a middle index, or all of a few."""
    return sorted({0, (count - 1) // 2, count - 1}) if count > 4 else list(range(count))


def _thinned(values: Sequence[float]) -> list[tuple[int, float]]:
    """At most `_MOST_POINTS` steps and their values: the largest of neighbouring ones."""
    width = -(-len(values) // _MOST_POINTS)
    starts = range(0, len(values), width)
    best = (
        max(range(start, min(start + width, len(values))), key=lambda at: nan_as_inf(values[at])) for start in starts
    )
    return [(step, values[step]) for step in best]


def _finite_runs(points: list[tuple[float, float]], wanted: bool = True) -> list[list[tuple[float, float]]]:
    """The runs of finite neighbours, or of others."""
    return [list(run) for finite, run in groupby(points, lambda point: math.isfinite(point[1])) if finite == wanted]


def _log(value: float) -> float:
    return math.log10(max(value, _TINY))


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _line(name: str, points: Sequence[tuple[float, float]]) -> Markup:
    return _tag("polyline", class_=name, points=" ".join(f"{_n(x)},{_n(y)}" for x, y in points))


def _text(text: str, x: float, y: float, name: str, anchor: str) -> Markup:
    return _tag("text", text, class_=name, x=_n(x), y=_n(y), text_anchor=anchor)


def _svg(ident: str, title: str, description: str, drawn: Sequence[Markup], height: float) -> Markup:
    names = f"{ident}-title", f"{ident}-desc"
    return _tag(
        "svg",
        _tag("title", title, id=names[0]),
        _tag("desc", description, id=names[1]),
        *drawn,
        class_="chart",
        viewBox=f"0 0 {_n(_WIDTH)} {_n(height)}",
        role="img",
        aria_labelledby=" ".join(names),
    )


def _tag(name: str, *content: str, **attributes: object) -> Markup:
    """An SVG element; a trailing underscore of an attribute's name is dropped, others become hyphens."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    written = Markup("").join(Markup(' {}="{}"').format(*item) for item in named.items())
    return Markup("<{}{}>{}</{}>").format(name, written, Markup("").join(content), name)

"""Plots the ratios: the speed of each candidate relative to the baseline of its case."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_io import atomic_write, require_writable
from ..errors import FileError, MissingDependencyError
from ..terminal_text import one_line
from .report import BenchmarkReport, Comparison, duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
_RUNTIME, _OTHERS, _BASELINE, INK, MUTED = "#0969da", "#8c959f", "#424a53", "#24292f", "#57606a"
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",  # text as text, for a small file
    "svg.hashsalt": "lstm-onnx",  # the same ids from run to run
    "axes.edgecolor": MUTED,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name does not start a formula
    "xtick.color": MUTED,
    "ytick.color": INK,
}
_WIDTH, _BAR, _HEAD = 9.0, 0.26, 0.55
"""The width of the plot, the height of a bar, and the height of a case's heading, in inches."""


def check_plot(path: str | os.PathLike[str]) -> None:
    """Check that `write_plot` can write to `path`, before anything is timed.

    Raises:
        FileError: the suffix is neither .png nor .svg, the folder does not exist, or it is a directory.
        MissingDependencyError: matplotlib is not installed.
    """
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise FileError(f"{path}: plots are written as .png or .svg; end the name in one of them")
    require_writable(path)
    load_matplotlib()


def write_plot(report: BenchmarkReport, path: str | os.PathLike[str]) -> None:
    """Plot the comparisons of a report; for the errors see `new_figure`."""
    shown = report.comparisons
    heights = [_HEAD + _BAR * len(item.timings) for item in shown] or [1.0]
    with new_figure(path, _WIDTH, sum(heights) + 1.0) as figure:
        grid = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes, item in zip(grid[:, 0], shown, strict=False):
            _draw(axes, item)
        if not shown:
            grid[0, 0].axis("off")
        figure.suptitle(_title(report), fontsize=10)
        figure.supxlabel(
            "speed relative to the baseline of the case (bars: median of rounds; lines: quartiles)", fontsize=9
        )


@contextlib.contextmanager
def new_figure(path: str | os.PathLike[str], width: float, height: float) -> Iterator[Figure]:
    """A context with a figure of this size in inches, which is written to `path` at the end, reproducibly.

    Raises:
        FileError: see `check_plot`; or the disk is full.
        MissingDependencyError: matplotlib is not installed.
    """
    check_plot(path)
    matplotlib = load_matplotlib()
    from matplotlib.figure import Figure

    kind = Path(path).suffix.lower().removeprefix(".")
    with matplotlib.rc_context(_STYLE), atomic_write(path) as stream:
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        # The date and matplotlib's version would make files of equal figures differ.
        undated = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(stream, format=kind, dpi=150, metadata=undated)


def _title(report: BenchmarkReport) -> str:
    machine = report.machine
    threads = f"{machine.threads} thread{'s' if machine.threads > 1 else ''}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return f"{one_line(report.source, 100)} on {machine.provider}, {threads}\n{machine.device}; {versions}"


def _draw(axes: Axes, item: Comparison) -> None:
    names = [timing.candidate for timing in item.timings]
    speeds = [1 / timing.ratio.median for timing in item.timings]
    errors = [
        [max(0.0, 1 / timing.ratio.median - 1 / timing.ratio.high) for timing in item.timings],
        [max(0.0, 1 / timing.ratio.low - 1 / timing.ratio.median) for timing in item.timings],
    ]
    colors = [
        _RUNTIME if timing.is_lstm_onnx else _BASELINE if timing.candidate == item.baseline else _OTHERS
        for timing in item.timings
    ]
    places = range(len(names))
    axes.barh(places, speeds, xerr=errors, color=colors, height=0.7, error_kw={"ecolor": INK, "elinewidth": 1})
    axes.axvline(1, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    longest = max(speed + above for speed, above in zip(speeds, errors[1], strict=True))
    axes.set_xlim(0, 1.45 * longest)  # with room for its label
    axes.set_title(f"{item.label}, {item.rounds} rounds", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    for place, timing, speed, above in zip(places, item.timings, speeds, errors[1], strict=True):
        text = f"{speed:.2f}  ({duration(timing.seconds.median)} per {item.unit})"
        axes.annotate(text, (speed + above, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)


def load_matplotlib() -> Any:
    """Matplotlib, imported.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingDependencyError(
            "matplotlib, which draws the plot, is not installed; run: pip install 'lstm-onnx[plot]'"
        ) from error
    return mpl

"""Draw sunspots.svg from the forecast that the command line writes.

lstm-onnx export models/sunspots.toml -o sunspots.onnx
lstm-onnx run sunspots.onnx models/sunspots.csv --columns sunspots -o forecast.csv
python models/sunspots_plot.py forecast.csv models/sunspots.svg
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("svg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
FIRST_SHOWN, FIRST_HELD_OUT = 1930, 1961
ORIGINS = 1963, 1974, 1985, 1996
INK, MUTED, PAST, FUTURE = "#24292f", "#57606a", "#0969da", "#cf222e"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 11,
    "svg.fonttype": "none",  # text stays text: a small file
    "svg.hashsalt": "sunspots",  # the same ids from run to run
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def draw(years: np.ndarray, numbers: np.ndarray, forecasts: np.ndarray, path: Path) -> None:
    """Draw `numbers` (years,) and some rows of `forecasts` (years, horizons), each from its year on, into `path`."""
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    horizons = forecasts.shape[1]
    last = years[-1]
    axes.axvspan(FIRST_HELD_OUT - 0.5, last + 0.5, color="#eaeef2", linewidth=0)
    middle = (FIRST_HELD_OUT + last) / 2
    axes.text(middle, 212, f"{FIRST_HELD_OUT}–{last}: held out of training", color=MUTED, ha="center", va="top")
    shown = years >= FIRST_SHOWN
    axes.plot(years[shown], numbers[shown], color=INK, linewidth=1.4, label="observed")
    for origin in (*ORIGINS, last):
        row = int(origin - years[0])
        ahead = np.arange(origin, origin + horizons + 1)
        line = np.concatenate([numbers[row : row + 1], forecasts[row]])
        color = FUTURE if origin == last else PAST
        label = {ORIGINS[0]: f"forecast of the next {horizons} years", last: f"forecast of {last + 1}–{ahead[-1]}"}
        axes.plot(ahead, line, color=color, linewidth=2, label=label.get(origin))
        axes.plot(origin, numbers[row], "o", color=color, markersize=6, zorder=3)
    axes.set(xlim=(FIRST_SHOWN, last + horizons + 1), ylim=(-5, 215), ylabel="sunspot number, yearly")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the sunspots forecast.")
    parser.add_argument("forecast", type=Path, help="a .csv: one row a year, one column a year ahead")
    parser.add_argument("out", type=Path, help="the .svg to write")
    args = parser.parse_args()
    table = np.loadtxt(HERE / "sunspots.csv", delimiter=",", skiprows=1)
    forecasts = np.loadtxt(args.forecast, delimiter=",", skiprows=1)
    if forecasts.shape[0] != table.shape[0]:
        parser.error(f"{args.forecast} has {forecasts.shape[0]} rows; sunspots.csv has {table.shape[0]}")
    with plt.rc_context(STYLE):
        draw(table[:, 0].astype(int), table[:, 1], forecasts, args.out)


if __name__ == "__main__":
    main()

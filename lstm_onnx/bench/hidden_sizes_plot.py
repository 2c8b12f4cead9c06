"""A plot of time per step against the hidden size, with what the memory's bandwidth allows."""

from __future__ import annotations

import os

from .hidden_sizes import FLOAT32, TORCH, WEIGHT_BYTES, HiddenSizes
from .plot import INK, MUTED, drawn_figure
from .report import duration

_COLORS = {FLOAT32: "#424a53", TORCH: "#bc4c00"}
_INT8_COLORS = ("#0969da", "#1a7f37", "#8250df", "#bf3989")


def write_hidden_sizes_plot(report: HiddenSizes, path: str | os.PathLike[str]) -> None:
    """Draw the times; for the errors see `drawn_figure`."""
    with drawn_figure(path, 8, 5.5) as figure:
        axes = figure.subplots()
        sizes = list(report.weights)
        others = iter(_INT8_COLORS)
        for name, times in report.seconds.items():
            color = _COLORS.get(name) or next(others)
            axes.plot(sizes, [times[size] for size in sizes], color=color, marker="o", markersize=3, label=name)
        for name, count in WEIGHT_BYTES.items():
            limits = [report.limit(size, count) for size in sizes]
            label = f"{name} weights from memory at {report.bandwidth / 1e9:.0f} GB/s"
            axes.plot(sizes, limits, color=MUTED, linestyle=":" if count == 1 else "--", linewidth=0.9, label=label)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.yaxis.set_major_formatter(lambda seconds, _: duration(seconds))
        axes.set_xlabel("hidden size = input size")
        axes.set_ylabel("time per step")
        axes.grid(visible=True, color="#d0d7de", linewidth=0.5)
        axes.legend(fontsize=8, frameon=False, labelcolor=INK)
        title = f"One step of an LSTM with {report.layers}: one sequence, one thread"
        installed = ", ".join(f"{name} {version}" for name, version in report.machine.versions.items())
        figure.suptitle(f"{title}\n{report.machine.device}; {installed}", fontsize=9)

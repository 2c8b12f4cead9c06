"""Draw charlm.svg: what the characters that came before are worth, to the model and to n-grams.

python models/charlm_plot.py models/charlm.svg
"""

import argparse
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from charlm import CharLM
from charlm_text import encode
from charlm_train import HERE, bits_by_context, bits_per_character, ngrams, split
from safetensors.torch import load_file

mpl.use("svg")
import matplotlib.pyplot as plt

INK, MUTED, MODEL, RIVAL = "#24292f", "#57606a", "#0969da", "#cf222e"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 11,
    "svg.fonttype": "none",  # text stays text: a small file
    "svg.hashsalt": "charlm",  # the same ids from run to run
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def draw(by_context: np.ndarray, whole: float, grams: dict[int, float], path: Path) -> None:
    """Draw the model's bits after 1, 2, ... characters, those of the whole stream, and n-grams by their n."""
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    seen = np.arange(1, len(by_context) + 1)
    # Single positions far out differ by chance: means over places that are even in the logarithm.
    edges = np.unique(np.geomspace(1, len(seen) + 1, 25).round().astype(int))
    places = [slice(low - 1, high - 1) for low, high in pairwise(edges)]
    x = [np.exp(np.log(seen[place]).mean()) for place in places]
    y = [by_context[place].mean() for place in places]
    axes.plot(x, y, "-o", color=MODEL, linewidth=2, markersize=4, label="LSTM, from zero states")
    axes.axhline(whole, color=MODEL, linewidth=1.2, linestyle=(0, (5, 4)), label="LSTM, states carried throughout")
    axes.plot(
        [n - 1 for n in grams], list(grams.values()), "-s", color=RIVAL, linewidth=1.4, markersize=4,
        label="n-gram, which sees n - 1 characters",
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    ticks = 2 ** np.arange(int(np.log2(len(seen))) + 1)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set(xlabel="characters seen before", ylabel="bits per held-out character")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the bits per character by the length of the context.")
    parser.add_argument("out", type=Path, help="the .svg to write")
    parser.add_argument("--weights", type=Path, default=HERE / "charlm.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = CharLM().eval()
    model.load_state_dict(load_file(args.weights))
    known, held_out = split((HERE / "shakespeare.txt").read_text(encoding="ascii"))
    grams = {n: bits for n, bits in ngrams(known, held_out).items() if n > 1}
    tokens = encode(held_out)
    with plt.rc_context(STYLE):
        draw(bits_by_context(model, tokens), bits_per_character(model, tokens), grams, args.out)


if __name__ == "__main__":
    main()

"""Draw vad.svg: how well speech is found as noise rises, and what the model says of one recording.

python models/vad_plot.py models/vad.svg
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import vad_sounds as sounds
from safetensors.torch import load_file
from vad import HOP, RATE, VAD
from vad_train import HERE, JUDGED, SEED_JUDGED, best_threshold, judged, listened, loudness, scores

mpl.use("svg")
import matplotlib.pyplot as plt

INK, MUTED, MODEL, RIVAL, SHADE = "#24292f", "#57606a", "#0969da", "#cf222e", "#eaeef2"
SHOWN = 2  # of the judged recordings at SHOWN_SNR
SHOWN_SNR = 5
STYLE = {
    "font.family": "sans-serif",
    "font.size": 11,
    "svg.fonttype": "none",  # text stays text: a small file
    "svg.hashsalt": "vad",  # the same ids from run to run
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def draw(model: VAD, path: Path) -> None:
    """Draw F1 by the noise's distance, and the probability along one recording, into `path`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", width_ratios=[2, 3])
    for kinds, line, name in ((sounds.NOISES, "-", "noises of training"), (sounds.UNHEARD, "--", "other noises")):
        own, rival = [], []
        for snr in JUDGED:
            clips = judged(kinds, snr, SEED_JUDGED)
            own.append(scores(listened(model, clips), clips, 0.5)[1])
            levels = loudness(clips)
            rival.append(scores(levels, clips, best_threshold(levels, clips))[1])
        left.plot(JUDGED, own, line, color=MODEL, marker="o", markersize=4, label=f"model, {name}")
        left.plot(JUDGED, rival, line, color=RIVAL, marker="s", markersize=4, label=f"loudness, {name}")
    left.set(xlabel="speech over noise, dB", ylabel="F1", xticks=JUDGED)

    audio, spoken = judged(sounds.NOISES, SHOWN_SNR, SEED_JUDGED)[SHOWN]
    probability = listened(model, [(audio, spoken)])[0]
    time = (np.arange(len(probability)) + 1) * HOP / RATE
    edges = np.flatnonzero(np.diff(np.concatenate([[0], spoken, [0]])))
    for begins, ends in edges.reshape(-1, 2):
        right.axvspan(begins * HOP / RATE, ends * HOP / RATE, color=SHADE, linewidth=0)
    peaks = np.abs(audio.reshape(-1, 4 * HOP)).max(axis=1)
    right.fill_between(time[::4], 0.25 * peaks / peaks.max(), color=MUTED, linewidth=0, alpha=0.5)
    right.plot(time, probability, color=MODEL, linewidth=1.4)
    right.set(
        xlabel=f"seconds; shaded: speech; grey: the sound, {SHOWN_SNR} dB over noise", ylabel="probability of speech"
    )
    right.set(xlim=(0, time[-1]), ylim=(0, 1.02))
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw how well vad finds speech.")
    parser.add_argument("out", type=Path, help="the .svg to write")
    parser.add_argument("--weights", type=Path, default=HERE / "vad.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = VAD().eval()
    model.load_state_dict(load_file(args.weights))
    with plt.rc_context(STYLE):
        draw(model, args.out)


if __name__ == "__main__":
    main()

"""Train `vad`: a voice-activity model that reads samples.

    python models/vad_train.py                            # vad.safetensors, and the figures of vad.md: three minutes
    python models/vad_train.py --figures                  # the figures alone, of the weights that are there
    python models/vad_train.py --figures --voices *.wav   # of voices from elsewhere, without noise of their own
    python models/vad_train.py --validate                 # of other voices, to choose settings by; writes nothing

What it hears is made up by vad_sounds.py: VOICES clips of speech and as many of noise are drawn once, and mixed anew
for each step, at another loudness and another distance between the two.
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import vad_sounds as sounds
from safetensors.torch import load_file, save
from torch.nn.functional import binary_cross_entropy
from vad import HOP, RATE, VAD

HERE = Path(__file__).parent
VOICES, SECONDS, BATCH, STEPS = 500, 4.0, 16, 1000  # clips; a step: one update on BATCH mixtures of SECONDS
LEARNING_RATE, WARM_UP, WEIGHT_DECAY, CLIP = 4e-3, 50, 0.01, 1.0
SNRS = -5, 35  # of the mixtures, dB
JUDGED = 20, 10, 5, 0, -5  # dB
CLIPS = 60  # to judge by, at each of them
SEED_JUDGED, SEED_VALIDATED, SEED_NOISE = 1_000_003, 2_000_003, 3_000_017

Clip = tuple[np.ndarray, np.ndarray]


def train(steps: int, seed: int) -> VAD:
    """Fit a model to mixtures drawn from `seed`."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    voices = [sounds.speech(random, SECONDS) for _ in range(VOICES)]
    noises = [sounds.noise(random, SECONDS, sounds.NOISES[i % len(sounds.NOISES)]) for i in range(VOICES)]
    model = VAD()
    optimizer = torch.optim.AdamW(
        [each for each in model.parameters() if each.requires_grad], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARM_UP, 0.5 + 0.5 * np.cos(np.pi * step / steps))
    )
    for _ in range(steps):
        audio, spoken = zip(*(mixture(random, voices, noises) for _ in range(BATCH)), strict=True)
        probability = model(torch.from_numpy(np.stack(audio)))
        loss = binary_cross_entropy(probability, torch.from_numpy(np.stack(spoken)).float())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
    return model.eval()


def mixture(random: np.random.Generator, voices: list[Clip], noises: list[np.ndarray]) -> Clip:
    """One of `voices` and one of `noises`, turned to start anywhere; at times in a room's echo, at times no voice."""
    clean, spoken = voices[random.integers(len(voices))]
    turn = int(random.integers(len(spoken)))
    clean, spoken = np.roll(clean, turn * HOP), np.roll(spoken, turn)
    if random.random() < 0.4:
        clean = sounds.echoing(random, clean)
    background = np.roll(noises[random.integers(len(noises))], random.integers(len(clean)))
    if random.random() < 0.3:
        background = (background + noises[random.integers(len(noises))]) / np.sqrt(2)
    if random.random() < 0.08:
        clean, spoken = 0 * clean, np.zeros_like(spoken)
    return sounds.mixed(clean, spoken, background, random.uniform(*SNRS), random.uniform(-50, -10)), spoken


def judged(kinds: tuple[str, ...], snr: float, seed: int, voices: list[Clip] | None = None) -> list[Clip]:
    """CLIPS recordings and their labels, of `voices` or of made-up ones, in noise of `kinds`; the same at each call."""
    random, beside = np.random.default_rng(seed), np.random.default_rng(SEED_NOISE)
    found = []
    for number in range(CLIPS if voices is None else len(voices)):
        clean, spoken = sounds.speech(random, 8.0) if voices is None else voices[number]
        background = sounds.noise(beside, len(clean) / RATE, kinds[number % len(kinds)])
        found.append((sounds.mixed(clean, spoken, background, snr, beside.uniform(-45, -12)), spoken))
    return found


@torch.no_grad()
def listened(model: VAD, clips: list[Clip]) -> list[np.ndarray]:
    """The model's probability at each label of each clip."""
    return [model(torch.from_numpy(audio[np.newaxis]))[0].numpy() for audio, _ in clips]


def loudness(clips: list[Clip]) -> list[np.ndarray]:
    """The rival: the level of 50 ms in dB above the tenth percentile of the clip, which it looks at as a whole."""
    levels = []
    for audio, spoken in clips:
        power = (audio.reshape(len(spoken), HOP) ** 2).mean(axis=1)
        level = 10 * np.log10(np.convolve(power, np.ones(5) / 5, mode="same") + 1e-12)
        levels.append(level - np.percentile(level, 10))
    return levels


def scores(found: list[np.ndarray], clips: list[Clip], threshold: float) -> tuple[float, float, float]:
    """Accuracy, F1 and the area under the ROC curve, of all labels of all clips together."""
    said, truth = np.concatenate(found), np.concatenate([spoken for _, spoken in clips])
    positive = said >= threshold
    f1 = 2 * np.sum(positive & truth) / (np.sum(positive) + np.sum(truth))
    ranks = np.empty(len(said))
    ranks[np.argsort(said, kind="stable")] = np.arange(1, len(said) + 1)
    speech, silence = np.sum(truth), np.sum(~truth)
    area = (ranks[truth].sum() - speech * (speech + 1) / 2) / (speech * silence)
    return float(np.mean(positive == truth)), float(f1), float(area)


def best_threshold(found: list[np.ndarray], clips: list[Clip]) -> float:
    """The threshold of the best F1 on `clips`."""
    return max(np.arange(0.5, 30, 0.5), key=lambda threshold: scores(found, clips, threshold)[1])


def report(model: VAD, seed: int, voices: list[Clip] | None) -> None:
    """Print the tables of vad.md."""
    print("| noise | SNR, dB | accuracy | F1 | ROC area | accuracy, loudness | F1, loudness | ROC area, loudness |")
    print("| --- |" + " ---: |" * 7)
    for name, kinds in {"heard in training": sounds.NOISES, "not heard": sounds.UNHEARD}.items():
        for snr in JUDGED:
            clips = judged(kinds, snr, seed, voices)
            own = scores(listened(model, clips), clips, 0.5)
            levels = loudness(clips)
            rival = scores(levels, clips, best_threshold(levels, clips))
            print(f"| {name} | {snr} |", " | ".join(f"{each:.3f}" for each in (*own, *rival)), "|")


def from_wav(path: Path) -> Clip:
    """A 16-bit recording of a voice and nothing else, a second of silence around it; where it is loud, it is speech."""
    samples = np.pad(sounds.read_wav(path), RATE)
    samples = samples[: len(samples) // HOP * HOP] / np.abs(samples).max()
    power = (samples.reshape(-1, HOP) ** 2).mean(axis=1)
    loud = np.flatnonzero(power > 1e-3 * power.max())
    spoken = np.zeros(len(power), bool)
    spoken[loud] = True
    for before, after in pairwise(loud):
        spoken[before:after] |= after - before <= 15  # a gap of up to 150 ms is a stop, not a pause
    return samples.astype(np.float32), spoken


def write(model: VAD, path: Path) -> None:
    """Write the state dict whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the voice-activity model.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=HERE / "vad.safetensors")
    parser.add_argument("--voices", type=Path, nargs="+", help="WAV files of voices without noise, to judge by instead")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--validate", action="store_true", help="judge by other voices and write nothing")
    instead.add_argument("--figures", action="store_true", help="train nothing, judge the weights in --out")
    args = parser.parse_args()

    torch.set_num_threads(1)
    if args.figures:
        model = VAD().eval()
        model.load_state_dict(load_file(args.out))
    else:
        started = time.process_time()  # of this one thread, whatever else the machine does
        model = train(args.steps, args.seed)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(f"{parameters} parameters, {args.steps} steps, {time.process_time() - started:.0f} s of one core\n")
        if not args.validate:
            write(model, args.out)
    voices = [from_wav(path) for path in args.voices] if args.voices else None
    report(model, SEED_VALIDATED if args.validate else SEED_JUDGED, voices)


if __name__ == "__main__":
    main()

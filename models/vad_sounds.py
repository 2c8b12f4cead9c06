"""What `vad` is trained and judged on: made-up voices and noises, 16 kHz, all drawn from a seed.

A voice is a sawtooth (the glottis) and white noise (breath, friction) through resonances that move from syllable to
syllable, by the classical source and filter; a phrase is one to eight syllables of stops, fricatives, nasals, vowels.

    python models/vad_sounds.py made-up.wav --seconds 8 --snr 10 --seed 1    # something to listen to
"""

import argparse
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATE, HOP = 16_000, 160  # HOP: samples under one label
TRACK = 80  # samples from one point of a track to the next
FRAME, STEP = 512, 128  # samples that are filtered at once, and from one such frame to the next

# F1, F2, F3 in Hz of an adult man; others' are these times the speaker's scale
VOWELS = np.array([
    [270, 2290, 3010], [390, 1990, 2550], [530, 1840, 2480], [660, 1720, 2410], [730, 1090, 2440],
    [570, 840, 2410], [440, 1020, 2240], [300, 870, 2240], [640, 1190, 2390], [490, 1350, 1690],
])  # fmt: skip
NASALS = np.array([[250, 1100, 2200], [250, 1500, 2500]])
GLIDES = np.array([[360, 1300, 2600], [310, 1060, 1400], [290, 610, 2150], [280, 2200, 3000]])
NOISES = "coloured", "hum", "tones", "clicks"  # heard in training
UNHEARD = "siren", "rain", "engine"  # for judging alone


@dataclass(frozen=True)
class Sound:
    """A part of a syllable: its length, how loud its voice and its friction are, and where they resonate."""

    seconds: float
    voiced: float
    friction: float
    formants: np.ndarray  # (3,) Hz
    centre: float = 3000.0  # of the friction, Hz
    width: float = 0.5  # of the friction, in octaves


def syllable(random: np.random.Generator) -> list[Sound]:
    """The sounds of one syllable."""
    vowel = VOWELS[random.integers(len(VOWELS))].astype(float)
    sounds = []
    for chance, last in ((0.85, False), (0.35, True)):
        if random.random() < chance:
            sounds += consonant(random, vowel)
        if not last:
            sounds.append(Sound(random.uniform(0.06, 0.24), 1.0, 0.0, vowel))
            if random.random() < 0.25:  # a diphthong
                vowel = VOWELS[random.integers(len(VOWELS))].astype(float)
                sounds.append(Sound(random.uniform(0.05, 0.12), 0.9, 0.0, vowel))
    return sounds


def consonant(random: np.random.Generator, vowel: np.ndarray) -> list[Sound]:
    """A stop (silence and a burst), a fricative, a nasal or a glide."""
    kind, voiced = (
        random.choice(["stop", "fricative", "nasal", "glide"], p=[0.35, 0.3, 0.2, 0.15]),
        random.random() < 0.4,
    )
    if kind == "stop":
        closed = Sound(random.uniform(0.03, 0.08), 0.12 * voiced, 0.0, np.array([200.0, 900.0, 2200.0]))
        centre = random.choice([800.0, 1800.0, 3800.0]) * random.uniform(0.8, 1.2)
        burst = Sound(random.uniform(0.008, 0.03), 0.3 * voiced, random.uniform(0.3, 0.9), vowel, centre, 0.8)
        breath = Sound(random.uniform(0.01, 0.06), 0.0, random.uniform(0.05, 0.2), vowel, 2000.0, 1.5)
        return [closed, burst] if voiced else [closed, burst, breath]
    if kind == "fricative":
        centre, width, loud = FRICATIVES[random.integers(len(FRICATIVES))]
        seconds = random.uniform(0.05, 0.16)
        return [Sound(seconds, 0.25 * voiced, loud * random.uniform(0.5, 1.2), vowel, centre, width)]
    if kind == "nasal":
        return [Sound(random.uniform(0.04, 0.11), 0.45, 0.0, NASALS[random.integers(len(NASALS))].astype(float))]
    return [Sound(random.uniform(0.03, 0.09), 0.6, 0.0, GLIDES[random.integers(len(GLIDES))].astype(float))]


# centre in Hz, width in octaves, loudness: s, sh, f, th, h
FRICATIVES = [(5800.0, 0.4, 0.5), (3200.0, 0.5, 0.6), (4500.0, 1.6, 0.12), (5200.0, 1.4, 0.1), (1500.0, 1.6, 0.15)]


def speech(random: np.random.Generator, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """One voice, phrases and pauses: (samples,) float32 and whether each HOP of them is speech, (samples // HOP,)."""
    samples = int(seconds * RATE) // HOP * HOP
    points = samples // TRACK
    pitch, scale = np.exp(random.uniform(np.log(80), np.log(280))), random.uniform(0.85, 1.0)
    scale *= np.interp(pitch, [80, 280], [1.0, 1.3])  # high voices come from short throats
    tracks = {name: np.zeros(points) for name in ("voiced", "friction", "centre", "width", "pitch")}
    tracks["centre"] += 3000
    tracks["width"] += 1
    tracks["pitch"] += pitch
    formants = np.tile(VOWELS[8].astype(float), (points, 1))
    spoken = np.zeros(points, bool)
    at = int(random.uniform(0.0, 1.2) * RATE / TRACK)
    while at < points:
        first, syllables = at, random.integers(1, 9)
        rate = random.uniform(0.8, 1.3)
        for _ in range(syllables):
            loud, accent = random.uniform(0.5, 1.0), random.uniform(0.9, 1.2)
            for sound in syllable(random):
                end = min(at + max(round(rate * sound.seconds * RATE / TRACK), 1), points)
                place = slice(at, end)
                tracks["voiced"][place], tracks["friction"][place] = loud * sound.voiced, loud * sound.friction
                tracks["centre"][place], tracks["width"][place] = sound.centre, sound.width
                tracks["pitch"][place] *= accent
                formants[place] = sound.formants
                at = end
        spoken[first:at] = True
        tracks["pitch"][first:at] *= np.linspace(1.1, 0.85, at - first)  # it falls towards the end of a phrase
        at += int(random.uniform(0.25, 1.6) * RATE / TRACK)
    smooth = {name: blurred(track, 3 if name in ("voiced", "friction") else 7) for name, track in tracks.items()}
    formants = np.stack([blurred(column, 9) for column in formants.T], axis=1) * scale
    audio = sounded(random, smooth, formants, samples)
    return audio, spoken.reshape(-1, HOP // TRACK).any(axis=1)


def blurred(track: np.ndarray, points: int) -> np.ndarray:
    """The mean of `points` points around each, the first and the last repeated."""
    padded = np.pad(track, points // 2, mode="edge")
    return np.convolve(padded, np.ones(points) / points, mode="valid")


def sounded(
    random: np.random.Generator, tracks: dict[str, np.ndarray], formants: np.ndarray, samples: int
) -> np.ndarray:
    """The glottis and the friction through their resonances: (samples,) float32, its loudest at 1."""
    place = np.arange(samples) / TRACK
    points = np.arange(len(formants))
    wobble = 1 + 0.01 * blurred(random.standard_normal(samples), 401) * np.sqrt(401)
    phase = np.cumsum(np.interp(place, points, tracks["pitch"]) * wobble) / RATE
    glottis = (1 - 2 * (phase % 1)) + random.uniform(0.02, 0.2) * random.standard_normal(samples)
    glottis *= np.interp(place, points, tracks["voiced"])
    friction = random.standard_normal(samples) * np.interp(place, points, tracks["friction"])

    frequency = np.fft.rfftfreq(FRAME, 1 / RATE)
    centres = np.minimum(np.arange(-(FRAME // STEP) + 1, samples // STEP) * STEP + FRAME // 2, samples - 1).clip(0)
    at = centres // TRACK
    throat = np.ones((len(at), len(frequency)))
    fourth = np.full(len(at), 3500.0 * random.uniform(0.95, 1.15))
    for number, centre in enumerate([*formants[at].T, fourth]):
        width = 60 + 40 * number
        centre = centre[:, np.newaxis]
        throat *= centre**2 / np.sqrt((centre**2 - frequency**2) ** 2 + (width * frequency) ** 2 + 1)
    throat *= (1 + frequency / 1000) ** random.uniform(-0.7, 0.1)  # of the voice: pressed to breathy
    octaves = np.log2(np.maximum(frequency, 20) / tracks["centre"][at, np.newaxis])
    mouth = 4 * np.exp(-((octaves / tracks["width"][at, np.newaxis]) ** 2))
    audio = filtered(glottis, throat) + filtered(friction, mouth)
    return (audio / (np.abs(audio).max() + 1e-9)).astype(np.float32)


def filtered(source: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """`source`, (samples,), with each frame's gains by frequency, (frames, FRAME // 2 + 1), overlapped and added."""
    window = np.sqrt(np.hanning(FRAME + 1)[:-1])
    padded = np.pad(source, FRAME - STEP)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::STEP][: len(gains)]
    spectra = np.fft.rfft(frames * window, axis=1) * gains
    pieces = np.fft.irfft(spectra, FRAME, axis=1) * window * (2 * STEP / FRAME)
    out = np.zeros(len(padded) + FRAME)
    for start in range(FRAME // STEP):  # frames that do not overlap are added at once
        rows = pieces[start :: FRAME // STEP]
        out[start * STEP : start * STEP + rows.size] += rows.ravel()
    return out[FRAME - STEP :][: len(source)]


def noise(random: np.random.Generator, seconds: float, kind: str) -> np.ndarray:
    """Noise of a kind of NOISES or UNHEARD: (samples,) float32 of mean square 1."""
    samples = int(seconds * RATE) // HOP * HOP
    time = np.arange(samples) / RATE
    if kind == "coloured":
        out = coloured(random, samples) * swelling(random, samples)
    elif kind == "hum":
        mains = random.choice([50.0, 60.0]) * np.arange(1, 20)
        out = (np.sin(2 * np.pi * np.outer(time, mains) + random.uniform(0, 6, 19)) * random.exponential(size=19)).sum(
            1
        )
        out += coloured(random, samples)
    elif kind == "tones":  # beeps and plucked notes, some in chords
        out = 0.05 * coloured(random, samples)
        for start in np.flatnonzero(random.random(samples) < random.uniform(1, 8) / RATE):
            after = time[: samples - start]
            pitch = 440 * 2 ** (random.integers(-24, 24) / 12)
            fades = (
                np.exp(-after / random.uniform(0.05, 0.5))
                if random.random() < 0.6
                else after < random.uniform(0.05, 0.5)
            )
            harmonics = range(1, random.integers(2, 8))
            out[start:] += fades * sum(np.sin(2 * np.pi * n * pitch * after) / n for n in harmonics if n * pitch < 7500)
    elif kind == "clicks":  # keys, doors, steps
        out = 0.03 * coloured(random, samples) + struck(
            random, samples, random.uniform(1, 12), random.uniform(0.001, 0.05)
        )
    elif kind == "siren":
        swing = np.sin(2 * np.pi * random.uniform(0.2, 3) * time + random.uniform(0, 6))
        pitch = random.uniform(500, 1500) * 2 ** (random.uniform(0.2, 1) * swing)
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        out = np.sin(phase) + 0.3 * np.sin(2 * phase) + 0.05 * coloured(random, samples)
    elif kind == "rain":
        out = struck(random, samples, random.uniform(100, 1000), 0.003) + 0.1 * coloured(random, samples)
    elif kind == "engine":
        turns = np.cumsum(random.uniform(15, 60) * (1 + 0.1 * np.sin(2 * np.pi * random.uniform(0.1, 1) * time))) / RATE
        out = np.where(turns % 1 < 0.3, random.standard_normal(samples), 0) + (turns % 1)
        out = filtered(out, np.tile((1 + np.fft.rfftfreq(FRAME, 1 / RATE) / 300) ** -1.5, (samples // STEP + 3, 1)))
    else:
        raise ValueError(f"no such noise: {kind}")
    out = out - out.mean()
    return (out / (np.sqrt(np.mean(out**2)) + 1e-9)).astype(np.float32)


def coloured(random: np.random.Generator, samples: int) -> np.ndarray:
    """White to brown noise with a few broad humps: (samples,)."""
    frequency = np.fft.rfftfreq(samples, 1 / RATE)
    gain = (1 + frequency / 100) ** -random.uniform(-0.2, 1.2)
    for _ in range(random.integers(0, 4)):
        octaves = np.log2((frequency + 20) / random.uniform(100, 6000))
        gain *= 1 + random.uniform(-0.9, 4) * np.exp(-((octaves / random.uniform(0.2, 1.5)) ** 2))
    out = np.fft.irfft(np.fft.rfft(random.standard_normal(samples)) * gain, samples)
    return out / (out.std() + 1e-9)


def swelling(random: np.random.Generator, samples: int) -> np.ndarray:
    """A loudness that comes and goes, by up to 20 dB: (samples,)."""
    knots = max(int(samples / RATE * random.uniform(0.5, 6)), 2)
    decibels = random.uniform(0, 10) * random.standard_normal(knots).clip(-1, 1)
    return 10 ** (np.interp(np.linspace(0, knots - 1, samples), np.arange(knots), decibels) / 20)


def struck(random: np.random.Generator, samples: int, rate: float, seconds: float) -> np.ndarray:
    """`rate` blows a second, each a burst of noise that dies away in `seconds`: (samples,)."""
    out = np.zeros(samples)
    blow = int(5 * seconds * RATE) + 8
    fading = np.exp(-np.arange(blow) / (seconds * RATE))
    for start in np.flatnonzero(random.random(samples) < rate / RATE):
        piece = out[start : start + blow]
        piece += random.exponential() * random.standard_normal(len(piece)) * fading[: len(piece)]
    return out


def mixed(clean: np.ndarray, spoken: np.ndarray, noises: np.ndarray, snr: float, level: float) -> np.ndarray:
    """`clean` + `noises`, (samples,): `snr` in dB between the speech and the noise, the speech at `level` dBFS."""
    there = np.repeat(spoken, HOP)
    power = np.mean(clean[there] ** 2) if there.any() else 1e-2
    audio = clean / np.sqrt(power) + noises * 10 ** (-snr / 20)
    return (audio * 10 ** (level / 20)).clip(-1, 1).astype(np.float32)


def echoing(random: np.random.Generator, clean: np.ndarray) -> np.ndarray:
    """`clean` in a room whose echo dies away in 0.1 to 0.5 s."""
    length = int(0.3 * RATE)
    room = random.standard_normal(length) * 10 ** (-3 * np.arange(length) / RATE / random.uniform(0.1, 0.5))
    room *= random.uniform(0.1, 0.6) / np.sqrt(np.sum(room**2))
    room[0] = 1
    size = len(clean) + length
    return np.fft.irfft(np.fft.rfft(clean, size) * np.fft.rfft(room, size), size)[: len(clean)].astype(np.float32)


def read_wav(path: Path) -> np.ndarray:
    """The first channel of a 16-bit WAV file as (samples,) float32 at RATE; of any rate, nothing above RATE / 2 kept.

    Raises:
        ValueError: it is no WAV file of 16 bits.
    """
    try:
        with wave.open(str(path)) as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is no WAV file of integers: {error}") from error
    if width != 2:
        raise ValueError(f"{path} has {8 * width} bits a sample, and must have 16")
    samples = np.frombuffer(data, "<i2").reshape(-1, channels)[:, 0] / 32768
    if rate == RATE or not len(samples):
        return samples.astype(np.float32)
    size = len(samples) * RATE // rate
    spectrum = np.fft.rfft(samples)[: size // 2 + 1]
    return (np.fft.irfft(spectrum, size) * (size / len(samples))).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray) -> None:
    """(samples,), -1 to 1, as 16 bits of one channel at RATE."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description="Make up a voice in noise.")
    parser.add_argument("out", type=Path, help="the .wav to write: 16 kHz, 16 bits, one channel")
    parser.add_argument("--seconds", type=float, default=8.0, help="(default: %(default)s)")
    parser.add_argument(
        "--snr", type=float, default=10.0, help="of the voice over the noise, dB (default: %(default)s)"
    )
    parser.add_argument("--noise", choices=[*NOISES, *UNHEARD], default="coloured", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    clean, spoken = speech(random, args.seconds)
    write_wav(args.out, mixed(clean, spoken, noise(random, args.seconds, args.noise), args.snr, -25.0))


if __name__ == "__main__":
    main()

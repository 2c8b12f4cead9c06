"""Train `charlm`: a character-level language model with two LSTM layers.

    python models/charlm_train.py               # charlm.safetensors, and the figures of charlm.md: ten minutes
    python models/charlm_train.py --figures     # the figures alone, of the weights that are there
    python models/charlm_train.py --validate    # what the settings were chosen by; writes nothing

It reads shakespeare.txt in ROWS places at once and carries its states from one chunk to the next, as it will when it
writes. The last HELD_OUT characters have no part in the training; they are for the printed figures alone.
"""

import argparse
import bz2
import lzma
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from charlm import CharLM
from charlm_text import VOCABULARY, encode
from safetensors.torch import load_file, save
from torch.nn.functional import cross_entropy, dropout

HERE = Path(__file__).parent
HELD_OUT = 40_000  # characters, at the end; the HELD_OUT before them are what the settings were chosen by
ROWS, CHUNK, STEPS = 32, 64, 8000  # a step: one update on the next CHUNK characters of ROWS places
LEARNING_RATE, WARM_UP, WEIGHT_DECAY, DROPOUT, CLIP = 1e-2, 100, 0.05, 0.05, 1.0
LONGEST = 8  # of the n-grams
ZEROED = 4, 16, 64, 256, 1024  # after so many characters, to see what carrying the states is worth

States = tuple[torch.Tensor, torch.Tensor]


def split(text: str, validate: bool = False) -> tuple[str, str]:
    """What trains and what judges; to choose settings, both come earlier."""
    if validate:
        text = text[:-HELD_OUT]
    return text[:-HELD_OUT], text[-HELD_OUT:]


def advance(model: CharLM, tokens: torch.Tensor, states: States | None) -> tuple[torch.Tensor, States]:
    """The model's forward as it trains: from given states to the next ones, and with dropout."""
    output, states = model.lstm(dropout(model.embedding(tokens), DROPOUT), states)
    return model.head(dropout(output, DROPOUT)), states


def train(text: np.ndarray, steps: int, seed: int) -> CharLM:
    """Fit a model to `text`, (characters,) tokens."""
    torch.manual_seed(seed)
    model = CharLM()
    with torch.no_grad():
        for layer in range(model.lstm.num_layers):
            getattr(model.lstm, f"bias_hh_l{layer}").chunk(4)[1].add_(1)  # start out remembering
    model.lstm.dropout = DROPOUT
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARM_UP, 0.5 + 0.5 * np.cos(np.pi * step / steps))
    )
    length = len(text) // ROWS - CHUNK  # of a row; where the first one starts differs from round to round
    at, states = length, None
    for _ in range(steps):
        if at + CHUNK + 1 > length:  # the rows are read: a new round
            first = torch.randint(CHUNK, (1,)).item()
            rows = torch.from_numpy(text[first : first + ROWS * length].reshape(ROWS, length))
            at, states = 0, None
        chunk = rows[:, at : at + CHUNK + 1]
        logits, states = advance(model, chunk[:, :-1], states)
        loss = cross_entropy(logits.flatten(0, 1), chunk[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        states = states[0].detach(), states[1].detach()
        at += CHUNK
    model.lstm.dropout = 0.0
    return model.eval()


@torch.no_grad()
def bits_per_character(model: CharLM, text: np.ndarray) -> float:
    """Of `text`, (characters,) tokens, read as one stream from zero states; its first character is given."""
    logits = model(torch.from_numpy(text[np.newaxis, :-1]))
    return cross_entropy(logits[0], torch.from_numpy(text[1:])).item() / np.log(2)


@torch.no_grad()
def bits_by_context(model: CharLM, text: np.ndarray, length: int = 256, every: int = 32) -> np.ndarray:
    """Bits of the next character after 1 to `length` characters from zero states: (length,), means over the text.

    The text is read anew from every `every`-th character on; with `every` = `length` each character counts once.
    """
    windows = torch.from_numpy(text).unfold(0, length + 1, every)
    logits = model(windows[:, :-1])
    loss = cross_entropy(logits.transpose(1, 2), windows[:, 1:], reduction="none")
    return loss.mean(dim=0).numpy() / np.log(2)


def ngrams(known: str, text: str, longest: int = LONGEST) -> dict[int, float]:
    """Bits per character of `text`, after its first, by interpolated Kneser-Ney n-grams of `known`, for each n.

    An n-gram predicts from up to n - 1 characters before. Each order has one discount, n1 / (n1 + 2 n2), by how many
    of its grams were seen once and twice.
    """
    probability = np.full(len(text), 1 / len(VOCABULARY))
    seen = {n: Counter(known[i : i + n] for i in range(len(known) - n + 1)) for n in range(1, longest + 2)}
    bits = {}
    for n in range(1, longest + 1):
        bits[n] = float(-np.log2(interpolated(seen[n], n, text, probability)[1:]).mean())
        # Under a longer one, a gram counts by how many different characters were seen before it.
        probability = interpolated(Counter(gram[1:] for gram in seen[n + 1]), n, text, probability)
    return bits


def interpolated(counts: Counter[str], n: int, text: str, shorter: np.ndarray) -> np.ndarray:
    """The probability of each character of `text`, by the n-grams' counts and what shorter ones say: (len(text),)."""
    often = Counter(counts.values())
    discount = often[1] / (often[1] + 2 * often[2]) if often[1] else 0.0
    total: Counter[str] = Counter()
    different: Counter[str] = Counter()
    for gram, count in counts.items():
        total[gram[:-1]] += count
        different[gram[:-1]] += 1
    probability = shorter.copy()
    for i in range(n - 1, len(text)):
        before = text[i - n + 1 : i]
        if before in total:
            own = max(counts[before + text[i]] - discount, 0.0)
            probability[i] = (own + discount * different[before] * shorter[i]) / total[before]
    return probability


def compressed(compress: Callable[[bytes], bytes], known: str, text: str) -> float:
    """Bits per character that `text` adds to what `compress` makes of `known`."""
    return 8 * (len(compress((known + text).encode())) - len(compress(known.encode()))) / len(text)


def rivals(known: str, text: str) -> dict[str, float]:
    """Bits per character of `text` by what knows only `known` and what comes before."""
    return {
        "uniform": float(np.log2(len(VOCABULARY))),
        **{f"{n}-gram": bits for n, bits in ngrams(known, text).items()},
        "bzip2": compressed(lambda data: bz2.compress(data, 9), known, text),
        "xz": compressed(lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), known, text),
    }


def write(model: CharLM, path: Path) -> None:
    """Write the state dict whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(save(model.state_dict()))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def report(model: CharLM, known: str, judged: str) -> None:
    """Print the tables of charlm.md."""
    tokens = encode(judged)
    print("| predicted by | bits per character |\n| --- | ---: |")
    for name, bits in {**rivals(known, judged), "LSTM": bits_per_character(model, tokens)}.items():
        print(f"| {name} | {bits:.3f} |")
    familiar = bits_by_context(model, encode(known), length=max(ZEROED), every=max(ZEROED)).mean()
    print(f"\nThe LSTM on what trained it, states zeroed every {max(ZEROED)} characters: {familiar:.3f}\n")
    print("| states zeroed every | bits per character |\n| ---: | ---: |")
    for n in ZEROED:
        print(f"| {n} characters | {bits_by_context(model, tokens, length=n, every=n).mean():.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the character-level language model.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=HERE / "charlm.safetensors")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--validate", action="store_true", help="judge on the part before the held-out; write nothing")
    instead.add_argument("--figures", action="store_true", help="train nothing, judge the weights in --out")
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.backends.mkldnn.set_flags(_enabled=False)  # on one thread it trains slower with it
    known, judged = split((HERE / "shakespeare.txt").read_text(encoding="ascii"), args.validate)
    if args.figures:
        model = CharLM().eval()
        model.load_state_dict(load_file(args.out))
    else:
        started = time.process_time()  # of this one thread, whatever else the machine does
        model = train(encode(known), args.steps, args.seed)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        minutes = (time.process_time() - started) / 60
        print(f"{parameters} parameters, {args.steps} steps, {minutes:.1f} minutes of one core\n")
        if not args.validate:
            write(model, args.out)
    report(model, known, judged)


if __name__ == "__main__":
    main()
